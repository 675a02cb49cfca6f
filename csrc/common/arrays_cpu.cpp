#include "arrays.h"

#if !defined(GANLSTM_BFLOAT16)
#include "sums.h"

namespace ganlstm {
namespace {

template <typename T>
void scale(const T* a, int64_t count, Compute<T> x, T* to) {
  for (int64_t k = 0; k < count; k += kLanes<T>) {
    const int64_t n = smaller(kLanes<T>, count - k);
    store_n(to + k, load_n(a + k, n) * x, n);
  }
}

template <typename T>
void add(const T* a, const T* b, int64_t count, Compute<T> x, Compute<T> y, T* to) {
  for (int64_t k = 0; k < count; k += kLanes<T>) {
    const int64_t n = smaller(kLanes<T>, count - k);
    store_n(to + k, load_n(a + k, n) * x + load_n(b + k, n) * y, n);
  }
}

template <typename T>
void mix(const T* a, const T* b, int64_t count, Compute<T> x, T* to) {
  for (int64_t k = 0; k < count; k += kLanes<T>) {
    const int64_t n = smaller(kLanes<T>, count - k);
    const Vec<T> from = load_n(b + k, n);
    store_n(to + k, from + (load_n(a + k, n) - from) * x, n);
  }
}

template <typename T>
double dot(const T* a, const T* b, int64_t count) {
  return sum_of_lanes(dot_lanes(a, b, count));
}

}  // namespace

GANLSTM_DEFINE_TABLES(ArrayKernels, array_kernels, {scale<T>, add<T>, mix<T>, dot<T>})

}  // namespace ganlstm
#endif

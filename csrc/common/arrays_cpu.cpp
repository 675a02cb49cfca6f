#include "arrays.h"

#if !defined(GANLSTM_BFLOAT16)
#include "sums.h"

namespace ganlstm {
namespace {

// f(k, n) for each vector of n elements from k on; n is a constant but for the last.
template <typename T, typename F>
GANLSTM_INLINE void for_each_vector(int64_t count, F f) {
  constexpr int64_t lanes = kLanes<T>, unroll = 4;
  int64_t k = 0;
  for (; k + unroll * lanes <= count; k += unroll * lanes)
#pragma GCC unroll 4
    for (int64_t m = 0; m < unroll; ++m) f(k + m * lanes, lanes);
  for (; k < count; k += lanes) f(k, smaller(lanes, count - k));
}

template <typename T>
void scale(const T* a, int64_t count, Compute<T> x, T* to) {
  for_each_vector<T>(
      count, [&](int64_t k, int64_t n)
                 __attribute__((always_inline)) { store_n(to + k, load_n(a + k, n) * x, n); });
}

template <typename T>
void add(const T* a, const T* b, int64_t count, Compute<T> x, Compute<T> y, T* to) {
  for_each_vector<T>(
      count, [&](int64_t k, int64_t n) __attribute__((always_inline)) {
        store_n(to + k, load_n(a + k, n) * x + load_n(b + k, n) * y, n);
      });
}

template <typename T>
void mix(const T* a, const T* b, int64_t count, Compute<T> x, T* to) {
  for_each_vector<T>(
      count, [&](int64_t k, int64_t n) __attribute__((always_inline)) {
        const Vec<T> from = load_n(b + k, n);
        store_n(to + k, from + (load_n(a + k, n) - from) * x, n);
      });
}

template <typename T>
double dot(const T* a, const T* b, int64_t count) {
  return sum_of_lanes(dot_lanes(a, b, count));
}

}  // namespace

GANLSTM_DEFINE_TABLES(ArrayKernels, array_kernels, {scale<T>, add<T>, mix<T>, dot<T>})

}  // namespace ganlstm
#endif

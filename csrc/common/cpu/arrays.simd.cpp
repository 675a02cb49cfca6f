#include "arrays.h"

#include "sums.h"

namespace ganlstm {
namespace {

// How a result is written: it stays in the caches, or goes past them.
struct Kept {
  // The first n elements of v, n <= kLanes.
  template <typename T>
  GANLSTM_INLINE void put(T* p, Vec<T> v, int64_t n) {
    store_n(p, v, n);
  }
  template <typename T>
  GANLSTM_INLINE int64_t to_alignment(const T*) {
    return 0;
  }
  GANLSTM_INLINE void end() {}
};
struct Streamed {
  template <typename T>
  GANLSTM_INLINE void put(T* p, Vec<T> v, int64_t n) {
    if (n == kLanes<T>)
      stream(p, v);
    else
      store_masked(p, v, n);
  }
  // Elements before the first that is aligned for a vector.
  template <typename T>
  GANLSTM_INLINE int64_t to_alignment(const T* p) {
    const uintptr_t vector = sizeof(T) * size_t(kLanes<T>);
    return int64_t((vector - reinterpret_cast<uintptr_t>(p) % vector) % vector / sizeof(T));
  }
  GANLSTM_INLINE void end() { end_of_stream(); }
};

// to[k..k+n) = f(k, n) for each vector of n elements; n is a constant but at both ends.
template <typename Write, typename T, typename F>
GANLSTM_INLINE void for_each_vector(int64_t count, T* to, F f) {
  constexpr int64_t lanes = kLanes<T>, unroll = 4;
  int64_t k = smaller(Write::to_alignment(to), count);
  if (k > 0) Write::put(to, f(0, k), k);
  for (; k + unroll * lanes <= count; k += unroll * lanes)
#pragma GCC unroll 4
    for (int64_t m = 0; m < unroll; ++m)
      Write::put(to + k + m * lanes, f(k + m * lanes, lanes), lanes);
  for (; k < count; k += lanes) {
    const int64_t n = smaller(lanes, count - k);
    Write::put(to + k, f(k, n), n);
  }
  Write::end();
}

template <typename Write, typename T>
void scale(const T* a, int64_t count, Compute<T> x, T* to) {
  for_each_vector<Write>(
      count, to, [&](int64_t k, int64_t n) __attribute__((always_inline)) {
        return load_n(a + k, n) * x;
      });
}

template <typename Write, typename T>
void add(const T* a, const T* b, int64_t count, Compute<T> x, Compute<T> y, T* to) {
  for_each_vector<Write>(
      count, to, [&](int64_t k, int64_t n) __attribute__((always_inline)) {
        return load_n(a + k, n) * x + load_n(b + k, n) * y;
      });
}

template <typename Write, typename T>
void mix(const T* a, const T* b, int64_t count, Compute<T> x, T* to) {
  for_each_vector<Write>(
      count, to, [&](int64_t k, int64_t n) __attribute__((always_inline)) {
        const Vec<T> from = load_n(b + k, n);
        return from + (load_n(a + k, n) - from) * x;
      });
}

template <typename T>
double dot(const T* a, const T* b, int64_t count) {
  return sum_of_lanes(dot_lanes(a, b, count));
}

template <typename Write, typename T>
constexpr ArrayKernels<T> kKernels = {scale<Write, T>, add<Write, T>, mix<Write, T>, dot<T>};

}  // namespace

#define GANLSTM_DEFINE(T)                                         \
  template <>                                                     \
  const ArrayKernels<T>& array_kernels_on<kIsa, T>(bool stream) { \
    return stream ? kKernels<Streamed, T> : kKernels<Kept, T>;    \
  }
GANLSTM_FOR_TYPES(GANLSTM_DEFINE)

}  // namespace ganlstm

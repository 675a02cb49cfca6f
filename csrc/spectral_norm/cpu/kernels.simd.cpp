// The spectral norm's kernels on the CPU. Memory bounds all of them: they read their inputs once,
// and do not read their results.
#include "kernels.h"

#include "../../common/cpu/sums.h"

namespace ganlstm {
namespace {

// p[r] = sum_j W_ij v_j over all columns j, for the R rows from row i on, with enough sums to hide
// the latency of an addition.
template <typename T, int R>
GANLSTM_INLINE void dot_rows(const SpectralNormShape& s, const T* w, const Compute<T>* v,
                             Compute<T>* p) {
  constexpr int64_t lanes = kLanes<T>, unroll = 8 / R, step = unroll * lanes;
  Vec<T> totals[R] = {}, sums[R][unroll] = {};
  int64_t additions = 0;
  auto end_run = [&] {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int64_t k = 0; k < unroll; ++k) {
        totals[r] += sums[r][k];
        sums[r][k] = Vec<T>{};
      }
    additions = 0;
  };
  for (int64_t a = 0; a < s.outer; ++a, w += s.rows * s.inner, v += s.inner) {
    int64_t b = 0;
    while (b + step <= s.inner) {
      const int64_t end = smaller(s.inner, b + (kRun - additions) * step);
      additions += (end - b) / step;
      for (; b + step <= end; b += step)
#pragma GCC unroll 8
        for (int64_t k = 0; k < unroll; ++k) {
          const Vec<T> factor = load(v + b + k * lanes);
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) sums[r][k] += load(w + r * s.inner + b + k * lanes) * factor;
        }
      if (additions >= kRun) end_run();
    }
    for (; b < s.inner; b += lanes, ++additions) {
      const int64_t n = smaller(lanes, s.inner - b);
      const Vec<T> factor = load_n(v + b, n);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) sums[r][0] += load_n(w + r * s.inner + b, n) * factor;
    }
    if (additions >= kRun) end_run();
  }
  end_run();
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) p[r] = Compute<T>(sum_of_lanes(totals[r]));
}

// q[j] += sum_r p[r] W_rj.
template <typename T, int R>
GANLSTM_INLINE void add_rows(const SpectralNormShape& s, const T* w, const Compute<T>* p,
                             Compute<T>* q) {
  constexpr int64_t lanes = kLanes<T>;
  Vec<T> factors[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) factors[r] = fill<Vec<T>>(p[r]);
  for (int64_t a = 0; a < s.outer; ++a, w += s.rows * s.inner, q += s.inner)
    for (int64_t b = 0; b < s.inner; b += lanes) {
      const int64_t n = smaller(lanes, s.inner - b);
      Vec<T> sum = {};
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) sum += load_n(w + r * s.inner + b, n) * factors[r];
      store_n(q + b, load_n(q + b, n) + sum, n);
    }
}

// Multiplies rows from `begin` on, R at a time while R are left, and returns the next row. The
// second product finds the R rows in the cache.
template <typename T, int R>
GANLSTM_INLINE int64_t product_rows(const SpectralNormShape& s, const T* w, int64_t begin,
                                    int64_t end, const Compute<T>* v, Compute<T>* p,
                                    Compute<T>* q) {
  for (; begin + R <= end; begin += R) {
    const T* rows = w + begin * s.inner;
    if (v != nullptr) dot_rows<T, R>(s, rows, v, p + begin);
    if (q != nullptr) add_rows<T, R>(s, rows, p + begin, q);
  }
  return begin;
}

template <typename T>
void products(const SpectralNormShape& s, const T* w, int64_t begin, int64_t end,
              const Compute<T>* v, Compute<T>* p, Compute<T>* q) {
  begin = product_rows<T, 8>(s, w, begin, end, v, p, q);
  begin = product_rows<T, 4>(s, w, begin, end, v, p, q);
  begin = product_rows<T, 2>(s, w, begin, end, v, p, q);
  product_rows<T, 1>(s, w, begin, end, v, p, q);
}

template <typename T>
double dot_outer(const SpectralNormShape& s, const T* a, int64_t begin, int64_t end,
                 const Compute<T>* u, const Compute<T>* v) {
  Vec<T> total = {};
  while (begin < end) {
    Vec<T> sum = {};
    for (const int64_t stop = smaller(end, begin + kRun); begin < stop; ++begin)
      sum +=
          dot_lanes(a + begin * s.inner, v + begin / s.rows * s.inner, s.inner) * u[begin % s.rows];
    total += sum;
  }
  return sum_of_lanes(total);
}

template <typename T>
void add_outer(const SpectralNormShape& s, const T* a, int64_t begin, int64_t end,
               const Compute<T>* u, const Compute<T>* v, Compute<T> x, Compute<T> y, Compute<T> z,
               T* to) {
  for (int64_t k = begin; k < end; ++k) {
    const Compute<T> factor = z * u[k % s.rows];
    const Compute<T>* column = v + k / s.rows * s.inner;
    for (int64_t b = 0; b < s.inner; b += kLanes<T>) {
      const int64_t n = smaller(kLanes<T>, s.inner - b);
      const Vec<T> sum = load_n(a + k * s.inner + b, n) * y + load_n(column + b, n) * factor;
      store_n(to + k * s.inner + b, sum * x, n);
    }
  }
}

template <typename T>
constexpr SpectralNormKernels<T> kKernels = {products<T>, dot_outer<T>, add_outer<T>};

}  // namespace

#define GANLSTM_DEFINE(T)                                             \
  template <>                                                         \
  const SpectralNormKernels<T>& spectral_norm_kernels_on<kIsa, T>() { \
    return kKernels<T>;                                               \
  }
GANLSTM_FOR_TYPES(GANLSTM_DEFINE)

}  // namespace ganlstm

// Vectors in the compilers' vector extensions, as wide as the instruction set that this file is
// compiled for. One source thus serves AVX-512, AVX2, SSE2 and NEON.
//
// Only sources that are compiled once for each instruction set (isa.h) include this. Everything
// here has internal linkage: a weak symbol would let the linker put one set's code into the path of
// another.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../activations.h"
#include "../bfloat16.h"
#include "isa.h"

#ifndef GANLSTM_ISA
#define GANLSTM_ISA baseline
#endif

// define(T) for each type that the set has kernels for. Kernels that multiply bfloat16s exist for
// bfloat16 only in the set with such products; all other kernels exist in all sets but that one.
#if defined(GANLSTM_BFLOAT16)
#define GANLSTM_FOR_TYPES(define)
#define GANLSTM_FOR_PRODUCT_TYPES(define) define(BFloat16)
#else
#define GANLSTM_FOR_TYPES(define) define(float) define(double) define(BFloat16)
#define GANLSTM_FOR_PRODUCT_TYPES(define) define(float) define(double)
#endif

#define GANLSTM_INLINE static inline __attribute__((always_inline))

namespace ganlstm {

// The set that is being compiled.
constexpr Isa kIsa = Isa::GANLSTM_ISA;

#if defined(__AVX512F__)
#define GANLSTM_VECTOR_BYTES 64
#elif defined(__AVX__)
#define GANLSTM_VECTOR_BYTES 32
#else
#define GANLSTM_VECTOR_BYTES 16
#endif

// Rows of the left operand that a micro-kernel takes at once: rows * 4 sums, 4 weights and a
// broadcast fill the 32 registers of AVX-512 and NEON, or the 16 of the others.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRows = 6;
#elif defined(__AVX2__)
constexpr int kRows = 3;
#else
constexpr int kRows = 2;
#endif

typedef float VecF __attribute__((vector_size(GANLSTM_VECTOR_BYTES)));
typedef double VecD __attribute__((vector_size(GANLSTM_VECTOR_BYTES)));
typedef int32_t IntF __attribute__((vector_size(GANLSTM_VECTOR_BYTES)));
typedef int64_t IntD __attribute__((vector_size(GANLSTM_VECTOR_BYTES)));

template <typename T>
struct VecOf;
template <>
struct VecOf<float> {
  using type = VecF;
};
template <>
struct VecOf<double> {
  using type = VecD;
};
template <>
struct VecOf<BFloat16> {
  using type = VecF;
};
// What T is computed in.
template <typename T>
using Vec = typename VecOf<T>::type;

// Elements in a vector.
template <typename T>
constexpr int64_t kLanes = GANLSTM_VECTOR_BYTES / int64_t(sizeof(Compute<T>));

GANLSTM_INLINE constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
GANLSTM_INLINE constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

template <typename T>
GANLSTM_INLINE Vec<T> load(const T* p) {
  Vec<T> v;
  memcpy(&v, p, sizeof(v));
  return v;
}

template <typename T>
GANLSTM_INLINE void store(T* p, Vec<T> v) {
  memcpy(p, &v, sizeof(v));
}

// The first n elements, n <= kLanes; the others are zero and their memory is not touched.
#if defined(__AVX512F__)
GANLSTM_INLINE VecF load_masked(const float* p, int64_t n) {
  return (VecF)_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p);
}
GANLSTM_INLINE VecD load_masked(const double* p, int64_t n) {
  return (VecD)_mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), p);
}
GANLSTM_INLINE void store_masked(float* p, VecF v, int64_t n) {
  _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), (__m512)v);
}
GANLSTM_INLINE void store_masked(double* p, VecD v, int64_t n) {
  _mm512_mask_storeu_pd(p, __mmask8((1u << n) - 1), (__m512d)v);
}
#elif defined(__AVX2__)
GANLSTM_INLINE __m256i mask_f(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
GANLSTM_INLINE __m256i mask_d(int64_t n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
GANLSTM_INLINE VecF load_masked(const float* p, int64_t n) {
  return (VecF)_mm256_maskload_ps(p, mask_f(n));
}
GANLSTM_INLINE VecD load_masked(const double* p, int64_t n) {
  return (VecD)_mm256_maskload_pd(p, mask_d(n));
}
GANLSTM_INLINE void store_masked(float* p, VecF v, int64_t n) {
  _mm256_maskstore_ps(p, mask_f(n), (__m256)v);
}
GANLSTM_INLINE void store_masked(double* p, VecD v, int64_t n) {
  _mm256_maskstore_pd(p, mask_d(n), (__m256d)v);
}
#else
template <typename T>
GANLSTM_INLINE Vec<T> load_masked(const T* p, int64_t n) {
  Vec<T> v = {};
  for (int64_t i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
template <typename T, typename V>
GANLSTM_INLINE void store_masked(T* p, V v, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = v[i];
}
#endif

template <typename V, typename S>
GANLSTM_INLINE V fill(S value) {
  // Not V{} + value: that turns -0 into 0, and so needs an addition besides the broadcast.
  return value - V{};
}

// Products. Each lane of a vector of sums takes kDepth<T> elements, which lie side by side.
template <typename T>
struct FactorsOf {
  using type = Vec<T>;
};
#if defined(GANLSTM_BFLOAT16)
typedef uint16_t Bits16 __attribute__((vector_size(GANLSTM_VECTOR_BYTES / 2)));
template <>
struct FactorsOf<BFloat16> {
  using type = IntF;  // pairs
};
template <typename T>
constexpr int64_t kDepth = std::is_same_v<T, BFloat16> ? 2 : 1;

// The first n elements, each in the lower half of its lane.
GANLSTM_INLINE IntF load_bits(const BFloat16* p, int64_t n) {
  Bits16 bits;
  if (n >= kLanes<BFloat16>)
    memcpy(&bits, p, sizeof(bits));
  else
    bits = (Bits16)_mm256_maskz_loadu_epi16(__mmask16((1u << n) - 1), p);
  return __builtin_convertvector(bits, IntF);
}
GANLSTM_INLINE VecF load_masked(const BFloat16* p, int64_t n) {
  return (VecF)(load_bits(p, n) << 16);
}
GANLSTM_INLINE VecF load(const BFloat16* p) { return load_masked(p, kLanes<BFloat16>); }
GANLSTM_INLINE void store(BFloat16* p, VecF v) {
  const __m256bh rounded = _mm512_cvtneps_pbh((__m512)v);
  memcpy(p, &rounded, sizeof(rounded));
}
GANLSTM_INLINE void store_masked(BFloat16* p, VecF v, int64_t n) {
  _mm256_mask_storeu_epi16(p, __mmask16((1u << n) - 1), (__m256i)_mm512_cvtneps_pbh((__m512)v));
}

// The instruction takes denormals for zeros.
GANLSTM_INLINE VecF multiply_add(VecF sum, IntF a, IntF b) {
  return (VecF)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}
GANLSTM_INLINE IntF load_factors(const BFloat16* p) {
  IntF v;
  memcpy(&v, p, sizeof(v));
  return v;
}
GANLSTM_INLINE IntF load_factors_n(const BFloat16* p, int64_t n) {
  const __mmask32 mask = n >= 32 ? ~__mmask32(0) : __mmask32((1u << n) - 1);
  return (IntF)_mm512_maskz_loadu_epi16(mask, p);
}
GANLSTM_INLINE IntF fill_factors(const BFloat16* p, int64_t n) {
  int32_t pair = 0;
  memcpy(&pair, p, size_t(n) * sizeof(BFloat16));
  return pair - IntF{};
}
GANLSTM_INLINE void store_factors(BFloat16* to, const BFloat16* const* rows, int64_t offset,
                                  int64_t n) {
  IntF pairs = load_bits(rows[0] + offset, n);
  if (rows[1] != nullptr) pairs |= load_bits(rows[1] + offset, n) << 16;
  memcpy(to, &pairs, sizeof(pairs));
}
#else
template <typename T>
constexpr int64_t kDepth = 1;

// Without instructions of its own a bfloat16 is widened and rounded as an integer.
typedef uint16_t Bits16 __attribute__((vector_size(GANLSTM_VECTOR_BYTES / 2)));
typedef uint32_t Bits32 __attribute__((vector_size(GANLSTM_VECTOR_BYTES)));
GANLSTM_INLINE VecF load_masked(const BFloat16* p, int64_t n) {
  Bits16 bits = {};
  memcpy(&bits, p, size_t(n) * sizeof(BFloat16));
  return (VecF)(__builtin_convertvector(bits, Bits32) << 16);
}
GANLSTM_INLINE VecF load(const BFloat16* p) { return load_masked(p, kLanes<BFloat16>); }
GANLSTM_INLINE void store_masked(BFloat16* p, VecF v, int64_t n) {
  const Bits32 bits = (Bits32)v, rounded = bits + (0x7fff + ((bits >> 16) & 1));
  const Bits16 upper = __builtin_convertvector((v != v ? bits | 0x400000 : rounded) >> 16, Bits16);
  memcpy(p, &upper, size_t(n) * sizeof(BFloat16));
}
GANLSTM_INLINE void store(BFloat16* p, VecF v) { store_masked(p, v, kLanes<BFloat16>); }
#endif
template <typename T>
using Factors = typename FactorsOf<T>::type;

template <typename T>
GANLSTM_INLINE Vec<T> load_n(const T* p, int64_t n) {
  return n >= kLanes<T> ? load(p) : load_masked(p, n);
}
template <typename T>
GANLSTM_INLINE void store_n(T* p, Vec<T> v, int64_t n) {
  if (n >= kLanes<T>)
    store(p, v);
  else
    store_masked(p, v, n);
}

// Stores past the caches, if the set has an instruction for T. p is aligned for a vector. After the
// last store end_of_stream() makes them visible to other threads.
template <typename T>
GANLSTM_INLINE void stream(T* p, Vec<T> v) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) return _mm512_stream_ps(p, (__m512)v);
  if constexpr (std::is_same_v<T, double>) return _mm512_stream_pd(p, (__m512d)v);
#elif defined(__AVX__)
  if constexpr (std::is_same_v<T, float>) return _mm256_stream_ps(p, (__m256)v);
  if constexpr (std::is_same_v<T, double>) return _mm256_stream_pd(p, (__m256d)v);
#elif defined(__SSE2__)
  if constexpr (std::is_same_v<T, float>) return _mm_stream_ps(p, (__m128)v);
  if constexpr (std::is_same_v<T, double>) return _mm_stream_pd(p, (__m128d)v);
#endif
  store(p, v);
}
GANLSTM_INLINE void end_of_stream() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

GANLSTM_INLINE VecF multiply_add(VecF sum, VecF a, VecF b) { return sum + a * b; }
GANLSTM_INLINE VecD multiply_add(VecD sum, VecD a, VecD b) { return sum + a * b; }
template <typename T>
GANLSTM_INLINE Vec<T> load_factors(const T* p) {
  return load(p);
}
// The first n elements of a vector of factors; the others are zero.
template <typename T>
GANLSTM_INLINE Vec<T> load_factors_n(const T* p, int64_t n) {
  return load_n(p, n);
}
// The first n of kDepth elements, followed by zeros, in all lanes.
template <typename T>
GANLSTM_INLINE Vec<T> fill_factors(const T* p, int64_t) {
  return fill<Vec<T>>(*p);
}
// The first n elements from `offset` on of each of kDepth rows, filled up with zeros. Rows after
// the first may be null, for zeros.
template <typename T>
GANLSTM_INLINE void store_factors(T* to, const T* const* rows, int64_t offset, int64_t n) {
  store(to, load_n(rows[0] + offset, n));
}

// a[first], b[first], a[first + 1], b[first + 1] and so on.
template <int first, typename V, size_t... lane>
GANLSTM_INLINE V interleave(V a, V b, std::index_sequence<lane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (first + lane / 2 + lane % 2 * sizeof...(lane))...);
#else
  using Index = decltype(a == b);
  return __builtin_shuffle(a, b, Index{(first + lane / 2 + lane % 2 * sizeof...(lane))...});
#endif
}

// tile[i] lane j <-> tile[j] lane i: each round moves one bit of i to the front of j.
template <typename V, size_t lanes>
GANLSTM_INLINE void transpose(V (&tile)[lanes]) {
  constexpr auto all = std::make_index_sequence<lanes>();
#pragma GCC unroll 4
  for (size_t round = 1; round < lanes; round *= 2) {
    V next[lanes];
#pragma GCC unroll 8
    for (size_t i = 0; i < lanes / 2; ++i) {
      next[2 * i] = interleave<0>(tile[i], tile[i + lanes / 2], all);
      next[2 * i + 1] = interleave<int(lanes / 2)>(tile[i], tile[i + lanes / 2], all);
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < lanes; ++i) tile[i] = next[i];
  }
}

// The sum over the lanes of vector i in lane i.
template <typename V, size_t lanes>
GANLSTM_INLINE V sum_lanes(V (&vectors)[lanes]) {
  constexpr auto all = std::make_index_sequence<lanes>();
#pragma GCC unroll 4
  for (size_t half = lanes / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (size_t i = 0; i < half; ++i)
      vectors[i] = interleave<0>(vectors[i], vectors[i + half], all) +
                   interleave<int(lanes / 2)>(vectors[i], vectors[i + half], all);
  return vectors[0];
}

// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2; exp(r) - 1 by its Taylor polynomial,
// whose first omitted term is below a quarter of the dtype's epsilon. ln 2 is split in two so that
// n ln 2 is exact in its leading part (Cody and Waite).
struct SplitF {
  using Int = IntF;
  using Scalar = float;
  static constexpr float log2e = 1.44269504f, ln2_hi = 0.693359375f, ln2_lo = -2.12194440e-4f;
  static constexpr float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float low = -87.0f, high = 88.0f, tanh_low = -40.0f;
  static constexpr int shift = 23;
  static constexpr int32_t bias = 127, sign = INT32_MIN;
  static constexpr int degree = 7;
};
struct SplitD {
  using Int = IntD;
  using Scalar = double;
  static constexpr double log2e = 1.4426950408889634074, ln2_hi = 6.93145751953125e-1,
                          ln2_lo = 1.42860682030941723212e-6;
  static constexpr double magic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double low = -708.0, high = 709.0, tanh_low = -80.0;
  static constexpr int shift = 52;
  static constexpr int64_t bias = 1023, sign = INT64_MIN;
  static constexpr int degree = 13;
};

// Splits x into 2^n (returned in `scale`) and expm1(r) (returned). NaN comes out as NaN.
template <typename S, typename V>
GANLSTM_INLINE V expm1_reduced(V x, V& scale) {
  using Int = typename S::Int;
  using Scalar = typename S::Scalar;
  V shifted = x * S::log2e + S::magic;
  V n = shifted - S::magic;
  V r = x - n * S::ln2_hi - n * S::ln2_lo;
  const Scalar magic = S::magic;
  decltype(S::bias + 0) magic_bits;
  memcpy(&magic_bits, &magic, sizeof(magic));
  scale = (V)((((Int)shifted - magic_bits) + S::bias) << S::shift);
  constexpr double inverse[] = {1.0,
                                1.0 / 2,
                                1.0 / 6,
                                1.0 / 24,
                                1.0 / 120,
                                1.0 / 720,
                                1.0 / 5040,
                                1.0 / 40320,
                                1.0 / 362880,
                                1.0 / 3628800,
                                1.0 / 39916800,
                                1.0 / 479001600,
                                1.0 / 6227020800.0};
  V p = fill<V>(Scalar(inverse[S::degree - 1]));
#pragma GCC unroll 16
  for (int k = S::degree - 2; k >= 0; --k) p = p * r + Scalar(inverse[k]);
  return p * r;
}

template <typename S, typename V>
GANLSTM_INLINE V sigmoid_vector(V z) {
  V x = -z;
  x = x < S::low ? fill<V>(S::low) : x;
  x = x > S::high ? fill<V>(S::high) : x;
  V scale;
  V p = expm1_reduced<S>(x, scale);
  return 1 / (1 + (scale + scale * p));
}

template <typename S, typename V>
GANLSTM_INLINE V tanh_vector(V z) {
  using Int = typename S::Int;
  const Int bits = (Int)z;
  V x = (V)(bits | S::sign);  // -|z|
  x = x + x;
  x = x < S::tanh_low ? fill<V>(S::tanh_low) : x;
  V scale;
  V p = expm1_reduced<S>(x, scale);
  V e = scale * p + (scale - 1);  // expm1(-2|z|), exact to rounding also near zero
  V t = -e / (2 + e);
  return (V)((Int)t | (bits & S::sign));
}

GANLSTM_INLINE VecF sigmoid(VecF z) { return sigmoid_vector<SplitF>(z); }
GANLSTM_INLINE VecD sigmoid(VecD z) { return sigmoid_vector<SplitD>(z); }
GANLSTM_INLINE VecF tanh_(VecF z) { return tanh_vector<SplitF>(z); }
GANLSTM_INLINE VecD tanh_(VecD z) { return tanh_vector<SplitD>(z); }

}  // namespace ganlstm

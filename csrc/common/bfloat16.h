// bfloat16, the upper half of a float: kernels read and write it, and compute in float.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace ganlstm {

struct BFloat16 {
  uint16_t bits;
};

// The type in which kernels on arrays of T compute and sum, on CPUs and GPUs: float for 16 bits.
// Tensors of sums have this type too (compute_dtype in check.h), and so has what one pass saves for
// the next, unless a contract says otherwise. Partial sums of long arrays are added up in double.
template <typename T>
using Compute = std::conditional_t<std::is_same_v<T, double>, double, float>;

static inline float widen(float value) { return value; }
static inline double widen(double value) { return value; }
static inline float widen(BFloat16 value) {
  const uint32_t bits = uint32_t(value.bits) << 16;
  float result;
  memcpy(&result, &bits, sizeof(result));
  return result;
}

// Rounds to the nearest, a tie to the even one. A NaN may have bits in its lower half only, so one
// bit of the upper half is set to keep it a NaN.
static inline BFloat16 to_bfloat16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  const uint32_t rounded = bits + 0x7fff + ((bits >> 16) & 1);
  return {uint16_t((value != value ? bits | 0x400000 : rounded) >> 16)};
}

template <typename T>
static inline T narrow(Compute<T> value) {
  if constexpr (std::is_same_v<T, BFloat16>)
    return to_bfloat16(value);
  else
    return value;
}

// to[i] <- from[i], of the same or of another type.
template <typename To, typename From>
static inline void convert(To* to, const From* from, int64_t count) {
  if constexpr (std::is_same_v<To, From>)
    memcpy(to, from, size_t(count) * sizeof(To));
  else
    for (int64_t i = 0; i < count; ++i) to[i] = narrow<To>(widen(from[i]));
}

}  // namespace ganlstm

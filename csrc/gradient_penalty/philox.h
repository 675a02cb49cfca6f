// The random numbers of `interpolate`: a function of the seed and the sample's number, so that all
// implementations draw the same numbers, and in any order.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../common/activations.h"

namespace ganlstm {

struct PhiloxWords {
  uint32_t x, y;
};

// The first two words of Philox4x32-10 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3,
// 2011) with the seed as its key and (sample, 0) as its counter.
GANLSTM_HD PhiloxWords philox(uint64_t seed, uint64_t sample) {
  uint32_t key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
  uint32_t c0 = uint32_t(sample), c1 = uint32_t(sample >> 32), c2 = 0, c3 = 0;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
    c0 = uint32_t(p1 >> 32) ^ c1 ^ key0;
    c2 = uint32_t(p0 >> 32) ^ c3 ^ key1;
    c1 = uint32_t(p1);
    c3 = uint32_t(p0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {c0, c1};
}

// Uniform in [0, 1). The first 24 bits of the 53 for double are those for float.
template <typename C>
GANLSTM_HD C philox_uniform(uint64_t seed, uint64_t sample) {
  const PhiloxWords words = philox(seed, sample);
  if constexpr (std::is_same_v<C, double>)
    return double((uint64_t(words.x >> 5) << 26) + (words.y >> 6)) * 0x1p-53;
  else
    return float(words.x >> 8) * 0x1p-24f;
}

}  // namespace ganlstm

// The four values that a step has of each hidden unit, H apart in memory, for vectors of units.
#pragma once

#include "../../common/cpu/simd.h"

namespace ganlstm {
namespace {

// Slots: a cell's struct of four vectors, in their order. The first `valid` units of a vector.
template <template <typename> class Slots, typename T>
GANLSTM_INLINE Slots<Vec<T>> load_slots(const T* p, int64_t hidden, int64_t valid) {
  return {load_n(p, valid), load_n(p + hidden, valid), load_n(p + 2 * hidden, valid),
          load_n(p + 3 * hidden, valid)};
}

template <typename T, typename Slots>
GANLSTM_INLINE void store_slots(T* p, int64_t hidden, const Slots& slots, int64_t valid) {
  const auto& [a, b, c, d] = slots;
  store_n(p, a, valid);
  store_n(p + hidden, b, valid);
  store_n(p + 2 * hidden, c, valid);
  store_n(p + 3 * hidden, d, valid);
}

}  // namespace
}  // namespace ganlstm

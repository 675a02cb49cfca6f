// Sums over the parts of a sample, through memory, and factors that do not overflow.
#pragma once

#include <limits>

#include "../slope.h"
#include "elements.h"

namespace ganlstm::gpu::gradient_penalty {

#if defined(GANLSTM_GPU)

// The sum over the parts of a sample, which put_part wrote; every thread of the warp gets it.
template <typename T>
GANLSTM_GPU double sum_of_parts(const Group<T>& g, int64_t sample) {
  double sum = 0;
  for (int64_t k = hardware::thread() % 32; k < g.parts_of_all; k += 32)
    sum += hardware::load_of_others(g.room + sample * g.parts_of_all + k);
  return hardware::warp_sum(sum);
}
template <typename T>
GANLSTM_GPU void put_part(const Group<T>& g, const Unit& unit, Compute<T> sum) {
  if (hardware::thread() == 0)
    g.room[unit.sample * g.parts_of_all + g.first_part + unit.part] = sum;
}

// Stores what a whole sample adds to the value. Only the `share` of the team's first thread counts.
template <typename T>
GANLSTM_GPU void put_share(const Group<T>& g, const Unit& unit, Compute<T> share) {
  if (g.by_warps) share = block_sum(rank(g) == 0 ? share : Compute<T>(0));
  if (hardware::thread() == 0) g.room[unit.index] = share;
}

// value = factor * the sum of all shares. The share of a sample that was cut into parts is
// of_sample(b, the sum of its parts).
template <typename T, typename F>
GANLSTM_GPU void put_value(const Group<T>& g, Grid& grid, double factor, F&& of_sample) {
  if (!grid.is_last()) return;
  double total = 0;
  if (g.is_whole) {
    for (int64_t k = hardware::thread(); k < g.units(); k += hardware::threads())
      total += hardware::load_of_others(g.room + k);
  } else {
    const int warps = hardware::threads() / 32;
    for (int64_t b = hardware::thread() / 32; b < g.batch; b += warps) {
      const double share = of_sample(b, sum_of_parts(g, b));
      if (hardware::thread() % 32 == 0) total += share;
    }
  }
  total = block_sum(total);
  if (hardware::thread() == 0) *g.value = Compute<T>(factor * total);
}

template <typename C>
constexpr C kMost = std::numeric_limits<C>::max();

// share * factor, which is finite if the share is: for a tiny gradient the factor may overflow, and
// infinity times the zeros in it would be NaN.
template <typename C>
GANLSTM_GPU C scaled(C share, C factor) {
  const auto finite = [](C x) {
    constexpr C most = kMost<C>;
    return x > most ? most : x < -most ? -most : x;
  };
  const C product = share * finite(factor);
  return share - share == 0 ? finite(product) : product;
}

#endif

}  // namespace ganlstm::gpu::gradient_penalty

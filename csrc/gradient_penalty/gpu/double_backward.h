// The gradients of the penalty's gradient on a GPU.
#pragma once

#include "sums.h"

namespace ganlstm::gpu::gradient_penalty {

#if defined(GANLSTM_GPU)

// The result of a whole sample is written while the multiprocessor's cache still has V and g from
// the sum. Samples that are cut into parts go in waves that fit the GPU's cache: all of a wave are
// summed, then written. Either way V and g are read from memory once.
template <typename T>
GANLSTM_GPU void double_backward(const Group<T>& g, Grid grid) {
  using C = Compute<T>;
  const PenaltyCurve<C> curve{g.center, g.one_sided};
  const C share = 2 * *g.grad_value / C(g.batch);
  const auto product_of = [&](const Unit& unit) {
    C sum = 0;
    for_each_element(g, unit, [&](const Array<T>& array, int64_t at, auto width) {
      using E = Elements<T, decltype(width)::value>;
      if (array.y != nullptr) sum += E(array.y + at).dot(E(array.x + at));
    });
    return team_sum(g, sum);
  };
  const auto write = [&](const Unit& unit, C norm, C product) {
    const C of_v = scaled(share, curve.slope(norm));
    const C of_unit = scaled(share, curve.bend(norm, product));
    const C inverse = scaled(C(1), norm > 0 ? 1 / norm : C(0));
    for_each_element(g, unit, [&](const Array<T>& array, int64_t at, auto width) {
      using E = Elements<T, decltype(width)::value>;
      const E grad(array.x + at);
      const auto along = [&](C x) { return of_unit * (inverse * x); };
      if (array.y == nullptr)
        grad.map(along).put(array.out + at);
      else
        grad.map(E(array.y + at), [&](C x, C v) { return of_v * v + along(x); })
            .put(array.out + at);
    });
  };
  const auto slope_times = [&](C norm, C product) { return scaled(product, curve.slope(norm)); };

  const bool waits = !g.is_whole && g.sums && g.writes;
  const int64_t wave = waits ? g.wave : g.batch;
  for (int64_t begin = 0; begin < g.batch; begin += wave) {
    const int64_t end = begin + wave < g.batch ? begin + wave : g.batch;
    if (!g.is_whole && g.sums)
      for_each_unit(g, grid, begin, end,
                    [&](const Unit& unit) { put_part(g, unit, product_of(unit)); });
    if (waits) grid.barrier();
    if (!g.is_whole && !g.writes) continue;
    for_each_unit(g, grid, begin, end, [&](const Unit& unit) {
      const bool is_there = unit.sample < g.batch;
      const C norm = is_there ? g.norms[unit.sample] : C(0);
      C product = 0;
      if (g.is_whole && g.sums) product = product_of(unit);
      if (!g.is_whole && g.center != 0) product = C(sum_of_parts(g, unit.sample));
      if (g.writes) write(unit, norm, product);
      if (g.is_whole && g.value != nullptr)
        put_share(g, unit, is_there ? slope_times(norm, product) : C(0));
    });
  }
  if (g.value == nullptr) return;
  put_value(g, grid, 2 / double(g.batch), [&](int64_t sample, double product) {
    return double(slope_times(g.norms[sample], C(product)));
  });
}

#endif

}  // namespace ganlstm::gpu::gradient_penalty

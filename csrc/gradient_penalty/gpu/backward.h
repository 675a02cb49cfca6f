// The penalty's gradient on a GPU.
#pragma once

#include "sums.h"

namespace ganlstm::gpu::gradient_penalty {

#if defined(GANLSTM_GPU)

template <typename T>
GANLSTM_GPU void backward(const Group<T>& g, const Grid& grid) {
  using C = Compute<T>;
  const PenaltyCurve<C> curve{g.center, g.one_sided};
  const C share = 2 * *g.grad_value / C(g.batch);
  for_each_unit(g, grid, 0, g.batch, [&](const Unit& unit) {
    if (unit.sample == g.batch) return;
    const C factor = scaled(share, curve.slope(g.norms[unit.sample]));
    for_each_element(g, unit, [&](const Array<T>& array, int64_t at, auto width) {
      using E = Elements<T, decltype(width)::value>;
      E(array.x + at).map([&](C grad) { return factor * grad; }).put(array.out + at);
    });
  });
}

#endif

}  // namespace ganlstm::gpu::gradient_penalty

// The penalty's value and the samples' norms on a GPU.
#pragma once

#include "sums.h"

namespace ganlstm::gpu::gradient_penalty {

#if defined(GANLSTM_GPU)

template <typename T>
GANLSTM_GPU void forward(const Group<T>& g, Grid grid) {
  using C = Compute<T>;
  const PenaltyCurve<C> curve{g.center, g.one_sided};
  const auto penalty = [&](C square, C norm) {
    const C excess = curve.excess(norm);
    return curve.center == 0 ? square : excess * excess;
  };
  for_each_unit(g, grid, 0, g.batch, [&](const Unit& unit) {
    C square = 0;
    for_each_element(g, unit, [&](const Array<T>& array, int64_t at, auto width) {
      const Elements<T, decltype(width)::value> grad(array.x + at);
      square += grad.dot(grad);
    });
    square = team_sum(g, square);
    if (!g.is_whole) return put_part(g, unit, square);
    const C norm = hardware::square_root(square);
    const bool is_there = unit.sample < g.batch;
    if (rank(g) == 0 && is_there) g.norms[unit.sample] = norm;
    put_share(g, unit, is_there ? penalty(square, norm) : C(0));
  });
  if (g.value == nullptr) return;
  put_value(g, grid, 1 / double(g.batch), [&](int64_t sample, double square) {
    const double norm = hardware::square_root(square);
    g.norms[sample] = C(norm);
    return double(penalty(C(square), C(norm)));
  });
}

#endif

}  // namespace ganlstm::gpu::gradient_penalty

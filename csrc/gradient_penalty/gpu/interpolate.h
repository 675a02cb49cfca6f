// Random points between real and fake samples on a GPU.
#pragma once

#include "../philox.h"
#include "elements.h"

namespace ganlstm::gpu::gradient_penalty {

#if defined(GANLSTM_GPU)

template <typename T>
GANLSTM_GPU void interpolate(const Group<T>& g, const Grid& grid) {
  using C = Compute<T>;
  for_each_unit(g, grid, 0, g.batch, [&](const Unit& unit) {
    const C a = philox_uniform<C>(uint64_t(*g.seed), uint64_t(unit.sample));
    for_each_element(g, unit, [&](const Array<T>& array, int64_t at, auto width) {
      using E = Elements<T, decltype(width)::value>;
      if (array.y == nullptr)
        E(array.x + at).map([&](C real) { return a * real; }).put(array.out + at);
      else if (array.x == nullptr)
        E(array.y + at).map([&](C fake) { return (1 - a) * fake; }).put(array.out + at);
      else
        E(array.x + at)
            .map(E(array.y + at), [&](C real, C fake) { return fake + a * (real - fake); })
            .put(array.out + at);
    });
  });
}

#endif

}  // namespace ganlstm::gpu::gradient_penalty

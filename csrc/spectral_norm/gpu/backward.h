// The spectral norm's backward on a GPU.
#pragma once

#include "parts.h"

namespace ganlstm::gpu::spectral_norm {

template <typename T>
struct Backward {
  using Element = T;
  using C = Compute<T>;
  Shape shape;
  const T* grad;        // [A,h,B] G
  const T* normalized;  // [A,h,B]
  const C* u;
  const C* v;
  const C* sigma;
  C* inner;        // [1] out: <G, N>
  T* grad_weight;  // [A,h,B] out
  C* dots;         // [element_parts] room

  static size_t room(const Shape& s) { return size_t(s.element_parts()); }
  double* set_room(double* at) {
    dots = reinterpret_cast<C*>(at);
    return at + room(shape);
  }
};

#if defined(GANLSTM_GPU)

template <typename T>
struct BackwardPass {
  using Weight = Backward<T>;
  using C = Compute<T>;

  static GANLSTM_GPU void run(const Group<Weight>& group, Grid grid) {
    const auto parts = [](const Weight& w) { return w.shape.element_parts(); };
    for_each_part(group, grid, parts, [&](const Weight& w, int64_t part) {
      C sum = 0;
      for_each_element(w, part,
                       [&](int64_t k, C) { sum += load(w.grad + k) * load(w.normalized + k); });
      sum = block_sum(sum);
      if (hardware::thread() == 0) w.dots[part] = sum;
    });
    grid.barrier();
    for_each_part(group, grid, parts, [&](const Weight& w, int64_t part) {
      const C c = sum_of_parts(w.dots, w.shape.element_parts());
      if (part == 0 && hardware::thread() == 0) *w.inner = c;
      const bool is_scaled = divides(*w.sigma, group.eps);
      const C scale = is_scaled ? 1 / *w.sigma : C(1), of_outer = is_scaled ? c : C(0);
      for_each_element(w, part, [&](int64_t k, C outer) {
        store(w.grad_weight + k, (load(w.grad + k) - of_outer * outer) * scale);
      });
    });
  }
};

#endif

}  // namespace ganlstm::gpu::spectral_norm

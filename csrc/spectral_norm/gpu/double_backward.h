// The spectral norm's double backward on a GPU.
#pragma once

#include "parts.h"

namespace ganlstm::gpu::spectral_norm {

template <typename T>
struct DoubleBackward {
  using Element = T;
  using C = Compute<T>;
  Shape shape;
  const T* v_weight;  // [A,h,B] V
  const T* grad;
  const T* normalized;
  const C* u;
  const C* v;
  const C* sigma;
  const C* inner;
  T* g_grad;    // [A,h,B] out, or null
  T* g_weight;  // [A,h,B] out, or null
  C* dots;      // [2,element_parts] room

  static size_t room(const Shape& s) { return size_t(2 * s.element_parts()); }
  double* set_room(double* at) {
    dots = reinterpret_cast<C*>(at);
    return at + room(shape);
  }
};

#if defined(GANLSTM_GPU)

template <typename T>
struct DoubleBackwardPass {
  using Weight = DoubleBackward<T>;
  using C = Compute<T>;

  static GANLSTM_GPU void run(const Group<Weight>& group, Grid grid) {
    const auto parts = [](const Weight& w) { return w.shape.element_parts(); };
    for_each_part(group, grid, parts, [&](const Weight& w, int64_t part) {
      C with_outer = 0, with_grad = 0;
      for_each_element(w, part, [&](int64_t k, C outer) {
        with_outer += load(w.v_weight + k) * outer;
        with_grad += load(w.v_weight + k) * load(w.grad + k);
      });
      with_outer = block_sum(with_outer);
      with_grad = block_sum(with_grad);
      if (hardware::thread() == 0) {
        w.dots[part] = with_outer;
        w.dots[w.shape.element_parts() + part] = with_grad;
      }
    });
    grid.barrier();
    for_each_part(group, grid, parts, [&](const Weight& w, int64_t part) {
      const int64_t count = w.shape.element_parts();
      const C f = sum_of_parts(w.dots, count), with_grad = sum_of_parts(w.dots + count, count);
      const C c = *w.inner;
      const bool is_scaled = divides(*w.sigma, group.eps);
      const C scale = is_scaled ? 1 / *w.sigma : C(1);
      // <V, D> - f c / sigma
      const C of_outer = ((with_grad - c * f) * scale - f * c * scale) * scale;
      const C of_grad = f * scale * scale;
      for_each_element(w, part, [&](int64_t k, C outer) {
        if (w.g_grad != nullptr)
          store(w.g_grad + k, is_scaled
                                  ? (load(w.v_weight + k) - f * load(w.normalized + k)) * scale
                                  : load(w.v_weight + k));
        if (w.g_weight != nullptr)
          store(w.g_weight + k,
                is_scaled ? -(of_outer * outer + of_grad * load(w.grad + k)) : C(0));
      });
    });
  }
};

#endif

}  // namespace ganlstm::gpu::spectral_norm

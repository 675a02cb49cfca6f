// The spectral norm's ops on a GPU: checks the tensors, allocates the results, starts the passes.
//
// Backend:
//   Backend(const Tensor&)              makes the tensor's device current
//   static dispatch(dtype, name, body)  over the dtypes that it has
//   static kDevice
//   launch(group, arrivals)             launch.h
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "../../common/check.h"
#include "passes.h"

namespace ganlstm::gpu::spectral_norm {

using Tensors = std::vector<Tensor>;
using OptionalTensors = std::vector<std::optional<Tensor>>;

template <typename T>
T* data(const Tensor& t, bool wanted = true) {
  return wanted ? static_cast<T*>(t.mutable_data_ptr()) : nullptr;
}
template <typename T>
const T* const_data(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}

// The shapes of a call's weights, and checks of tensors against them.
class Weights {
 public:
  Weights(const Tensors& weights, const char* name, const std::vector<int64_t>& dims,
          torch::headeronly::DeviceType device)
      : weights_(weights), name_(name) {
    check(!weights.empty(), name, ": expected a tensor or more, got none");
    check_count(dims.size(), "dims");
    check_device(weights[0], name, device);
    for (size_t k = 0; k < weights.size(); ++k) {
      const Tensor& weight = weights[k];
      dense(weight, name, weights[0].scalar_type());
      const int64_t dim = dims[k], all = weight.dim();
      check(dim >= 0 && dim < all, "dims: expected values in 0..", all - 1, ", got ", dim);
      int64_t outer = 1, inner = 1;
      for (int64_t d = 0; d < dim; ++d) outer *= weight.size(d);
      for (int64_t d = dim + 1; d < all; ++d) inner *= weight.size(d);
      const int64_t elements = outer * weight.size(dim) * inner;
      check(elements > 0 && elements < int64_t(1) << 31, name,
            ": expected 1 to 2**31 - 1 elements, got shape ", shape_text(weight));
      shapes_.emplace_back(outer, weight.size(dim), inner);
      vectors_ += shapes_[k].rows + shapes_[k].columns();
    }
  }

  size_t count() const { return weights_.size(); }
  ScalarType dtype() const { return weights_[0].scalar_type(); }
  ScalarType sum_dtype() const { return compute_dtype(dtype()); }
  int64_t vectors() const { return vectors_ + int64_t(count()); }
  const Shape& shape(size_t k) const { return shapes_[k]; }

  void check_count(size_t got, const char* name) const {
    check(got == count(), name, ": expected ", count(), " as there are ", name_, ", got ", got);
  }
  void check_arrays(const OptionalTensors& all, const char* name) const {
    check_count(all.size(), name);
    for (size_t k = 0; k < all.size(); ++k) {
      if (!all[k].has_value()) continue;
      dense(*all[k], name, dtype());
      bool equal = all[k]->dim() == weights_[k].dim();
      for (int64_t d = 0; equal && d < all[k]->dim(); ++d)
        equal = all[k]->size(d) == weights_[k].size(d);
      check(equal, name, ": expected shape ", shape_text(weights_[k]), ", got ",
            shape_text(*all[k]));
    }
  }
  void check_sums(const Tensor& t, const char* name, int64_t size) const {
    dense(t, name, sum_dtype());
    check_shape(t, name, {size}, "one dimension");
  }
  // Checks a vector in the dtype of the weights or of the sums; returns whether it is the latter.
  bool check_vector(const Tensor& t, const char* name, int64_t size) const {
    const bool is_wide = t.scalar_type() == sum_dtype();
    dense(t, name, is_wide ? sum_dtype() : dtype());
    check_shape(t, name, {size}, "one dimension");
    return is_wide;
  }

  Tensor empty(int64_t size, ScalarType type) const {
    return torch::stable::new_empty(weights_[0], {&size, 1}, type);
  }
  Tensor empty_like(size_t k, bool wanted) const {
    return wanted ? torch::stable::empty_like(weights_[k]) : empty(0, dtype());
  }

  // Gives weight k its shape, and u, v and sigma in `vectors`.
  template <typename Weight, typename C>
  void set(Weight& weight, size_t k, C* vectors) const {
    for (size_t before = 0; before < k; ++before)
      vectors += shapes_[before].rows + shapes_[before].columns();
    weight.shape = shapes_[k];
    weight.u = vectors;
    weight.v = vectors + shapes_[k].rows;
  }
  template <typename C>
  C* sigma(C* vectors, size_t k) const {
    return vectors + vectors_ + k;
  }

 private:
  void dense(const Tensor& t, const char* name, ScalarType type) const {
    check(t.scalar_type() == type, name, ": expected ", dtype_name(type), ", got ",
          dtype_name(t.scalar_type()));
    check(t.device() == weights_[0].device(), name, ": expected a tensor on ",
          device_name(weights_[0]), ", got one on ", device_name(t));
    check(t.is_contiguous(), name, ": expected a contiguous tensor");
  }

  const Tensors& weights_;
  const char* name_;
  std::vector<Shape> shapes_;
  int64_t vectors_ = 0;
};

// Runs the pass over all weights for which set(k, weight) returns true.
template <typename Weight, typename Backend, typename Set>
void run(const Backend& backend, const Weights& all, int iterations, double eps, Set&& set) {
  size_t k = 0;
  while (k < all.count()) {
    Group<Weight> group{};
    group.iterations = iterations;
    group.eps = Compute<typename Weight::Element>(eps);
    size_t room = 0;
    for (; k < all.count() && group.count < kMostWeights; ++k)
      if (set(k, group.weights[group.count]))
        room += Weight::room(group.weights[group.count++].shape);
    if (group.count == 0) continue;
    const Tensor memory = all.empty(int64_t(room), ScalarType::Double);
    double* at = data<double>(memory);
    for (int n = 0; n < group.count; ++n) at = group.weights[n].set_room(at);
    Tensor arrivals = all.empty(1, ScalarType::Int);
    torch::stable::zero_(arrivals);
    backend.launch(group, data<unsigned int>(arrivals));
  }
}

template <typename Backend>
std::tuple<Tensors, Tensor> run_forward(const Tensors& weights, const Tensors& u, const Tensors& v,
                                        const std::vector<int64_t>& dims,
                                        int64_t n_power_iterations, double eps, bool training,
                                        bool overwrites) {
  const Weights all(weights, "weights", dims, Backend::kDevice);
  all.check_count(u.size(), "u");
  all.check_count(v.size(), "v");
  check(n_power_iterations > 0, "n_power_iterations: expected a positive number, got ",
        n_power_iterations);
  const Backend backend(weights[0]);
  Tensors normalized;
  for (size_t k = 0; k < weights.size(); ++k) normalized.push_back(all.empty_like(k, true));
  const Tensor vectors = all.empty(all.vectors(), all.sum_dtype());
  Backend::dispatch(all.dtype(), "weights", [&](auto type) {
    using T = typename decltype(type)::type;
    using C = Compute<T>;
    const auto set = [&](size_t k, Forward<T>& weight) {
      all.set(weight, k, data<C>(vectors));
      weight.u_is_wide = all.check_vector(u[k], "u", weight.shape.rows);
      weight.v_is_wide = all.check_vector(v[k], "v", weight.shape.columns());
      weight.u_from = u[k].mutable_data_ptr();
      weight.v_from = v[k].mutable_data_ptr();
      weight.overwrites = overwrites;
      weight.weight = const_data<T>(weights[k]);
      weight.sigma = all.sigma(data<C>(vectors), k);
      weight.normalized = data<T>(normalized[k]);
      return true;
    };
    run<Forward<T>>(backend, all, training ? int(n_power_iterations) : 0, eps, set);
  });
  return {normalized, vectors};
}

template <typename Backend>
std::tuple<Tensors, Tensor> forward(const Tensors& weights, const Tensors& u, const Tensors& v,
                                    const std::vector<int64_t>& dims, int64_t n_power_iterations,
                                    double eps, bool training) {
  return run_forward<Backend>(weights, u, v, dims, n_power_iterations, eps, training, false);
}
template <typename Backend>
std::tuple<Tensors, Tensor> forward_(const Tensors& weights, const Tensors& u, const Tensors& v,
                                     const std::vector<int64_t>& dims, int64_t n_power_iterations,
                                     double eps) {
  return run_forward<Backend>(weights, u, v, dims, n_power_iterations, eps, true, true);
}

template <typename Backend>
std::tuple<Tensors, Tensor> backward(const OptionalTensors& grads, const Tensors& normalized,
                                     const Tensor& vectors, const std::vector<int64_t>& dims,
                                     double eps) {
  const Weights all(normalized, "normalized", dims, Backend::kDevice);
  all.check_arrays(grads, "grads");
  all.check_sums(vectors, "vectors", all.vectors());
  const Backend backend(normalized[0]);
  Tensors grad_weights;
  for (size_t k = 0; k < grads.size(); ++k)
    grad_weights.push_back(all.empty_like(k, grads[k].has_value()));
  const Tensor inner = all.empty(int64_t(all.count()), all.sum_dtype());
  Backend::dispatch(all.dtype(), "normalized", [&](auto type) {
    using T = typename decltype(type)::type;
    using C = Compute<T>;
    const auto set = [&](size_t k, Backward<T>& weight) {
      if (!grads[k].has_value()) return false;
      all.set(weight, k, const_data<C>(vectors));
      weight.sigma = all.sigma(const_data<C>(vectors), k);
      weight.grad = const_data<T>(*grads[k]);
      weight.normalized = const_data<T>(normalized[k]);
      weight.inner = data<C>(inner) + k;
      weight.grad_weight = data<T>(grad_weights[k]);
      return true;
    };
    run<Backward<T>>(backend, all, 0, eps, set);
  });
  return {grad_weights, inner};
}

template <typename Backend>
std::tuple<Tensors, Tensors> double_backward(const OptionalTensors& v_weights,
                                             const OptionalTensors& grads,
                                             const Tensors& normalized, const Tensor& vectors,
                                             const Tensor& inner, const std::vector<int64_t>& dims,
                                             double eps, const std::vector<bool>& wanted) {
  const Weights all(normalized, "normalized", dims, Backend::kDevice);
  all.check_arrays(v_weights, "v_weights");
  all.check_arrays(grads, "grads");
  all.check_sums(vectors, "vectors", all.vectors());
  all.check_sums(inner, "inner", int64_t(all.count()));
  check(wanted.size() == 2, "wanted: expected 2 values, got ", wanted.size());
  const Backend backend(normalized[0]);
  Tensors g_grads, g_weights;
  const auto used = [&](size_t k) { return v_weights[k].has_value() && grads[k].has_value(); };
  for (size_t k = 0; k < grads.size(); ++k) {
    g_grads.push_back(all.empty_like(k, used(k) && wanted[0]));
    g_weights.push_back(all.empty_like(k, used(k) && wanted[1]));
  }
  Backend::dispatch(all.dtype(), "normalized", [&](auto type) {
    using T = typename decltype(type)::type;
    using C = Compute<T>;
    const auto set = [&](size_t k, DoubleBackward<T>& weight) {
      if (!used(k)) return false;
      all.set(weight, k, const_data<C>(vectors));
      weight.sigma = all.sigma(const_data<C>(vectors), k);
      weight.v_weight = const_data<T>(*v_weights[k]);
      weight.grad = const_data<T>(*grads[k]);
      weight.normalized = const_data<T>(normalized[k]);
      weight.inner = const_data<C>(inner) + k;
      weight.g_grad = data<T>(g_grads[k], wanted[0]);
      weight.g_weight = data<T>(g_weights[k], wanted[1]);
      return true;
    };
    run<DoubleBackward<T>>(backend, all, 0, eps, set);
  });
  return {g_grads, g_weights};
}

}  // namespace ganlstm::gpu::spectral_norm

#define GANLSTM_REGISTER_SPECTRAL_NORM(m, Backend)                                                 \
  m.impl("spectral_norm_forward.cuda", TORCH_BOX(&ganlstm::gpu::spectral_norm::forward<Backend>)); \
  m.impl("spectral_norm_forward_.cuda",                                                            \
         TORCH_BOX(&ganlstm::gpu::spectral_norm::forward_<Backend>));                              \
  m.impl("spectral_norm_backward.cuda",                                                            \
         TORCH_BOX(&ganlstm::gpu::spectral_norm::backward<Backend>));                              \
  m.impl("spectral_norm_double_backward.cuda",                                                     \
         TORCH_BOX(&ganlstm::gpu::spectral_norm::double_backward<Backend>))

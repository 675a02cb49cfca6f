// The spectral norm's ops on the CPU: checks the tensors, allocates the results, calls the passes.
#include <torch/csrc/stable/library.h>
#include <torch/headeronly/util/Half.h>

#include <tuple>
#include <type_traits>
#include <vector>

#include "../../common/cpu/tensors.h"
#include "../../common/dispatch.h"
#include "../spectral_norm.h"

namespace ganlstm {
namespace {

using torch::headeronly::Half;

// The shapes of a call's weights, and checks of tensors against them.
class Weights {
 public:
  Weights(const std::vector<Tensor>& weights, const char* name, const std::vector<int64_t>& dims)
      : weights_(weights), name_(name) {
    check(!weights.empty(), name, ": expected a tensor or more, got none");
    check_count(int64_t(dims.size()), "dims");
    for (size_t k = 0; k < weights.size(); ++k) {
      const Tensor& weight = weights[k];
      check_device(weight, name, kCPU);
      dense(weight, name, weights[0]);
      const int64_t dim = dims[k], all = weight.dim();
      check(dim >= 0 && dim < all, "dims: expected values in 0..", all - 1, ", got ", dim);
      SpectralNormShape shape{1, weight.size(dim), 1};
      for (int64_t d = 0; d < dim; ++d) shape.outer *= weight.size(d);
      for (int64_t d = dim + 1; d < all; ++d) shape.inner *= weight.size(d);
      check(shape.elements() > 0, name, ": expected an element or more, got shape ",
            shape_text(weight));
      shapes_.push_back(shape);
      vectors_ += shape.rows + shape.columns();
    }
  }

  int64_t count() const { return int64_t(weights_.size()); }
  ScalarType dtype() const { return weights_[0].scalar_type(); }
  const SpectralNormShape& shape(size_t k) const { return shapes_[k]; }

  void check_count(int64_t got, const char* name) const {
    check(got == count(), name, ": expected ", count(), " as there are ", name_, ", got ", got);
  }

  // Of the size and dtype of weight k.
  void check_array(const Tensor& t, const char* name, size_t k) const {
    dense(t, name, weights_[k]);
    bool equal = t.dim() == weights_[k].dim();
    for (int64_t d = 0; equal && d < t.dim(); ++d) equal = t.size(d) == weights_[k].size(d);
    check(equal, name, ": expected shape ", shape_text(weights_[k]), ", got ", shape_text(t));
  }
  void check_arrays(const std::vector<OptionalTensor>& all, const char* name) const {
    check_count(int64_t(all.size()), name);
    for (size_t k = 0; k < all.size(); ++k)
      if (all[k].has_value()) check_array(*all[k], name, k);
  }

  // A vector of `size` sums that an earlier pass returned.
  void check_sums(const Tensor& t, const char* name, int64_t size) const {
    check(t.scalar_type() == compute_dtype(dtype()), name, ": expected ",
          dtype_name(compute_dtype(dtype())), ", got ", dtype_name(t.scalar_type()));
    check_device(t, name, kCPU);
    check_shape(t, name, {size}, "one dimension");
    check(t.is_contiguous(), name, ": expected a contiguous tensor");
  }
  int64_t vectors() const { return vectors_ + count(); }

  Tensor empty(size_t k, bool wanted = true) const {
    if (!wanted) return absent_tensor(dtype());
    const int64_t dim = weights_[k].dim();
    std::vector<int64_t> sizes(size_t(dim), 0), strides(size_t(dim), 0);
    int64_t elements = 1;
    for (int64_t d = dim; d-- > 0; elements *= sizes[size_t(d)]) {
      sizes[size_t(d)] = weights_[k].size(d);
      strides[size_t(d)] = elements;
    }
    return pooled_tensor(dim, sizes.data(), strides.data(), elements, dtype());
  }
  Tensor empty_sums(int64_t size) const {
    const int64_t stride = 1;
    return empty_strided(1, &size, &stride, compute_dtype(dtype()));
  }

  // Gives `to[k]` for each k the weight's shape, u, v and sigma in `vectors`.
  template <typename Args, typename C>
  void set(std::vector<Args>& to, C* vectors) const {
    C* sigma = vectors + vectors_;
    for (size_t k = 0; k < to.size(); ++k) {
      to[k].shape = shapes_[k];
      to[k].u = vectors;
      to[k].v = vectors + shapes_[k].rows;
      to[k].sigma = sigma + k;
      vectors += shapes_[k].rows + shapes_[k].columns();
    }
  }

 private:
  void dense(const Tensor& t, const char* name, const Tensor& like) const {
    check_like(t, name, like, name_);
    check(t.is_contiguous(), name, ": expected a contiguous tensor");
  }

  const std::vector<Tensor>& weights_;
  const char* name_;
  std::vector<SpectralNormShape> shapes_;
  int64_t vectors_ = 0;
};

// u and v are of any dtype and stride. `f` gets the first element, typed, and the stride.
template <typename F>
void visit_vector(const Tensor& t, const char* name, F&& f) {
  const int64_t stride = t.stride(0);
  if (t.scalar_type() == ScalarType::Half)
    return f(static_cast<Half*>(t.mutable_data_ptr()), stride);
  dispatch<float, double, BFloat16>(
      t.scalar_type(), name, [&](auto type) { f(out<typename decltype(type)::type>(t), stride); });
}

template <typename C>
void read_vector(const Tensor& from, const char* name, int64_t size, C* to) {
  check_device(from, name, kCPU);
  check_shape(from, name, {size}, "one dimension");
  visit_vector(from, name, [&](auto* values, int64_t stride) {
    for (int64_t k = 0; k < size; ++k) {
      if constexpr (std::is_same_v<decltype(values), Half*>)
        to[k] = C(float(values[k * stride]));
      else
        to[k] = C(widen(values[k * stride]));
    }
  });
}

template <typename C>
void write_vector(const C* from, const char* name, int64_t size, const Tensor& to) {
  visit_vector(to, name, [&](auto* values, int64_t stride) {
    using T = std::remove_pointer_t<decltype(values)>;
    for (int64_t k = 0; k < size; ++k) {
      if constexpr (std::is_same_v<T, Half>)
        values[k * stride] = Half(float(from[k]));
      else
        values[k * stride] = narrow<T>(Compute<T>(from[k]));
    }
  });
}

std::tuple<std::vector<Tensor>, Tensor> run_forward(const std::vector<Tensor>& weights,
                                                    const std::vector<Tensor>& u,
                                                    const std::vector<Tensor>& v,
                                                    const std::vector<int64_t>& dims,
                                                    int64_t n_power_iterations, double eps,
                                                    bool training, bool overwrite) {
  const Weights all(weights, "weights", dims);
  all.check_count(int64_t(u.size()), "u");
  all.check_count(int64_t(v.size()), "v");
  check(n_power_iterations > 0, "n_power_iterations: expected a positive number, got ",
        n_power_iterations);
  std::vector<Tensor> normalized;
  for (size_t k = 0; k < weights.size(); ++k) normalized.push_back(all.empty(k));
  const Tensor vectors = all.empty_sums(all.vectors());
  dispatch<float, double, BFloat16>(all.dtype(), "weights", [&](auto type) {
    using T = typename decltype(type)::type;
    std::vector<SpectralNormForward<T>> args(weights.size());
    all.set(args, out<Compute<T>>(vectors));
    for (size_t k = 0; k < args.size(); ++k) {
      read_vector(u[k], "u", args[k].shape.rows, args[k].u);
      read_vector(v[k], "v", args[k].shape.columns(), args[k].v);
      args[k].weight = in<T>(weights[k]);
      args[k].normalized = out<T>(normalized[k]);
    }
    spectral_norm_forward(args.data(), all.count(), training ? n_power_iterations : 0,
                          Compute<T>(eps), torch_threads());
    for (size_t k = 0; overwrite && k < args.size(); ++k) {
      write_vector(args[k].u, "u", args[k].shape.rows, u[k]);
      write_vector(args[k].v, "v", args[k].shape.columns(), v[k]);
    }
  });
  return {normalized, vectors};
}

std::tuple<std::vector<Tensor>, Tensor> forward(const std::vector<Tensor>& weights,
                                                const std::vector<Tensor>& u,
                                                const std::vector<Tensor>& v,
                                                const std::vector<int64_t>& dims,
                                                int64_t n_power_iterations, double eps,
                                                bool training, const std::string& impl) {
  check_impl(impl);
  return run_forward(weights, u, v, dims, n_power_iterations, eps, training, false);
}

std::tuple<std::vector<Tensor>, Tensor> forward_(const std::vector<Tensor>& weights,
                                                 const std::vector<Tensor>& u,
                                                 const std::vector<Tensor>& v,
                                                 const std::vector<int64_t>& dims,
                                                 int64_t n_power_iterations, double eps,
                                                 const std::string& impl) {
  check_impl(impl);
  return run_forward(weights, u, v, dims, n_power_iterations, eps, true, true);
}

std::tuple<std::vector<Tensor>, Tensor> backward(const std::vector<OptionalTensor>& grads,
                                                 const std::vector<Tensor>& normalized,
                                                 const Tensor& vectors,
                                                 const std::vector<int64_t>& dims, double eps,
                                                 const std::string& impl) {
  check_impl(impl);
  const Weights all(normalized, "normalized", dims);
  all.check_arrays(grads, "grads");
  all.check_sums(vectors, "vectors", all.vectors());
  std::vector<Tensor> grad_weights;
  for (size_t k = 0; k < grads.size(); ++k)
    grad_weights.push_back(all.empty(k, grads[k].has_value()));
  const Tensor inner = all.empty_sums(all.count());
  dispatch<float, double, BFloat16>(all.dtype(), "normalized", [&](auto type) {
    using T = typename decltype(type)::type;
    std::vector<SpectralNormBackward<T>> args(grads.size());
    all.set(args, in<Compute<T>>(vectors));
    for (size_t k = 0; k < args.size(); ++k) {
      args[k].grad = in<T>(grads[k]);
      args[k].normalized = in<T>(normalized[k]);
      args[k].inner = out<Compute<T>>(inner) + k;
      args[k].grad_weight = out<T>(grad_weights[k], grads[k].has_value());
    }
    spectral_norm_backward(args.data(), all.count(), Compute<T>(eps), torch_threads());
  });
  return {grad_weights, inner};
}

std::tuple<std::vector<Tensor>, std::vector<Tensor>> double_backward(
    const std::vector<OptionalTensor>& v_weights, const std::vector<OptionalTensor>& grads,
    const std::vector<Tensor>& normalized, const Tensor& vectors, const Tensor& inner,
    const std::vector<int64_t>& dims, double eps, const std::vector<bool>& wanted,
    const std::string& impl) {
  check_impl(impl);
  const Weights all(normalized, "normalized", dims);
  all.check_arrays(v_weights, "v_weights");
  all.check_arrays(grads, "grads");
  all.check_sums(vectors, "vectors", all.vectors());
  all.check_sums(inner, "inner", all.count());
  check(wanted.size() == 2, "wanted: expected 2 values, got ", wanted.size());
  std::vector<Tensor> g_grads, g_weights;
  auto used = [&](size_t k) { return v_weights[k].has_value() && grads[k].has_value(); };
  for (size_t k = 0; k < grads.size(); ++k) {
    g_grads.push_back(all.empty(k, used(k) && wanted[0]));
    g_weights.push_back(all.empty(k, used(k) && wanted[1]));
  }
  dispatch<float, double, BFloat16>(all.dtype(), "normalized", [&](auto type) {
    using T = typename decltype(type)::type;
    std::vector<SpectralNormDoubleBackward<T>> args(grads.size());
    all.set(args, in<Compute<T>>(vectors));
    for (size_t k = 0; k < args.size(); ++k) {
      args[k].v_weight = used(k) ? in<T>(v_weights[k]) : nullptr;
      args[k].grad = in<T>(grads[k]);
      args[k].normalized = in<T>(normalized[k]);
      args[k].inner = in<Compute<T>>(inner) + k;
      args[k].g_grad = out<T>(g_grads[k], used(k) && wanted[0]);
      args[k].g_weight = out<T>(g_weights[k], used(k) && wanted[1]);
    }
    spectral_norm_double_backward(args.data(), all.count(), Compute<T>(eps), torch_threads());
  });
  return {g_grads, g_weights};
}

}  // namespace
}  // namespace ganlstm

STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast, CPU, m) {
  m.impl("spectral_norm_forward", TORCH_BOX(&ganlstm::forward));
  m.impl("spectral_norm_forward_", TORCH_BOX(&ganlstm::forward_));
  m.impl("spectral_norm_backward", TORCH_BOX(&ganlstm::backward));
  m.impl("spectral_norm_double_backward", TORCH_BOX(&ganlstm::double_backward));
}

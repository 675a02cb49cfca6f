// The gradient penalty's ops on the CPU: checks the tensors, allocates the results, calls the
// passes.
#include <torch/csrc/stable/library.h>

#include <tuple>
#include <vector>

#include "../common/cpu_binding.h"
#include "../common/dispatch.h"
#include "gradient_penalty.h"
#include "layout.h"

namespace ganlstm {
namespace {

ScalarType sum_dtype(ScalarType dtype) {
  return dtype == ScalarType::BFloat16 ? ScalarType::Float : dtype;
}

Tensor empty_alike(const Tensor& t) {
  const int64_t dim = t.dim();
  std::vector<int64_t> sizes, strides;
  for (int64_t d = 0; d < dim; ++d) {
    sizes.push_back(t.size(d));
    strides.push_back(t.stride(d));
  }
  return pooled_tensor(dim, sizes.data(), strides.data(), t.numel(), t.scalar_type());
}

Tensor empty_sums(int64_t dim, int64_t size, ScalarType dtype) {
  const int64_t stride = 1;
  return empty_strided(dim, &size, &stride, sum_dtype(dtype));
}

Tensor interpolate_op(const OptionalTensor& real, const OptionalTensor& fake, const Tensor& seed) {
  const bool has_real = real.has_value();
  check(has_real || fake.has_value(), "real: expected a tensor where fake is absent");
  const char* name = has_real ? "real" : "fake";
  const Tensor& like = has_real ? *real : *fake;
  check_device(like, name, kCPU);
  check(like.dim() > 0, name, ": expected shape (batch, ...), got ()");
  const int64_t batch = like.size(0), elements = check_samples(like, name, batch);
  if (has_real && fake.has_value()) check_same_layout(*fake, "fake", like, "real");
  check_device(seed, "seed", kCPU);
  check(seed.scalar_type() == ScalarType::Long && seed.numel() == 1,
        "seed: expected one torch.int64, got ", dtype_name(seed.scalar_type()), " of shape ",
        shape_text(seed));
  const Tensor result = empty_alike(like);
  dispatch<float, double, BFloat16>(like.scalar_type(), name, [&](auto type) {
    using T = typename decltype(type)::type;
    const Interpolation<T> args{batch,       elements,    uint64_t(*in<int64_t>(seed)),
                                in<T>(real), in<T>(fake), out<T>(result)};
    interpolate(args, torch_threads());
  });
  return result;
}

// The gradients of a call, and checks of tensors against them.
class Gradients {
 public:
  explicit Gradients(const std::vector<Tensor>& grads) : grads_(grads) {
    check(!grads.empty(), "grads: expected a tensor or more, got none");
    check(grads[0].dim() > 0 && grads[0].size(0) > 0,
          "grads: expected shape (1 or more, ...), got ", shape_text(grads[0]));
    for (const Tensor& grad : grads) {
      check_device(grad, "grads", kCPU);
      check_like(grad, "grads", grads[0], "the first of them");
      elements_.push_back(check_samples(grad, "grads", batch()));
    }
  }

  int64_t batch() const { return grads_[0].size(0); }
  int64_t count() const { return int64_t(grads_.size()); }
  ScalarType dtype() const { return grads_[0].scalar_type(); }

  void check_sums(const Tensor& t, const char* name, int64_t size) const {
    check(t.scalar_type() == sum_dtype(dtype()), name, ": expected ",
          dtype_name(sum_dtype(dtype())), ", got ", dtype_name(t.scalar_type()));
    check_device(t, name, kCPU);
    check(t.numel() == size && t.is_contiguous(), name, ": expected ", size,
          " values, contiguous, got shape ", shape_text(t));
  }

  template <typename T>
  std::vector<PenaltyGradient<T>> args() const {
    std::vector<PenaltyGradient<T>> result;
    for (size_t k = 0; k < grads_.size(); ++k)
      result.push_back({elements_[k], in<T>(grads_[k]), nullptr, nullptr});
    return result;
  }

  // A result for each gradient, which the args write.
  template <typename T>
  std::vector<Tensor> results(std::vector<PenaltyGradient<T>>& args, bool wanted) const {
    std::vector<Tensor> result;
    for (size_t k = 0; k < grads_.size(); ++k) {
      result.push_back(wanted ? empty_alike(grads_[k]) : absent_tensor(dtype()));
      args[k].out = out<T>(result.back(), wanted);
    }
    return result;
  }

 private:
  const std::vector<Tensor>& grads_;
  std::vector<int64_t> elements_;
};

std::tuple<Tensor, Tensor> forward(const std::vector<Tensor>& grads, double center,
                                   bool one_sided) {
  const Gradients all(grads);
  const Tensor value = empty_sums(0, 1, all.dtype());
  const Tensor norms = empty_sums(1, all.batch(), all.dtype());
  dispatch<float, double, BFloat16>(all.dtype(), "grads", [&](auto type) {
    using T = typename decltype(type)::type;
    penalty_forward(all.args<T>().data(), all.count(), all.batch(), {center, one_sided},
                    out<Compute<T>>(norms), out<Compute<T>>(value), torch_threads());
  });
  return {value, norms};
}

std::vector<Tensor> backward(const Tensor& grad_value, const std::vector<Tensor>& grads,
                             const Tensor& norms, double center, bool one_sided) {
  const Gradients all(grads);
  all.check_sums(grad_value, "grad_value", 1);
  all.check_sums(norms, "norms", all.batch());
  std::vector<Tensor> results;
  dispatch<float, double, BFloat16>(all.dtype(), "grads", [&](auto type) {
    using T = typename decltype(type)::type;
    auto args = all.args<T>();
    results = all.results<T>(args, true);
    penalty_backward(args.data(), all.count(), all.batch(), {center, one_sided},
                     in<Compute<T>>(norms), *in<Compute<T>>(grad_value), torch_threads());
  });
  return results;
}

std::tuple<Tensor, std::vector<Tensor>> double_backward(const std::vector<OptionalTensor>& v_grads,
                                                        const Tensor& grad_value,
                                                        const std::vector<Tensor>& grads,
                                                        const Tensor& norms, double center,
                                                        bool one_sided,
                                                        const std::vector<bool>& wanted) {
  const Gradients all(grads);
  all.check_sums(grad_value, "grad_value", 1);
  all.check_sums(norms, "norms", all.batch());
  check(int64_t(v_grads.size()) == all.count(), "v_grads: expected ", all.count(),
        " as there are grads, got ", v_grads.size());
  check(wanted.size() == 2, "wanted: expected 2 values, got ", wanted.size());
  for (size_t k = 0; k < grads.size(); ++k)
    if (v_grads[k].has_value()) check_same_layout(*v_grads[k], "v_grads", grads[k], "grads");
  const Tensor g_value = wanted[0] ? empty_sums(0, 1, all.dtype()) : absent_tensor(all.dtype());
  std::vector<Tensor> results;
  dispatch<float, double, BFloat16>(all.dtype(), "grads", [&](auto type) {
    using T = typename decltype(type)::type;
    auto args = all.args<T>();
    for (size_t k = 0; k < grads.size(); ++k) args[k].v = in<T>(v_grads[k]);
    results = all.results<T>(args, wanted[1]);
    penalty_double_backward(args.data(), all.count(), all.batch(), {center, one_sided},
                            in<Compute<T>>(norms), *in<Compute<T>>(grad_value),
                            out<Compute<T>>(g_value, wanted[0]), torch_threads());
  });
  return {g_value, results};
}

}  // namespace
}  // namespace ganlstm

STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast, CPU, m) {
  m.impl("interpolate", TORCH_BOX(&ganlstm::interpolate_op));
  m.impl("penalty_forward", TORCH_BOX(&ganlstm::forward));
  m.impl("penalty_backward", TORCH_BOX(&ganlstm::backward));
  m.impl("penalty_double_backward", TORCH_BOX(&ganlstm::double_backward));
}

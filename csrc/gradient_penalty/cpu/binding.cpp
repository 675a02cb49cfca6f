// The gradient penalty's ops on the CPU: checks the tensors, allocates the results, calls the
// passes.
#include <torch/csrc/stable/library.h>

#include <tuple>
#include <vector>

#include "../../common/cpu/tensors.h"
#include "../../common/dispatch.h"
#include "../gradient_penalty.h"
#include "../layout.h"

namespace ganlstm {
namespace {

Tensor empty_alike(const Tensor& t) {
  const int64_t dim = t.dim();
  std::vector<int64_t> sizes, strides;
  for (int64_t d = 0; d < dim; ++d) {
    sizes.push_back(t.size(d));
    strides.push_back(t.stride(d));
  }
  return pooled_tensor(dim, sizes.data(), strides.data(), t.numel(), t.scalar_type());
}

Tensor empty_sums(int64_t dim, int64_t size, const Gradients& all) {
  const int64_t stride = 1;
  return empty_strided(dim, &size, &stride, all.sum_dtype());
}

Tensor interpolate_op(const OptionalTensor& real, const OptionalTensor& fake, const Tensor& seed,
                      const std::string& impl) {
  check_impl(impl);
  const Mixture all(real, fake, seed, kCPU);
  const Tensor result = empty_alike(all.like);
  dispatch<float, double, BFloat16>(all.like.scalar_type(), all.name, [&](auto type) {
    using T = typename decltype(type)::type;
    const Interpolation<T> args{all.batch,   all.elements, uint64_t(*in<int64_t>(seed)),
                                in<T>(real), in<T>(fake),  out<T>(result)};
    interpolate(args, torch_threads());
  });
  return result;
}

template <typename T>
std::vector<PenaltyGradient<T>> args_of(const Gradients& all) {
  std::vector<PenaltyGradient<T>> args;
  for (size_t k = 0; k < all.count(); ++k)
    args.push_back({all.elements(k), in<T>(all[k]), nullptr, nullptr});
  return args;
}

// A result for each gradient, which the args write.
template <typename T>
std::vector<Tensor> results_of(const Gradients& all, std::vector<PenaltyGradient<T>>& args,
                               bool wanted) {
  std::vector<Tensor> results;
  for (size_t k = 0; k < all.count(); ++k) {
    results.push_back(wanted ? empty_alike(all[k]) : absent_tensor(all.dtype()));
    args[k].out = out<T>(results.back(), wanted);
  }
  return results;
}

std::tuple<Tensor, Tensor> forward(const std::vector<Tensor>& grads, double center, bool one_sided,
                                   const std::string& impl) {
  check_impl(impl);
  const Gradients all(grads, kCPU);
  const Tensor value = empty_sums(0, 1, all), norms = empty_sums(1, all.batch(), all);
  dispatch<float, double, BFloat16>(all.dtype(), "grads", [&](auto type) {
    using T = typename decltype(type)::type;
    const auto args = args_of<T>(all);
    penalty_forward(args.data(), int64_t(args.size()), all.batch(), {center, one_sided},
                    out<Compute<T>>(norms), out<Compute<T>>(value), torch_threads());
  });
  return {value, norms};
}

std::vector<Tensor> backward(const Tensor& grad_value, const std::vector<Tensor>& grads,
                             const Tensor& norms, double center, bool one_sided,
                             const std::string& impl) {
  check_impl(impl);
  const Gradients all(grads, kCPU);
  all.check_sums(grad_value, "grad_value", 1);
  all.check_sums(norms, "norms", all.batch());
  std::vector<Tensor> results;
  dispatch<float, double, BFloat16>(all.dtype(), "grads", [&](auto type) {
    using T = typename decltype(type)::type;
    auto args = args_of<T>(all);
    results = results_of(all, args, true);
    penalty_backward(args.data(), int64_t(args.size()), all.batch(), {center, one_sided},
                     in<Compute<T>>(norms), *in<Compute<T>>(grad_value), torch_threads());
  });
  return results;
}

std::tuple<Tensor, std::vector<Tensor>> double_backward(
    const std::vector<OptionalTensor>& v_grads, const Tensor& grad_value,
    const std::vector<Tensor>& grads, const Tensor& norms, double center, bool one_sided,
    const std::vector<bool>& wanted, const std::string& impl) {
  check_impl(impl);
  const Gradients all(grads, kCPU);
  all.check_sums(grad_value, "grad_value", 1);
  all.check_sums(norms, "norms", all.batch());
  all.check_second(v_grads, wanted);
  const Tensor g_value = wanted[0] ? empty_sums(0, 1, all) : absent_tensor(all.dtype());
  std::vector<Tensor> results;
  dispatch<float, double, BFloat16>(all.dtype(), "grads", [&](auto type) {
    using T = typename decltype(type)::type;
    auto args = args_of<T>(all);
    for (size_t k = 0; k < grads.size(); ++k) args[k].v = in<T>(v_grads[k]);
    results = results_of(all, args, wanted[1]);
    penalty_double_backward(args.data(), int64_t(args.size()), all.batch(), {center, one_sided},
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

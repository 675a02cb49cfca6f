// The gradient penalty's ops on a GPU: checks the tensors, allocates the results, starts the
// passes.
//
// Backend:
//   Backend(const Tensor&)              makes the tensor's device current
//   static dispatch(dtype, name, body)  over the dtypes that it has
//   static kDevice
//   launch<pass>(group)                 launch.h
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>
#include <vector>

#include "../layout.h"
#include "groups.h"

namespace ganlstm::gpu::gradient_penalty {

using OptionalTensors = std::vector<std::optional<Tensor>>;

template <typename T>
T* data(const Tensor& t, bool wanted = true) {
  return wanted ? static_cast<T*>(t.mutable_data_ptr()) : nullptr;
}
template <typename T>
const T* const_data(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <typename T>
const T* const_data(const std::optional<Tensor>& t) {
  return t.has_value() ? const_data<T>(*t) : nullptr;
}

// shape (size,), or () for -1.
inline Tensor empty(const Tensor& like, int64_t size, ScalarType dtype) {
  return torch::stable::new_empty(like, {&size, size_t(size < 0 ? 0 : 1)}, dtype);
}
inline Tensor absent(const Tensor& like) { return empty(like, 0, like.scalar_type()); }

// Owns the memory for a pass's sums; set() gives it to a group.
template <typename T>
class Room {
 public:
  explicit Room(const std::vector<Group<T>>& groups, const Tensor& like) {
    const Group<T>& first = groups.front();
    const int64_t size = first.is_whole ? first.units() : first.batch * first.parts_of_all;
    memory_ = empty(like, size + 1, ScalarType::Double);
  }
  void set(Group<T>& group, bool sums) const {
    group.arrivals = data<unsigned int>(*memory_, sums);
    group.room = data<double>(*memory_) + 1;
  }

 private:
  std::optional<Tensor> memory_;
};

template <typename Backend>
Tensor interpolate_op(const std::optional<Tensor>& real, const std::optional<Tensor>& fake,
                      const Tensor& seed) {
  const Mixture all(real, fake, seed, Backend::kDevice);
  const Backend backend(all.like);
  const Tensor result = torch::stable::empty_like(all.like);
  Backend::dispatch(all.like.scalar_type(), all.name, [&](auto type) {
    using T = typename decltype(type)::type;
    if (result.numel() == 0) return;
    Group<T> group = groups_of<T>(
        {{all.elements, const_data<T>(real), const_data<T>(fake), data<T>(result)}}, all.batch)[0];
    group.seed = const_data<int64_t>(seed);
    backend.template launch<Pass::interpolate>(group);
  });
  return result;
}

// Groups of the gradients' arrays with all options; each pass reads those that it needs.
template <typename T>
std::vector<Group<T>> groups_of_gradients(const Gradients& all, const OptionalTensors* v_grads,
                                          const std::vector<Tensor>* results, const Tensor& norms,
                                          double center, bool one_sided) {
  std::vector<Array<T>> arrays;
  for (size_t k = 0; k < all.count(); ++k)
    arrays.push_back({all.elements(k), const_data<T>(all[k]),
                      v_grads != nullptr ? const_data<T>((*v_grads)[k]) : nullptr,
                      results != nullptr ? data<T>((*results)[k]) : nullptr});
  std::vector<Group<T>> groups = groups_of(arrays, all.batch());
  for (Group<T>& group : groups) {
    group.norms = data<Compute<T>>(norms);
    group.center = Compute<T>(center);
    group.one_sided = one_sided;
  }
  return groups;
}

template <typename Backend>
std::tuple<Tensor, Tensor> forward_op(const std::vector<Tensor>& grads, double center,
                                      bool one_sided) {
  const Gradients all(grads, Backend::kDevice);
  const Backend backend(grads[0]);
  const Tensor value = empty(grads[0], -1, all.sum_dtype());
  const Tensor norms = empty(grads[0], all.batch(), all.sum_dtype());
  Backend::dispatch(all.dtype(), "grads", [&](auto type) {
    using T = typename decltype(type)::type;
    auto groups = groups_of_gradients<T>(all, nullptr, nullptr, norms, center, one_sided);
    const Room<T> room(groups, grads[0]);
    groups.back().value = data<Compute<T>>(value);
    for (Group<T>& group : groups) {
      room.set(group, true);
      backend.template launch<Pass::forward>(group);
    }
  });
  return {value, norms};
}

inline std::vector<Tensor> results_like(const std::vector<Tensor>& grads, bool wanted) {
  std::vector<Tensor> results;
  for (const Tensor& grad : grads)
    results.push_back(wanted ? torch::stable::empty_like(grad) : absent(grad));
  return results;
}

template <typename Backend>
std::vector<Tensor> backward_op(const Tensor& grad_value, const std::vector<Tensor>& grads,
                                const Tensor& norms, double center, bool one_sided) {
  const Gradients all(grads, Backend::kDevice);
  all.check_sums(grad_value, "grad_value", 1);
  all.check_sums(norms, "norms", all.batch());
  const Backend backend(grads[0]);
  const std::vector<Tensor> results = results_like(grads, true);
  Backend::dispatch(all.dtype(), "grads", [&](auto type) {
    using T = typename decltype(type)::type;
    auto groups = groups_of_gradients<T>(all, nullptr, &results, norms, center, one_sided);
    for (Group<T>& group : groups) {
      group.grad_value = const_data<Compute<T>>(grad_value);
      backend.template launch<Pass::backward>(group);
    }
  });
  return results;
}

template <typename Backend>
std::tuple<Tensor, std::vector<Tensor>> double_backward_op(
    const OptionalTensors& v_grads, const Tensor& grad_value, const std::vector<Tensor>& grads,
    const Tensor& norms, double center, bool one_sided, const std::vector<bool>& wanted) {
  const Gradients all(grads, Backend::kDevice);
  all.check_sums(grad_value, "grad_value", 1);
  all.check_sums(norms, "norms", all.batch());
  all.check_second(v_grads, wanted);
  const Backend backend(grads[0]);
  const Tensor g_value = wanted[0] ? empty(grads[0], -1, all.sum_dtype()) : absent(grads[0]);
  const std::vector<Tensor> results = results_like(grads, wanted[1]);
  Backend::dispatch(all.dtype(), "grads", [&](auto type) {
    using T = typename decltype(type)::type;
    auto groups = groups_of_gradients<T>(all, &v_grads, wanted[1] ? &results : nullptr, norms,
                                         center, one_sided);
    const Room<T> room(groups, grads[0]);
    groups.back().value = data<Compute<T>>(g_value, wanted[0]);
    const bool sums = wanted[0] || (wanted[1] && center != 0);
    // If one launch does not take all arrays, the sums of all come before the first result.
    const bool at_once = groups.size() == 1;
    for (const bool writes : {false, true}) {
      if (at_once && !writes) continue;
      for (Group<T>& group : groups) {
        group.grad_value = const_data<Compute<T>>(grad_value);
        group.sums = sums && (at_once || !writes);
        group.writes = wanted[1] && writes;
        if (!group.sums && !group.writes) continue;
        room.set(group, group.sums);
        if (!at_once && writes) group.value = nullptr;
        backend.template launch<Pass::double_backward>(group);
      }
    }
  });
  return {g_value, results};
}

}  // namespace ganlstm::gpu::gradient_penalty

#define GANLSTM_REGISTER_GRADIENT_PENALTY(m, Backend)                                              \
  m.impl("interpolate.cuda", TORCH_BOX(&ganlstm::gpu::gradient_penalty::interpolate_op<Backend>)); \
  m.impl("penalty_forward.cuda", TORCH_BOX(&ganlstm::gpu::gradient_penalty::forward_op<Backend>)); \
  m.impl("penalty_backward.cuda",                                                                  \
         TORCH_BOX(&ganlstm::gpu::gradient_penalty::backward_op<Backend>));                        \
  m.impl("penalty_double_backward.cuda",                                                           \
         TORCH_BOX(&ganlstm::gpu::gradient_penalty::double_backward_op<Backend>))

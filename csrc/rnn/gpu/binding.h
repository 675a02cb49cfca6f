// What the recurrent steps of every cell need to be ops: checks of the tensors, and the walk.
//
// Backend:
//   Backend(const Tensor&)                      makes the tensor's device current
//   static dispatch(dtype, name, body)          over the dtypes that it has
//   static kDevice
//   multiply(out, a, b)                         out [D,B,N] of V = a [D,B,K] b [D,K,N] of T
//   cell_step(const CellStep<Args>&)
//   persistent(const Args&, const Tensor& weight_hh, bool tf32)
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>

#include "../../common/check.h"
#include "cell_steps.h"
#include "persistent_plan.h"

namespace ganlstm::gpu {

using OptionalTensor = std::optional<Tensor>;

// The sizes of a call, and its tensors as the structs have them.
class StepsCall {
 public:
  // `states` [D,B,H], `steps` as long as the call.
  StepsCall(const Tensor& states, int64_t steps, int64_t first, int64_t total,
            const OptionalTensor& lengths, torch::headeronly::DeviceType device)
      : states_(states), device_(device) {
    check_dim(states, "state", 3, "(D, B, H)");
    shape.directions = states.size(0);
    shape.batch = states.size(1);
    shape.hidden = states.size(2);
    shape.steps = steps;
    shape.first = first;
    shape.total = total;
    shape.lengths = nullptr;
    check(shape.directions == 1 || shape.directions == 2,
          "state: expected one or two directions, got shape ", shape_text(states));
    check(steps >= 1 && first >= 0 && first <= total - steps, "first: expected ", steps,
          " steps from it on within ", total, ", got ", first);
    if (lengths.has_value()) {
      check_on(*lengths, "lengths", ScalarType::Long);
      check_shape(*lengths, "lengths", {shape.batch}, "(B,)");
      shape.lengths = lengths->const_data_ptr<int64_t>();
    }
  }

  Steps shape;

  template <typename T>
  T* state(const Tensor& t, const char* name, ScalarType dtype) const {
    check_on(t, name, dtype);
    check_shape(t, name, {shape.directions, shape.batch, shape.hidden}, "(D, B, H)");
    return pointer<T>(t);
  }

  // [count,B,D,slots*H] with count all steps of the sequence or those of the call.
  template <typename T>
  Sequence<T> sequence(const OptionalTensor& t, const char* name, ScalarType dtype,
                       int64_t slots) const {
    if (!t.has_value()) return {};
    check_on(*t, name, dtype);
    check_dim(*t, name, 4, "(T, B, D, ...)");
    const int64_t count = t->size(0);
    check_shape(*t, name, {count, shape.batch, shape.directions, slots * shape.hidden},
                slots == 1 ? "(T, B, D, H)" : "(T, B, D, 4H)");
    check(count == shape.total || count == shape.steps, name, ": expected ", shape.total,
          " steps or the ", shape.steps, " of this call, got shape ", shape_text(*t));
    Sequence<T> result{pointer<T>(*t), count, {0, 0}};
    if (count < shape.total) {
      result.origin[0] = shape.first;
      result.origin[1] = shape.total - shape.first - shape.steps;
    }
    return result;
  }

  template <typename V>
  const V* bias(const OptionalTensor& t, const char* name, ScalarType dtype) const {
    if (!t.has_value()) return nullptr;
    check_on(*t, name, dtype);
    check_shape(*t, name, {shape.directions, 4 * shape.hidden}, "(D, 4H)");
    return pointer<const V>(*t);
  }

  void check_weight(const Tensor& weight_hh, ScalarType dtype) const {
    check_on(weight_hh, "weight_hh", dtype);
    check_shape(weight_hh, "weight_hh", {shape.directions, 4 * shape.hidden, shape.hidden},
                "(D, 4H, H)");
  }

  Tensor empty(int64_t columns, ScalarType dtype) const {
    const int64_t sizes[] = {shape.directions, shape.batch, columns};
    return torch::stable::new_empty(states_, {sizes, 3}, dtype);
  }

 private:
  void check_on(const Tensor& t, const char* name, ScalarType dtype) const {
    check_device(t, name, device_);
    check(t.device() == states_.device(), name, ": expected a tensor on ", device_name(states_),
          ", got one on ", device_name(t));
    check(t.scalar_type() == dtype, name, ": expected ", dtype_name(dtype), ", got ",
          dtype_name(t.scalar_type()));
    check(t.is_contiguous(), name, ": expected a contiguous tensor");
  }
  template <typename T>
  static T* pointer(const Tensor& t) {
    if constexpr (std::is_const_v<T>)
      return static_cast<T*>(t.const_data_ptr());
    else
      return static_cast<T*>(t.mutable_data_ptr());
  }

  const Tensor& states_;
  torch::headeronly::DeviceType device_;
};

// What the teams of a cooperative grid exchange, and one counter each: zeros.
inline Tensor room_of(const persistent::Plan& plan, const Tensor& like) {
  const int64_t bytes = plan.grid ? plan.teams * int64_t(plan.room + sizeof(unsigned int)) : 0;
  Tensor room = torch::stable::new_empty(like, {&bytes, 1}, ScalarType::Byte);
  return bytes == 0 ? room : torch::stable::zero_(room);
}

// `states`: along time, the tensor of what Pass<Args>::states() returns.
template <typename Backend, typename Args>
void run_steps(const Backend& backend, const StepsCall& call, const Args& args,
               const Tensor& states, const Tensor& weight_hh, ScalarType saved, bool tf32,
               const std::string& impl) {
  using T = typename Args::T;
  using V = Compute<T>;
  constexpr bool kAlong = Pass<Args>::kAlongTime;
  check(impl == "cell" || impl == "cuda", "impl: expected cell or cuda, got ", impl);
  call.check_weight(weight_hh, weight_hh.scalar_type());
  const Steps& s = call.shape;
  if (s.batch * s.hidden == 0) return;
  if (impl == "cuda") return backend.persistent(args, weight_hh, tf32);
  const Tensor product = call.empty(kAlong ? 4 * s.hidden : s.hidden, saved);
  const Tensor factor = kAlong ? states : call.empty(4 * s.hidden, weight_hh.scalar_type());
  const Tensor matrix = kAlong ? torch::stable::transpose(weight_hh, 1, 2) : weight_hh;
  CellStep<Args> step{args, 0, static_cast<const V*>(product.const_data_ptr()),
                      kAlong ? nullptr : static_cast<T*>(factor.mutable_data_ptr())};
  for (; step.walked < s.steps + !kAlong; ++step.walked) {
    if (kAlong || step.walked > 0) backend.multiply(product, factor, matrix);
    backend.cell_step(step);
  }
}

}  // namespace ganlstm::gpu

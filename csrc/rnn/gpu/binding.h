// The ops lstm_*_steps: checks the tensors, fills the structs of steps.h, runs the walk.
//
// Backend:
//   Backend(const Tensor&)                      makes the tensor's device current
//   static dispatch(dtype, name, body)          over the dtypes that it has
//   static kDevice
//   multiply(out, a, b)                         out [D,B,N] of V = a [D,B,K] b [D,K,N] of T
//   cell_step(const CellStep<Args>&)
//   persistent(const Args&, const Tensor& weight_hh, bool tf32)
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>

#include "../../common/check.h"
#include "cell_steps.h"
#include "persistent_plan.h"

namespace ganlstm::cuda {

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

  // [count,B,D,gates*H] with count all steps of the sequence or those of the call.
  template <typename T>
  Sequence<T> sequence(const OptionalTensor& t, const char* name, ScalarType dtype,
                       int64_t gates) const {
    if (!t.has_value()) return {};
    check_on(*t, name, dtype);
    check_dim(*t, name, 4, "(T, B, D, ...)");
    const int64_t count = t->size(0);
    check_shape(*t, name, {count, shape.batch, shape.directions, gates * shape.hidden},
                gates == 1 ? "(T, B, D, H)" : "(T, B, D, 4H)");
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

// `states`: args.h or args.h_ as a tensor, along time.
template <typename Backend, typename Args>
void run_steps(const Backend& backend, const StepsCall& call, const Args& args,
               const Tensor& states, const Tensor& weight_hh, ScalarType saved, bool tf32,
               const std::string& impl) {
  using T = typename Args::T;
  using V = compute_t<T>;
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

inline ScalarType saved_dtype(ScalarType dtype) {
  return dtype == ScalarType::Double ? dtype : ScalarType::Float;
}

template <typename Backend>
void forward_steps(const Tensor& z, const OptionalTensor& bias, const Tensor& weight_hh,
                   const OptionalTensor& lengths, int64_t first, int64_t total, const Tensor& h,
                   const Tensor& c, const Tensor& y, const OptionalTensor& gates,
                   const OptionalTensor& c_all, bool tf32, const std::string& impl) {
  check_dim(z, "z", 4, "(T, B, D, 4H)");
  const StepsCall call(h, z.size(0), first, total, lengths, Backend::kDevice);
  const ScalarType dtype = weight_hh.scalar_type(), saved = saved_dtype(dtype);
  const Backend backend(h);
  Backend::dispatch(dtype, "weight_hh", [&](auto type) {
    using T = typename decltype(type)::type;
    using V = compute_t<T>;
    const ForwardSteps<T> args{call.shape,
                               call.sequence<const V>(z, "z", saved, 4),
                               call.bias<V>(bias, "bias", saved),
                               call.state<T>(h, "h", dtype),
                               call.state<V>(c, "c", saved),
                               call.sequence<T>(y, "y", dtype, 1),
                               call.sequence<V>(gates, "gates", saved, 4),
                               call.sequence<V>(c_all, "c_all", saved, 1)};
    run_steps(backend, call, args, h, weight_hh, saved, tf32, impl);
  });
}

template <typename Backend>
void backward_steps(const OptionalTensor& grad_y, const Tensor& weight_hh,
                    const OptionalTensor& lengths, int64_t first, int64_t total,
                    const Tensor& c_before, const Tensor& gates, const Tensor& c_all,
                    const Tensor& n, const Tensor& e, const Tensor& dz, const OptionalTensor& d,
                    bool tf32, const std::string& impl) {
  check_dim(dz, "dz", 4, "(T, B, D, 4H)");
  const StepsCall call(n, dz.size(0), first, total, lengths, Backend::kDevice);
  const ScalarType dtype = weight_hh.scalar_type(), saved = saved_dtype(dtype);
  const Backend backend(n);
  Backend::dispatch(dtype, "weight_hh", [&](auto type) {
    using T = typename decltype(type)::type;
    using V = compute_t<T>;
    const BackwardSteps<T> args{call.shape,
                                call.sequence<const T>(grad_y, "grad_y", dtype, 1),
                                call.state<const V>(c_before, "c_before", saved),
                                call.sequence<const V>(gates, "gates", saved, 4),
                                call.sequence<const V>(c_all, "c_all", saved, 1),
                                call.state<V>(n, "n", saved),
                                call.state<V>(e, "e", saved),
                                call.sequence<T>(dz, "dz", dtype, 4),
                                call.sequence<V>(d, "d", saved, 1)};
    run_steps(backend, call, args, n, weight_hh, saved, tf32, impl);
  });
}

template <typename Backend>
void tangent_forward_steps(const Tensor& z_, const Tensor& weight_hh, const OptionalTensor& lengths,
                           const Tensor& c_before, const Tensor& gates, const Tensor& c_all,
                           const Tensor& h_, const Tensor& c_, const Tensor& y_,
                           const Tensor& gates_, const Tensor& c_all_, bool tf32,
                           const std::string& impl) {
  check_dim(z_, "z_", 4, "(T, B, D, 4H)");
  const StepsCall call(h_, z_.size(0), 0, z_.size(0), lengths, Backend::kDevice);
  const ScalarType dtype = weight_hh.scalar_type(), saved = saved_dtype(dtype);
  const Backend backend(h_);
  Backend::dispatch(dtype, "weight_hh", [&](auto type) {
    using T = typename decltype(type)::type;
    using V = compute_t<T>;
    const TangentForwardSteps<T> args{call.shape,
                                      call.sequence<const V>(z_, "z_", saved, 4),
                                      call.state<const V>(c_before, "c_before", saved),
                                      call.sequence<const V>(gates, "gates", saved, 4),
                                      call.sequence<const V>(c_all, "c_all", saved, 1),
                                      call.state<T>(h_, "h_", dtype),
                                      call.state<V>(c_, "c_", saved),
                                      call.sequence<T>(y_, "y_", dtype, 1),
                                      call.sequence<V>(gates_, "gates_", saved, 4),
                                      call.sequence<V>(c_all_, "c_all_", saved, 1)};
    run_steps(backend, call, args, h_, weight_hh, saved, tf32, impl);
  });
}

template <typename Backend>
void tangent_backward_steps(const OptionalTensor& extra, const Tensor& weight_hh,
                            const OptionalTensor& lengths, const Tensor& c_before,
                            const Tensor& c_before_, const Tensor& gates, const Tensor& c_all,
                            const Tensor& d, const Tensor& gates_, const Tensor& c_all_,
                            const Tensor& n_, const Tensor& e, const Tensor& e_, const Tensor& dz_,
                            bool tf32, const std::string& impl) {
  check_dim(dz_, "dz_", 4, "(T, B, D, 4H)");
  const StepsCall call(n_, dz_.size(0), 0, dz_.size(0), lengths, Backend::kDevice);
  const ScalarType dtype = weight_hh.scalar_type(), saved = saved_dtype(dtype);
  const Backend backend(n_);
  Backend::dispatch(dtype, "weight_hh", [&](auto type) {
    using T = typename decltype(type)::type;
    using V = compute_t<T>;
    const TangentBackwardSteps<T> args{call.shape,
                                       call.sequence<const V>(extra, "extra", saved, 1),
                                       call.state<const V>(c_before, "c_before", saved),
                                       call.state<const V>(c_before_, "c_before_", saved),
                                       call.sequence<const V>(gates, "gates", saved, 4),
                                       call.sequence<const V>(c_all, "c_all", saved, 1),
                                       call.sequence<const V>(d, "d", saved, 1),
                                       call.sequence<const V>(gates_, "gates_", saved, 4),
                                       call.sequence<const V>(c_all_, "c_all_", saved, 1),
                                       call.state<V>(n_, "n_", saved),
                                       call.state<V>(e, "e", saved),
                                       call.state<V>(e_, "e_", saved),
                                       call.sequence<T>(dz_, "dz_", dtype, 4)};
    run_steps(backend, call, args, n_, weight_hh, saved, tf32, impl);
  });
}

}  // namespace ganlstm::cuda

#define GANLSTM_REGISTER_STEPS(m, Backend)                                                         \
  m.impl("lstm_forward_steps", TORCH_BOX(&ganlstm::cuda::forward_steps<Backend>));                 \
  m.impl("lstm_backward_steps", TORCH_BOX(&ganlstm::cuda::backward_steps<Backend>));               \
  m.impl("lstm_tangent_forward_steps", TORCH_BOX(&ganlstm::cuda::tangent_forward_steps<Backend>)); \
  m.impl("lstm_tangent_backward_steps", TORCH_BOX(&ganlstm::cuda::tangent_backward_steps<Backend>))

// The ops lstm_*_steps: check the tensors, fill a pass's Args, run its walk. Backend: binding.h.
#pragma once

#include <torch/csrc/stable/library.h>

#include <string>

#include "binding.h"
#include "lstm_backward.h"
#include "lstm_double_backward.h"
#include "lstm_forward.h"

namespace ganlstm::gpu {

template <typename Backend>
void lstm_forward_steps(const Tensor& z, const OptionalTensor& bias, const Tensor& weight_hh,
                        const OptionalTensor& lengths, int64_t first, int64_t total,
                        const Tensor& h, const Tensor& c, const Tensor& y,
                        const OptionalTensor& gates, const OptionalTensor& c_all, bool tf32,
                        const std::string& impl) {
  check_dim(z, "z", 4, "(T, B, D, 4H)");
  const StepsCall call(h, z.size(0), first, total, lengths, Backend::kDevice);
  const ScalarType dtype = weight_hh.scalar_type(), saved = compute_dtype(dtype);
  const Backend backend(h);
  Backend::dispatch(dtype, "weight_hh", [&](auto type) {
    using T = typename decltype(type)::type;
    using V = Compute<T>;
    const LstmForwardSteps<T> args{call.shape,
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
void lstm_backward_steps(const OptionalTensor& grad_y, const Tensor& weight_hh,
                         const OptionalTensor& lengths, int64_t first, int64_t total,
                         const Tensor& c_before, const Tensor& gates, const Tensor& c_all,
                         const Tensor& n, const Tensor& e, const Tensor& dz,
                         const OptionalTensor& d, bool tf32, const std::string& impl) {
  check_dim(dz, "dz", 4, "(T, B, D, 4H)");
  const StepsCall call(n, dz.size(0), first, total, lengths, Backend::kDevice);
  const ScalarType dtype = weight_hh.scalar_type(), saved = compute_dtype(dtype);
  const Backend backend(n);
  Backend::dispatch(dtype, "weight_hh", [&](auto type) {
    using T = typename decltype(type)::type;
    using V = Compute<T>;
    const LstmBackwardSteps<T> args{call.shape,
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
void lstm_tangent_forward_steps(const Tensor& z_, const Tensor& weight_hh,
                                const OptionalTensor& lengths, const Tensor& c_before,
                                const Tensor& gates, const Tensor& c_all, const Tensor& h_,
                                const Tensor& c_, const Tensor& y_, const Tensor& gates_,
                                const Tensor& c_all_, bool tf32, const std::string& impl) {
  check_dim(z_, "z_", 4, "(T, B, D, 4H)");
  const StepsCall call(h_, z_.size(0), 0, z_.size(0), lengths, Backend::kDevice);
  const ScalarType dtype = weight_hh.scalar_type(), saved = compute_dtype(dtype);
  const Backend backend(h_);
  Backend::dispatch(dtype, "weight_hh", [&](auto type) {
    using T = typename decltype(type)::type;
    using V = Compute<T>;
    const LstmTangentForwardSteps<T> args{call.shape,
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
void lstm_tangent_backward_steps(const OptionalTensor& extra, const Tensor& weight_hh,
                                 const OptionalTensor& lengths, const Tensor& c_before,
                                 const Tensor& c_before_, const Tensor& gates, const Tensor& c_all,
                                 const Tensor& d, const Tensor& gates_, const Tensor& c_all_,
                                 const Tensor& n_, const Tensor& e, const Tensor& e_,
                                 const Tensor& dz_, bool tf32, const std::string& impl) {
  check_dim(dz_, "dz_", 4, "(T, B, D, 4H)");
  const StepsCall call(n_, dz_.size(0), 0, dz_.size(0), lengths, Backend::kDevice);
  const ScalarType dtype = weight_hh.scalar_type(), saved = compute_dtype(dtype);
  const Backend backend(n_);
  Backend::dispatch(dtype, "weight_hh", [&](auto type) {
    using T = typename decltype(type)::type;
    using V = Compute<T>;
    const LstmTangentBackwardSteps<T> args{call.shape,
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

}  // namespace ganlstm::gpu

#define GANLSTM_REGISTER_LSTM_STEPS(m, Backend)                                          \
  m.impl("lstm_forward_steps", TORCH_BOX(&ganlstm::gpu::lstm_forward_steps<Backend>));   \
  m.impl("lstm_backward_steps", TORCH_BOX(&ganlstm::gpu::lstm_backward_steps<Backend>)); \
  m.impl("lstm_tangent_forward_steps",                                                   \
         TORCH_BOX(&ganlstm::gpu::lstm_tangent_forward_steps<Backend>));                 \
  m.impl("lstm_tangent_backward_steps",                                                  \
         TORCH_BOX(&ganlstm::gpu::lstm_tangent_backward_steps<Backend>))

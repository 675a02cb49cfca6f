// One time step of the LSTM after its matrix products: forward, backward and the two tangents that
// make the double backward. V is a scalar or a vector of scalars; nothing here touches memory.
//
// Notation: z pre-activations; i, f, g, o activated gates; c cell state; tau = tanh(c),
// q = 1 - tau^2; d = dL/dh_t, e = what reaches c_t from step t+1, dc = dL/dc_t, dz = dL/dz.
// A trailing _ marks a tangent (x' in the equations of the LSTM to second order).
#pragma once

#include "../common/activations.h"

namespace ganlstm {

template <typename V>
struct Gates {
  V i, f, g, o;
};

// z -> activated gates; c_t = f c_{t-1} + i g; h_t = o tanh(c_t).
template <typename V>
GANLSTM_HD Gates<V> cell_forward(const Gates<V>& z, V c_prev, V& c, V& h) {
  Gates<V> a{sigmoid(z.i), sigmoid(z.f), tanh_(z.g), sigmoid(z.o)};
  c = a.f * c_prev + a.i * a.g;
  h = a.o * tanh_(c);
  return a;
}

// Returns dz. `e` comes in from step t+1 and leaves for step t-1.
template <typename V>
GANLSTM_HD Gates<V> cell_backward(const Gates<V>& a, V c_prev, V tau, V d, V& e) {
  V dc = e + d * a.o * d_tanh(tau);
  e = dc * a.f;
  return {dc * a.g * d_sigmoid(a.i), dc * c_prev * d_sigmoid(a.f), dc * a.i * d_tanh(a.g),
          d * tau * d_sigmoid(a.o)};
}

// Tangent of the forward: z_ -> tangents of the gates, of c_t and of h_t.
template <typename V>
GANLSTM_HD Gates<V> cell_forward_tangent(const Gates<V>& a, const Gates<V>& z_, V c_prev, V c_prev_,
                                         V tau, V& c_, V& h_) {
  Gates<V> a_{d_sigmoid(a.i) * z_.i, d_sigmoid(a.f) * z_.f, d_tanh(a.g) * z_.g,
              d_sigmoid(a.o) * z_.o};
  c_ = a_.f * c_prev + a.f * c_prev_ + a_.i * a.g + a.i * a_.g;
  h_ = a_.o * tau + a.o * d_tanh(tau) * c_;
  return a_;
}

// Tangent of the backward: returns dz_. `e` and `e_` come in from step t+1 and leave for t-1.
template <typename V>
GANLSTM_HD Gates<V> cell_backward_tangent(const Gates<V>& a, const Gates<V>& a_, V c_prev,
                                          V c_prev_, V c_, V tau, V d, V d_, V& e, V& e_) {
  V q = d_tanh(tau);
  V tau_ = q * c_;
  V dc = e + d * a.o * q;
  V dc_ = e_ + d_ * a.o * q + d * (a_.o * q - 2 * a.o * tau * tau_);
  e = dc * a.f;
  e_ = dc_ * a.f + dc * a_.f;
  return {(dc_ * a.g + dc * a_.g) * d_sigmoid(a.i) + dc * a.g * (1 - 2 * a.i) * a_.i,
          (dc_ * c_prev + dc * c_prev_) * d_sigmoid(a.f) + dc * c_prev * (1 - 2 * a.f) * a_.f,
          (dc_ * a.i + dc * a_.i) * d_tanh(a.g) - 2 * dc * a.i * a.g * a_.g,
          (d_ * tau + d * tau_) * d_sigmoid(a.o) + d * tau * (1 - 2 * a.o) * a_.o};
}

}  // namespace ganlstm

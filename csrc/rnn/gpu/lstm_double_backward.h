// The recurrent steps of the LSTM's double backward on a GPU: the tangent of the forward, along
// time, then the tangent of the backward, against it.
#pragma once

#include "../lstm_cell.h"
#include "steps.h"

namespace ganlstm::gpu {

// The tangent of the forward, along time.
template <typename T_>
struct LstmTangentForwardSteps {
  using T = T_;
  using V = Compute<T>;
  Steps shape;
  Sequence<const V> z_;     // [.,B,D,4H] tangent of z without the share of h_{t-1}
  const V* c_before;        // [D,B,H]
  Sequence<const V> gates;  // [.,B,D,4H]
  Sequence<const V> c_all;  // [.,B,D,H]
  T* h_;                    // [D,B,H] in: tangent of h before the first step; out: after the last
  V* c_;                    // [D,B,H] likewise of c
  Sequence<T> y_;           // [.,B,D,H] out
  Sequence<V> gates_;       // [.,B,D,4H] out; may be z_ itself
  Sequence<V> c_all_;       // [.,B,D,H] out
};

template <typename T>
struct Pass<LstmTangentForwardSteps<T>> {
  using Args = LstmTangentForwardSteps<T>;
  using V = Compute<T>;
  using Slots = Gates<V>;
  static constexpr bool kAlongTime = true;
  static constexpr int kExchanged = 1;
  struct Operands {
    Gates<V> gates, z_;
    V c, c_before;
  };
  struct Carried {
    V h, c_;  // h: the tangent
  };
  struct Results {
    Gates<V> gates_;
    V y_, c_;
  };

  static GANLSTM_HD const T* states(const Args& a) { return a.h_; }
  static GANLSTM_HD Carried carry(const Args& a, const Element& at) {
    return {load(a.h_ + at.state), a.c_[at.state]};
  }
  static GANLSTM_HD void keep(const Args& a, const Element& at, const Carried& carried) {
    store(a.h_ + at.state, carried.h);
    a.c_[at.state] = carried.c_;
  }
  static GANLSTM_HD Operands load_operands(const Args& a, const Element& at, int64_t time) {
    if (!at.is_alive(time)) return {};
    return {load_slots<Gates<V>>(a.gates, a.shape, at, time),
            load_slots<Gates<V>>(a.z_, a.shape, at, time), load_state(a.c_all, a.shape, at, time),
            load_before(a.c_all, a.c_before, a.shape, at, time)};
  }
  static GANLSTM_HD void run(const Args&, const Element& at, int64_t time, const Operands& in,
                             const Gates<V>& product, Carried& carried, V (&exchanged)[1],
                             Results& out) {
    out = {};
    if (at.is_alive(time)) {
      V h_;
      out.gates_ = cell_forward_tangent(in.gates,
                                        Gates<V>{in.z_.i + product.i, in.z_.f + product.f,
                                                 in.z_.g + product.g, in.z_.o + product.o},
                                        in.c_before, carried.c_, tanh_(in.c), out.c_, h_);
      out.y_ = rounded<T>(h_);
      carried = {out.y_, out.c_};
    }
    exchanged[0] = carried.h;
  }
  static GANLSTM_HD void write(const Args& a, const Element& at, int64_t time, const Results& out) {
    store_state(a.y_, a.shape, at, time, out.y_);
    store_slots(a.gates_, a.shape, at, time, out.gates_);
    store_state(a.c_all_, a.shape, at, time, out.c_);
  }
};

// The tangent of the backward, against time.
template <typename T_>
struct LstmTangentBackwardSteps {
  using T = T_;
  using V = Compute<T>;
  Steps shape;
  Sequence<const V> extra;  // [.,B,D,H] dz times the cotangent of weight_hh's gradient, or absent
  const V* c_before;        // [D,B,H]
  const V* c_before_;       // [D,B,H]
  Sequence<const V> gates;
  Sequence<const V> c_all;
  Sequence<const V> d;       // [.,B,D,H]
  Sequence<const V> gates_;  // [.,B,D,4H] tangents
  Sequence<const V> c_all_;  // [.,B,D,H] tangents
  V* n_;                     // [D,B,H] in and out: tangent of n
  V* e;                      // [D,B,H] in and out
  V* e_;                     // [D,B,H] in and out: its tangent
  Sequence<T> dz_;           // [.,B,D,4H] out: tangents; may be gates_ itself where T is V
};

template <typename T>
struct Pass<LstmTangentBackwardSteps<T>> {
  using Args = LstmTangentBackwardSteps<T>;
  using V = Compute<T>;
  using Slots = Gates<V>;
  static constexpr bool kAlongTime = false;
  static constexpr int kExchanged = 4;
  struct Operands {
    Gates<V> gates, gates_;
    V c, c_, c_before, c_before_, d, extra;
  };
  struct Carried {
    V n_, e, e_;
  };
  using Results = Gates<V>;  // dz_

  static GANLSTM_HD Carried carry(const Args& a, const Element& at) {
    return {a.n_[at.state], a.e[at.state], a.e_[at.state]};
  }
  static GANLSTM_HD void keep(const Args& a, const Element& at, const Carried& carried) {
    a.n_[at.state] = carried.n_;
    a.e[at.state] = carried.e;
    a.e_[at.state] = carried.e_;
  }
  static GANLSTM_HD void take(const Gates<V>& product, Carried& carried) {
    carried.n_ = sum(product) + carried.n_;
  }
  static GANLSTM_HD Operands load_operands(const Args& a, const Element& at, int64_t time) {
    if (!at.is_alive(time)) return {};
    return {load_slots<Gates<V>>(a.gates, a.shape, at, time),
            load_slots<Gates<V>>(a.gates_, a.shape, at, time),
            load_state(a.c_all, a.shape, at, time),
            load_state(a.c_all_, a.shape, at, time),
            load_before(a.c_all, a.c_before, a.shape, at, time),
            load_before(a.c_all_, a.c_before_, a.shape, at, time),
            load_state(a.d, a.shape, at, time),
            a.extra.data == nullptr ? V(0) : load_state(a.extra, a.shape, at, time)};
  }
  static GANLSTM_HD void run(const Args&, const Element& at, int64_t time, const Operands& in,
                             const Gates<V>&, Carried& carried, V (&exchanged)[4], Results& out) {
    out = {};
    if (at.is_alive(time)) {
      out = cell_backward_tangent(in.gates, in.gates_, in.c_before, in.c_before_, in.c_,
                                  tanh_(in.c), in.d, carried.n_, carried.e, carried.e_);
      carried.n_ = in.extra;
    }
    exchange(exchanged, out);
  }
  static GANLSTM_HD void write(const Args& a, const Element& at, int64_t time, const Results& out) {
    store_slots(a.dz_, a.shape, at, time, out);
  }
};

}  // namespace ganlstm::gpu

// The recurrent steps of the LSTM's backward on a GPU.
#pragma once

#include "../lstm_cell.h"
#include "steps.h"

namespace ganlstm::gpu {

template <typename T_>
struct LstmBackwardSteps {
  using T = T_;
  using V = Compute<T>;
  Steps shape;
  Sequence<const T> grad_y;  // [.,B,D,H], or absent
  const V* c_before;         // [D,B,H] c before the first step of `c_all`
  Sequence<const V> gates;   // [.,B,D,4H]
  Sequence<const V> c_all;   // [.,B,D,H]
  V* n;                      // [D,B,H] in: gradient of h after the last step; out: before the first
  V* e;                      // [D,B,H] likewise of c
  Sequence<T> dz;            // [.,B,D,4H] out
  Sequence<V> d;             // [.,B,D,H] out, or absent
};

template <typename T>
struct Pass<LstmBackwardSteps<T>> {
  using Args = LstmBackwardSteps<T>;
  using V = Compute<T>;
  using Slots = Gates<V>;
  static constexpr bool kAlongTime = false;
  static constexpr int kExchanged = 4;
  struct Operands {
    Gates<V> gates;
    V c, c_before, grad_y;
  };
  struct Carried {
    V n, e;
  };
  struct Results {
    Gates<V> dz;
    V d;
  };

  static GANLSTM_HD Carried carry(const Args& a, const Element& at) {
    return {a.n[at.state], a.e[at.state]};
  }
  static GANLSTM_HD void keep(const Args& a, const Element& at, const Carried& carried) {
    a.n[at.state] = carried.n;
    a.e[at.state] = carried.e;
  }
  // The product of a step's dz is the gradient of h before it.
  static GANLSTM_HD void take(const Gates<V>& product, Carried& carried) {
    carried.n = sum(product);
  }
  static GANLSTM_HD Operands load_operands(const Args& a, const Element& at, int64_t time) {
    if (!at.is_alive(time)) return {};
    return {load_slots<Gates<V>>(a.gates, a.shape, at, time),
            load_state(a.c_all, a.shape, at, time),
            load_before(a.c_all, a.c_before, a.shape, at, time),
            a.grad_y.data == nullptr ? V(0) : load_state(a.grad_y, a.shape, at, time)};
  }
  static GANLSTM_HD void run(const Args&, const Element& at, int64_t time, const Operands& in,
                             const Gates<V>&, Carried& carried, V (&exchanged)[4], Results& out) {
    out = {};
    if (at.is_alive(time)) {
      out.d = in.grad_y + carried.n;
      out.dz = cell_backward(in.gates, in.c_before, tanh_(in.c), out.d, carried.e);
    }
    exchange(exchanged, out.dz);
  }
  static GANLSTM_HD void write(const Args& a, const Element& at, int64_t time, const Results& out) {
    store_slots(a.dz, a.shape, at, time, out.dz);
    if (a.d.data != nullptr) store_state(a.d, a.shape, at, time, out.d);
  }
};

}  // namespace ganlstm::gpu

// The recurrent steps of the LSTM's forward on a GPU.
#pragma once

#include "../lstm_cell.h"
#include "steps.h"

namespace ganlstm::gpu {

template <typename T_>
struct LstmForwardSteps {
  using T = T_;
  using V = Compute<T>;
  Steps shape;
  Sequence<const V> z;  // [.,B,D,4H] x_t W^T
  const V* bias;        // [D,4H], or null
  T* h;                 // [D,B,H] in: before the first step; out: after the last
  V* c;                 // [D,B,H] likewise
  Sequence<T> y;        // [.,B,D,H] out
  Sequence<V> gates;    // [.,B,D,4H] out, or absent; may be z itself
  Sequence<V> c_all;    // [.,B,D,H] out, or absent
};

template <typename T>
struct Pass<LstmForwardSteps<T>> {
  using Args = LstmForwardSteps<T>;
  using V = Compute<T>;
  using Slots = Gates<V>;
  static constexpr bool kAlongTime = true;
  static constexpr int kExchanged = 1;
  struct Operands {
    Gates<V> z;
  };
  struct Carried {
    V h, c;
  };
  struct Results {
    Gates<V> gates;
    V y, c;
  };

  static GANLSTM_HD const T* states(const Args& a) { return a.h; }
  static GANLSTM_HD Carried carry(const Args& a, const Element& at) {
    return {load(a.h + at.state), a.c[at.state]};
  }
  static GANLSTM_HD void keep(const Args& a, const Element& at, const Carried& carried) {
    store(a.h + at.state, carried.h);
    a.c[at.state] = carried.c;
  }
  static GANLSTM_HD Operands load_operands(const Args& a, const Element& at, int64_t time) {
    if (!at.is_alive(time)) return {};
    Gates<V> z = load_slots<Gates<V>>(a.z, a.shape, at, time);
    if (a.bias != nullptr) {
      const V* b = a.bias + at.direction * 4 * a.shape.hidden + at.unit;
      z = {z.i + b[0], z.f + b[a.shape.hidden], z.g + b[2 * a.shape.hidden],
           z.o + b[3 * a.shape.hidden]};
    }
    return {z};
  }
  static GANLSTM_HD void run(const Args&, const Element& at, int64_t time, const Operands& in,
                             const Gates<V>& product, Carried& carried, V (&exchanged)[1],
                             Results& out) {
    out = {};
    if (at.is_alive(time)) {
      V h;
      out.gates = cell_forward(
          Gates<V>{in.z.i + product.i, in.z.f + product.f, in.z.g + product.g, in.z.o + product.o},
          carried.c, out.c, h);
      out.y = rounded<T>(h);
      carried = {out.y, out.c};
    }
    exchanged[0] = carried.h;
  }
  static GANLSTM_HD void write(const Args& a, const Element& at, int64_t time, const Results& out) {
    store_state(a.y, a.shape, at, time, out.y);
    if (a.gates.data != nullptr) store_slots(a.gates, a.shape, at, time, out.gates);
    if (a.c_all.data != nullptr) store_state(a.c_all, a.shape, at, time, out.c);
  }
};

}  // namespace ganlstm::gpu

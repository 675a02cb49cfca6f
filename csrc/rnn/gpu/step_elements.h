// What one step of each pass does to one hidden unit of one row, given the sums of the recurrent
// product. The kernels that differ in how they come by the product share it.
//
// Pass<Args> has, for a kernel:
//   kAlongTime       which way the walk goes
//   kExchanged       values that the product takes: 1 (h) or 4 (dz); it gives 4 sums or 1
//   states()         the array that the first product takes, along time
//   Carried          what goes from step to step: carry() reads it, keep() writes it back
//   Operands         what a step reads from memory: load_operands(), which may run ahead
//   take()           the product of the step before, against time; only where that was alive
//   run()            the step, with the product of the state before it along time
//   write()          its Results to memory, which nobody waits for
#pragma once

#include <type_traits>

#include "../lstm_cell.h"
#include "steps.h"

namespace ganlstm::cuda {

// One hidden unit of one row of the batch in one direction.
struct Element {
  int64_t direction, row, unit;
  int64_t state;   // its offset in [D,B,H]
  int64_t step;    // in a step of [T,B,D,H]
  int64_t gates;   // in a step of [T,B,D,4H]
  int64_t length;  // valid steps

  GANLSTM_HD Element() {}
  GANLSTM_HD Element(const Steps& s, int64_t direction, int64_t row, int64_t unit)
      : direction(direction),
        row(row),
        unit(unit),
        state((direction * s.batch + row) * s.hidden + unit),
        step((row * s.directions + direction) * s.hidden + unit),
        gates((row * s.directions + direction) * 4 * s.hidden + unit),
        length(s.total) {
    if (s.lengths != nullptr && s.lengths[row] < s.total) length = s.lengths[row];
  }

  // The time of the direction's step `index`.
  GANLSTM_HD int64_t time(const Steps& s, int64_t index) const {
    return direction == 0 ? index : s.total - 1 - index;
  }
  GANLSTM_HD int64_t before(int64_t time) const { return direction == 0 ? time - 1 : time + 1; }
  GANLSTM_HD bool is_alive(int64_t time) const { return time < length; }
};

template <typename T, typename V = std::remove_const_t<T>>
GANLSTM_HD Gates<V> load_gates(const Sequence<T>& from, const Steps& s, const Element& at,
                               int64_t time) {
  const V* p = from.at(time, at.direction, 4 * s.batch * s.directions * s.hidden, at.gates);
  return {p[0], p[s.hidden], p[2 * s.hidden], p[3 * s.hidden]};
}

template <typename T, typename V>
GANLSTM_HD void store_gates(const Sequence<T>& to, const Steps& s, const Element& at, int64_t time,
                            const Gates<V>& gates) {
  T* p = to.at(time, at.direction, 4 * s.batch * s.directions * s.hidden, at.gates);
  store(p, gates.i);
  store(p + s.hidden, gates.f);
  store(p + 2 * s.hidden, gates.g);
  store(p + 3 * s.hidden, gates.o);
}

template <typename T>
GANLSTM_HD auto load_state(const Sequence<T>& from, const Steps& s, const Element& at,
                           int64_t time) {
  return load(from.at(time, at.direction, s.batch * s.directions * s.hidden, at.step));
}

template <typename T, typename V>
GANLSTM_HD void store_state(const Sequence<T>& to, const Steps& s, const Element& at, int64_t time,
                            V value) {
  store(to.at(time, at.direction, s.batch * s.directions * s.hidden, at.step), value);
}

// Of the step before `time`; `initial` [D,B,H] before the first one of the row or of the array.
template <typename V>
GANLSTM_HD V load_before(const Sequence<const V>& from, const V* initial, const Steps& s,
                         const Element& at, int64_t time) {
  const int64_t before = at.before(time);
  const bool inside = from.has(before, at.direction) && at.is_alive(before);
  return inside ? load_state(from, s, at, before) : initial[at.state];
}

// `value` as T represents it: what is exchanged is what is stored.
template <typename T>
GANLSTM_HD compute_t<T> rounded(compute_t<T> value) {
  T stored;
  store(&stored, value);
  return load(&stored);
}

template <typename V>
GANLSTM_HD V sum(const Gates<V>& p) {
  return (p.i + p.f) + (p.g + p.o);
}

template <typename V>
GANLSTM_HD void exchange(V (&exchanged)[4], const Gates<V>& gates) {
  exchanged[0] = gates.i;
  exchanged[1] = gates.f;
  exchanged[2] = gates.g;
  exchanged[3] = gates.o;
}

template <typename Args>
struct Pass;

template <typename T>
struct Pass<ForwardSteps<T>> {
  using Args = ForwardSteps<T>;
  using V = compute_t<T>;
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
    Gates<V> z = load_gates(a.z, a.shape, at, time);
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
    if (a.gates.data != nullptr) store_gates(a.gates, a.shape, at, time, out.gates);
    if (a.c_all.data != nullptr) store_state(a.c_all, a.shape, at, time, out.c);
  }
};

template <typename T>
struct Pass<BackwardSteps<T>> {
  using Args = BackwardSteps<T>;
  using V = compute_t<T>;
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
    return {load_gates(a.gates, a.shape, at, time), load_state(a.c_all, a.shape, at, time),
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
    store_gates(a.dz, a.shape, at, time, out.dz);
    if (a.d.data != nullptr) store_state(a.d, a.shape, at, time, out.d);
  }
};

template <typename T>
struct Pass<TangentForwardSteps<T>> {
  using Args = TangentForwardSteps<T>;
  using V = compute_t<T>;
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
    return {load_gates(a.gates, a.shape, at, time), load_gates(a.z_, a.shape, at, time),
            load_state(a.c_all, a.shape, at, time),
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
    store_gates(a.gates_, a.shape, at, time, out.gates_);
    store_state(a.c_all_, a.shape, at, time, out.c_);
  }
};

template <typename T>
struct Pass<TangentBackwardSteps<T>> {
  using Args = TangentBackwardSteps<T>;
  using V = compute_t<T>;
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
    return {load_gates(a.gates, a.shape, at, time),
            load_gates(a.gates_, a.shape, at, time),
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
    store_gates(a.dz_, a.shape, at, time, out);
  }
};

}  // namespace ganlstm::cuda

// The recurrent steps of a pass on a GPU: what is left of it once every product that is parallel in
// time has been taken out as one large product (ganlstm_fast/ops/lstm/gpu.py).
//
// A call walks `steps` consecutive steps of a sequence of `total`, in one or two directions at
// once. In the direction's own order, step k of the walk is step first + k where the pass goes
// along time, and step first + steps - 1 - k where it goes against time.
//
// T: element of the tensors; V = Compute<T>: what is saved and carried.
//
// The kernels do not check lengths, which lie in the GPU's memory. A length above `total` counts as
// `total`, one below 1 as an empty sequence.
//
// A pass of a cell is a struct Args of arrays, with T, V and `shape`, and what its step does to one
// hidden unit of one row once the sums of the recurrent product are there. The kernels differ in
// how they compute these sums: cell_steps.h has a product and a kernel for each step,
// persistent_steps.h does all steps in one launch. Both take from Pass<Args>:
//
//   kAlongTime       whether the walk goes along time
//   kExchanged       how many values of a unit the product takes: 1 (h) or 4 (dz); it gives 4 sums
//                    for the former and 1 for the latter
//   Slots            the cell's struct of four values of V
//   states()         the array that the first product takes (along time only)
//   Carried          what goes from step to step: carry() reads it, keep() writes it back
//   Operands         what a step reads from memory: load_operands(), which may run ahead
//   take()           what the product of the step before does to Carried (against time only);
//   called
//                    if that step was alive
//   run()            the step; along time it gets the product of the state before it
//   write()          writes Results, which no other step reads
#pragma once

#include <cstdint>

#include "../../common/numbers.h"

namespace ganlstm::gpu {

struct Steps {
  int64_t steps, first, total, batch, hidden, directions;
  const int64_t* lengths;  // [B] in the GPU's memory, or null: all `total`
};

// An array over time, [count,B,D,...]: all of the sequence, or only the steps of the call. Then its
// first element is another time in each direction.
template <typename T>
struct Sequence {
  T* data;  // null: absent
  int64_t count;
  int64_t origin[2];  // the time of element 0 in each direction

  GANLSTM_HD T* at(int64_t time, int64_t direction, int64_t step_elements, int64_t offset) const {
    return data + (time - origin[direction]) * step_elements + offset;
  }
  GANLSTM_HD bool has(int64_t time, int64_t direction) const {
    return time >= origin[direction] && time < origin[direction] + count;
  }
};

// One hidden unit of one row of the batch in one direction.
struct Element {
  int64_t direction, row, unit;
  int64_t state;   // its offset in [D,B,H]
  int64_t step;    // in a step of [T,B,D,H]
  int64_t slots;   // in a step of [T,B,D,4H]
  int64_t length;  // valid steps

  GANLSTM_HD Element() {}
  GANLSTM_HD Element(const Steps& s, int64_t direction, int64_t row, int64_t unit)
      : direction(direction),
        row(row),
        unit(unit),
        state((direction * s.batch + row) * s.hidden + unit),
        step((row * s.directions + direction) * s.hidden + unit),
        slots((row * s.directions + direction) * 4 * s.hidden + unit),
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

// The four values of a unit, which lie H apart. Slots: a cell's struct of them, in their order.
template <typename Slots, typename V>
GANLSTM_HD Slots load_slots(const Sequence<const V>& from, const Steps& s, const Element& at,
                            int64_t time) {
  const V* p = from.at(time, at.direction, 4 * s.batch * s.directions * s.hidden, at.slots);
  return {p[0], p[s.hidden], p[2 * s.hidden], p[3 * s.hidden]};
}

template <typename T, typename Slots>
GANLSTM_HD void store_slots(const Sequence<T>& to, const Steps& s, const Element& at, int64_t time,
                            const Slots& slots) {
  T* p = to.at(time, at.direction, 4 * s.batch * s.directions * s.hidden, at.slots);
  const auto& [a, b, c, d] = slots;
  store(p, a);
  store(p + s.hidden, b);
  store(p + 2 * s.hidden, c);
  store(p + 3 * s.hidden, d);
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
GANLSTM_HD Compute<T> rounded(Compute<T> value) {
  T stored;
  store(&stored, value);
  return load(&stored);
}

template <typename Slots>
GANLSTM_HD auto sum(const Slots& p) {
  const auto& [a, b, c, d] = p;
  return (a + b) + (c + d);
}

template <typename V, typename Slots>
GANLSTM_HD void exchange(V (&exchanged)[4], const Slots& slots) {
  const auto& [a, b, c, d] = slots;
  exchanged[0] = a;
  exchanged[1] = b;
  exchanged[2] = c;
  exchanged[3] = d;
}

template <typename Args>
struct Pass;

}  // namespace ganlstm::gpu

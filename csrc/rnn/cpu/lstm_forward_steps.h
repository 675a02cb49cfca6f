// The forward's time loop, for the forward itself and for a backward that computes gates again.
#pragma once

#include "../../common/cpu/scratch.h"
#include "../../common/cpu/simd.h"
// (simd.h comes first: its vector overloads are what lstm_cell.h calls.)
#include "../lstm.h"
#include "../lstm_cell.h"
#include "products.h"
#include "slices.h"
#include "slots.h"

namespace ganlstm {
namespace {

template <typename T>
struct ForwardLoop {
  const LayerShape& shape;
  const ForwardWeights<T>* weights;  // null where they are not packed
  const T* x;                        // [T,B,I]
  const T* h0;                       // [D,B,H]
  const T* y;                        // [T,B,D*H] where the steps before are read
  T* h;                        // the same array out, or null where all its steps are there already
  StepRows<Compute<T>> gates;  // out, or null
  StepRows<Compute<T>> c;      // out, null exactly when gates is
};

// Of a forward. With a window its c is kept by for_each_window.
template <typename T>
ForwardLoop<T> forward_loop(const LstmForward<T>& a, const ForwardWeights<T>* weights) {
  return {a.shape, weights, a.x, a.h0, a.y, a.y, {a.gates, 0}, {a.window > 0 ? nullptr : a.c, 0}};
}

// Cuts a range of steps, in the order of the direction, into parts that lie in one window each, and
// calls f(part) for them. Where a window begins, it first saves c of the hidden units in `blocks`.
template <typename T, typename F>
void for_each_window(const LstmForward<T>& a, const Slice& s, Range range, Range blocks,
                     const Compute<T>* c_state, int64_t padded, F f) {
  const int64_t hidden = a.shape.hidden, size = a.shape.directions * a.shape.batch * hidden;
  const Range units{blocks.begin * kLanes<T>, smaller(blocks.end * kLanes<T>, hidden)};
  const Windows windows(a.shape, a.window);
  for (Range part = range; part.begin < range.end; part.begin = part.end) {
    const int64_t k = windows.of(part.begin);
    const Range window = windows.with_direction(k);
    if (part.begin == window.begin && k + 1 < windows.count())
      store_state(s, c_state, padded, a.c + k * size, units);
    part.end = smaller(window.end, range.end);
    f(part);
  }
}

// Pointers to what belongs to a step, for each row of a slice.
template <typename T>
class ForwardRows {
 public:
  ForwardRows(int64_t count, bool with_z)
      : x_(count), h_before_(count), h_(count), z_(with_z ? count : 0), gates_(count), c_(count) {}

  const T** x() const { return x_.get(); }
  const T** h_before() const { return h_before_.get(); }
  T** h() const { return h_.get(); }
  // [blocks][gates of a block] what x and the bias contribute; null: from x
  const Compute<T>** z() const { return z_.get(); }
  Compute<T>** gates() const { return gates_.get(); }
  Compute<T>** c() const { return c_.get(); }

  // The n-th step of a walk against the direction.
  void set(const ForwardLoop<T>& a, const Slice& s, int64_t n, int64_t t, int64_t alive) const {
    const LayerShape& shape = a.shape;
    for (int64_t j = 0; j < alive; ++j) {
      const int64_t b = s.row(j), before = s.before(t, b);
      x()[j] = a.x + (t * shape.batch + b) * shape.input;
      h_before()[j] =
          before < 0 ? a.h0 + s.initial(b, shape.hidden) : a.y + s.at(before, b, shape.hidden);
      if (a.h != nullptr) h()[j] = a.h + s.at(t, b, shape.hidden);
      if (a.gates.data == nullptr) continue;
      gates()[j] = a.gates.row(s, n, t, b, 4 * shape.hidden);
      c()[j] = a.c.row(s, n, t, b, shape.hidden);
    }
  }

 private:
  Scratch<const T*> x_, h_before_;
  Scratch<T*> h_;
  Scratch<const Compute<T>*> z_;
  Scratch<Compute<T>*> gates_, c_;
};

// Computes the gates, c and h of a vector of a row's hidden units from their z, and stores them.
template <typename T>
GANLSTM_INLINE void finish_cell(const ForwardLoop<T>& a, const ForwardRows<T>& rows, int64_t row,
                                int64_t unit, const Gates<Vec<T>>& z, Compute<T>* state) {
  const int64_t hidden = a.shape.hidden, valid = hidden - unit;
  Vec<T> c, h;
  const Gates<Vec<T>> gates = cell_forward(z, load(state), c, h);
  store(state, c);
  if (a.h != nullptr) store_n(rows.h()[row] + unit, h, valid);
  if (a.gates.data == nullptr) return;
  store_slots(rows.gates()[row] + unit, hidden, gates, valid);
  store_n(rows.c()[row] + unit, c, valid);
}

// Not inlined: the compiler would keep the constants of the gates in registers during the products,
// and push the sums out of them.
template <int M, typename T>
__attribute__((noinline)) void forward_block(const ForwardLoop<T>& a, int64_t direction,
                                             int64_t block, const ForwardRows<T>& rows, int64_t r,
                                             Compute<T>* c_state) {
  const ForwardWeights<T>& weights = *a.weights;
  const int64_t unit = block * kLanes<T>;
  const Compute<T>* const* given = rows.z();
  Vec<T> z[M][kColumns];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    const Compute<T>* from = given == nullptr ? weights.bias(direction, block)
                                              : given[r + m] + block * kColumns * kLanes<T>;
#pragma GCC unroll 4
    for (int n = 0; n < kColumns; ++n) z[m][n] = load(from + n * kLanes<T>);
  }
  multiply(z, rows.h_before() + r, a.shape.hidden, weights.hh(direction, block));
  if (given == nullptr) multiply(z, rows.x() + r, a.shape.input, weights.ih(direction, block));
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
    finish_cell(a, rows, r + m, unit, {z[m][0], z[m][1], z[m][2], z[m][3]},
                c_state + (r + m) * weights.padded() + unit);
}

// Walks steps of a slice in the order of its direction, for the hidden units in `blocks`, and calls
// after_step() after each. c_state: [rows,padded] c before them, then after. inputs: [steps of
// range,B,blocks,gates of a block] what x and the bias contribute, or null.
template <typename T, typename F>
void forward_steps(const ForwardLoop<T>& a, const Slice& s, Range range, Compute<T>* c_state,
                   Range blocks, const Compute<T>* inputs, F after_step) {
  const ForwardRows<T> rows(s.count, inputs != nullptr);
  const int64_t z_size = kColumns * a.weights->padded();
  for_each_step(s, true, range, [&](int64_t m, int64_t t, int64_t alive) {
    rows.set(a, s, a.shape.steps - 1 - m, t, alive);
    if (inputs != nullptr)
      for (int64_t j = 0; j < alive; ++j)
        rows.z()[j] = inputs + ((m - range.begin) * a.shape.batch + s.row(j)) * z_size;
    for (int64_t block = blocks.begin; block < blocks.end; ++block)
      for_row_groups(alive, [&](int64_t r, auto count) {
        forward_block<decltype(count)::value>(a, s.direction, block, rows, r, c_state);
      });
    after_step();
  });
}

template <typename T>
void forward_steps(const ForwardLoop<T>& a, const Slice& s, Range range, Compute<T>* c_state) {
  forward_steps<T>(a, s, range, c_state, {0, a.weights->blocks()}, nullptr, [] {});
}

// Called before and after the forward of a slice.
template <typename T>
void begin_forward(const LstmForward<T>& a, const Slice& s, Compute<T>* c_state, int64_t padded) {
  const int64_t hidden = a.shape.hidden;
  load_state(s, a.c0, c_state, padded);
  zero_after_end(s, a.y, hidden);
  zero_after_end(s, a.gates, 4 * hidden);
  if (a.window == 0) zero_after_end(s, a.c, hidden);
}
template <typename T>
void end_forward(const LstmForward<T>& a, const Slice& s, const Compute<T>* c_state,
                 int64_t padded) {
  store_last(s, a.y, a.h_last);
  store_state(s, c_state, padded, a.c_last);
}

}  // namespace
}  // namespace ganlstm

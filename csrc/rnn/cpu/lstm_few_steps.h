// The forward of few rows and steps, as a caller's own loop over time has them. Packing the weights
// would cost more than the products, so they are read where they lie.
#pragma once

#include "lstm_forward_steps.h"

namespace ganlstm {
namespace {

// Rows times steps up to which the weights are not packed.
constexpr int64_t kFewSteps = 16;

// Rows of the weights and of the batch whose products are summed at once: their sums and kRowsOfW
// vectors of weights fill the registers.
template <typename T>
constexpr int64_t kRowsOfW = smaller(4, kLanes<T>);
constexpr int kRowsOfBatch = kRows > 4 ? 4 : kRows > 2 ? 2 : 1;

// sums[m][j] += vectors of w[j][k] x[m][k], j < kLanes; rows of w from `units` on do not count.
template <int M, typename T>
void add_products(Vec<T> (&sums)[M][kLanes<T>], const T* w, int64_t columns, int64_t units,
                  const T* const* x) {
  for (int64_t first = 0; first < units; first += kRowsOfW<T>) {
    const T* row[kRowsOfW<T>];
    Vec<T> part[M][kRowsOfW<T>];
#pragma GCC unroll 4
    for (int j = 0; j < kRowsOfW<T>; ++j) {
      row[j] = w + smaller(first + j, units - 1) * columns;
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) part[m][j] = sums[m][first + j];
    }
    for (int64_t k = 0; k < columns; k += kLanes<T>) {
      const int64_t valid = columns - k;
      Vec<T> weights[kRowsOfW<T>];
#pragma GCC unroll 4
      for (int j = 0; j < kRowsOfW<T>; ++j) weights[j] = load_n(row[j] + k, valid);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) {
        const Vec<T> value = load_n(x[m] + k, valid);
#pragma GCC unroll 4
        for (int j = 0; j < kRowsOfW<T>; ++j) part[m][j] += weights[j] * value;
      }
    }
#pragma GCC unroll 4
    for (int j = 0; j < kRowsOfW<T>; ++j)
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) sums[m][first + j] = part[m][j];
  }
}

template <typename T>
GANLSTM_INLINE void add_bias(Vec<T>& z, const T* bias, int64_t row, int64_t count) {
  if (bias != nullptr) z += load_n(bias + row, count);
}

// Rows r to r + M of the batch at one step, the hidden units from `unit` on.
template <int M, typename T>
void few_rows(const ForwardLoop<T>& a, const LayerWeights<T>& w, const ForwardRows<T>& rows,
              int64_t r, int64_t unit, Compute<T>* c_state, int64_t padded) {
  const int64_t hidden = a.shape.hidden, input = a.shape.input;
  const int64_t units = smaller(kLanes<T>, hidden - unit);
  Vec<T> z[M][4];
  for (int gate = 0; gate < 4; ++gate) {
    const int64_t row = gate * hidden + unit;
    Vec<T> sums[M][kLanes<T>] = {};
    add_products<M>(sums, w.ih + row * input, input, units, rows.x() + r);
    add_products<M>(sums, w.hh + row * hidden, hidden, units, rows.h_before() + r);
    for (int m = 0; m < M; ++m) {
      z[m][gate] = sum_lanes(sums[m]);
      add_bias(z[m][gate], w.b_ih, row, units);
      add_bias(z[m][gate], w.b_hh, row, units);
    }
  }
  for (int m = 0; m < M; ++m)
    finish_cell(a, rows, r + m, unit, {z[m][0], z[m][1], z[m][2], z[m][3]},
                c_state + (r + m) * padded + unit);
}

// Not with a window: the backward computes its steps again with packed weights, and must get the
// same results.
template <typename T>
bool are_few_steps(const LstmForward<T>& a) {
  return a.shape.steps * a.shape.batch <= kFewSteps && a.window == 0;
}

template <typename T>
void forward_few_steps(const LstmForward<T>& a, const Parallel& parallel) {
  const LayerShape& shape = a.shape;
  const int64_t blocks = divide_up(shape.hidden, kLanes<T>), padded = blocks * kLanes<T>;
  const int64_t work = shape.batch * 4 * shape.hidden * (shape.hidden + shape.input);
  const int64_t tasks = work < kSerialWork ? 1 : smaller(parallel.threads, blocks);
  const ForwardLoop<T> loop = forward_loop<T>(a, nullptr);
  const ForwardRows<T> rows(shape.batch, false);
  Scratch<Compute<T>> c_state(shape.batch * padded);
  for (int64_t d = 0; d < shape.directions; ++d) {
    const Slice s{&shape, d, 0, 1, shape.batch};
    begin_forward(a, s, c_state.get(), padded);
    for_each_step(s, true, {0, shape.steps}, [&](int64_t m, int64_t t, int64_t alive) {
      rows.set(loop, s, shape.steps - 1 - m, t, alive);
      for_each_task(parallel, tasks, [&](int64_t task) {
        for (int64_t block = blocks * task / tasks; block < blocks * (task + 1) / tasks; ++block)
          for_row_groups<kRowsOfBatch>(alive, [&](int64_t r, auto count) {
            few_rows<decltype(count)::value>(loop, a.weights[d], rows, r, block * kLanes<T>,
                                             c_state.get(), padded);
          });
      });
    });
    end_forward(a, s, c_state.get(), padded);
  }
}

}  // namespace
}  // namespace ganlstm

// LSTM forward on the CPU: input and recurrent products, gates and state in one time loop.
#include "../common/scratch.h"
#include "../common/simd.h"
// (simd.h comes first: its vector overloads are what cell.h calls.)
#include "cell.h"
#include "lstm.h"
#include "products.h"
#include "slices.h"

namespace ganlstm {
namespace {

template <typename T>
struct ForwardRows {
  const T** x;
  const T** h;
  T** y;
  T** gates;
  T** c;
};

template <int M, typename T>
GANLSTM_INLINE void forward_block(const LstmForward<T>& a, int64_t block, const ForwardRows<T>& row,
                                  int64_t r, const T* w_hh, const T* w_ih, const T* bias,
                                  T* c_state, int64_t padded) {
  const int64_t hidden = a.shape.hidden, unit = block * kLanes<T>, valid = hidden - unit;
  Vec<T> z[M][kColumns];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < kColumns; ++n) z[m][n] = load(bias + n * kLanes<T>);
  multiply(z, row.h + r, hidden, w_hh);
  multiply(z, row.x + r, a.shape.input, w_ih);
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    T* state = c_state + (r + m) * padded + unit;
    Vec<T> c, h;
    const Gates<Vec<T>> gates =
        cell_forward(Gates<Vec<T>>{z[m][0], z[m][1], z[m][2], z[m][3]}, load(state), c, h);
    store(state, c);
    store_n(row.y[r + m] + unit, h, valid);
    if (a.gates != nullptr) {
      T* to = row.gates[r + m] + unit;
      store_n(to, gates.i, valid);
      store_n(to + hidden, gates.f, valid);
      store_n(to + 2 * hidden, gates.g, valid);
      store_n(to + 3 * hidden, gates.o, valid);
      store_n(row.c[r + m] + unit, c, valid);
    }
  }
}

template <typename T>
void forward_slice(const LstmForward<T>& a, const Slice& s, const GatePack<T>& pack,
                   const T* weights, const T* bias) {
  const LstmShape& shape = a.shape;
  const int64_t hidden = shape.hidden, padded = pack.blocks * kLanes<T>;
  Scratch<T> c_state(s.count * padded);
  Scratch<const T*> inputs(2 * s.count);
  Scratch<T*> outputs(3 * s.count);
  const ForwardRows<T> row{inputs.get(), inputs.get() + s.count, outputs.get(),
                           outputs.get() + s.count, outputs.get() + 2 * s.count};
  load_state(s, a.c0, c_state.get(), padded);
  zero_after_end(s, a.y, hidden);
  zero_after_end(s, a.gates, 4 * hidden);
  zero_after_end(s, a.c, hidden);

  for_each_step(s, true, {0, shape.steps}, [&](int64_t, int64_t t, int64_t alive) {
    for (int64_t j = 0; j < alive; ++j) {
      const int64_t b = s.row(j), before = s.before(t, b);
      row.x[j] = a.x + (t * shape.batch + b) * shape.input;
      row.h[j] = before < 0 ? a.h0 + s.initial(b, hidden) : a.y + s.at(before, b, hidden);
      row.y[j] = a.y + s.at(t, b, hidden);
      row.gates[j] = a.gates == nullptr ? nullptr : a.gates + s.at(t, b, 4 * hidden);
      row.c[j] = a.gates == nullptr ? nullptr : a.c + s.at(t, b, hidden);
    }
    for (int64_t block = 0; block < pack.blocks; ++block)
      for_row_groups(alive, [&](int64_t r, auto m) {
        forward_block<decltype(m)::value>(a, block, row, r, weights + pack.hh(block),
                                          weights + pack.ih(block), bias + block * pack.width,
                                          c_state.get(), padded);
      });
  });

  store_last(s, a.y, a.h_last);
  store_state(s, c_state.get(), padded, a.c_last);
}

template <typename T>
void run_forward(const LstmForward<T>& a, const Parallel& parallel) {
  const LstmShape& shape = a.shape;
  if (shape.batch == 0) return;
  const GatePack<T> pack(shape);
  Scratch<T> weights(shape.directions * pack.weight_size());
  Scratch<T> bias(shape.directions * pack.bias_size());
  auto pack_task = [&](int64_t task) {
    const int64_t direction = task / pack.blocks;
    pack.pack(shape, a.weights[direction], task % pack.blocks,
              weights.get() + direction * pack.weight_size(),
              bias.get() + direction * pack.bias_size());
  };
  for_each_task(parallel, shape.directions * pack.blocks, pack_task);
  const Slicing slices(shape, parallel);
  auto slice_task = [&](int64_t task) {
    const Slice s = slices[task];
    forward_slice(a, s, pack, weights.get() + s.direction * pack.weight_size(),
                  bias.get() + s.direction * pack.bias_size());
  };
  for_each_task(parallel, slices.tasks(), slice_task);
}

}  // namespace

namespace GANLSTM_ISA {
void lstm_forward(const LstmForward<float>& args, const Parallel& parallel) {
  run_forward(args, parallel);
}
void lstm_forward(const LstmForward<double>& args, const Parallel& parallel) {
  run_forward(args, parallel);
}
}  // namespace GANLSTM_ISA
}  // namespace ganlstm

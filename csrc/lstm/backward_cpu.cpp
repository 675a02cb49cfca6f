// LSTM backward on the CPU: one loop against time for dz, dx and the initial state's gradients,
// then one product for the weights' gradients.
#include "../common/scratch.h"
#include "../common/simd.h"
// (simd.h comes first: its vector overloads are what cell.h calls.)
#include "cell.h"
#include "input_gradient.h"
#include "lstm.h"
#include "products.h"
#include "slices.h"
#include "weight_gradient.h"

namespace ganlstm {
namespace {

// dz and d of row j at step t; e and n come in from the step after it and e leaves for the one
// before.
template <typename T>
GANLSTM_INLINE void backward_row(const LstmBackward<T>& a, const Slice& s, int64_t t, int64_t b,
                                 T* dz, T* e_state, const T* n_state) {
  const int64_t hidden = a.shape.hidden, before = s.before(t, b);
  const T* gates = a.gates + s.at(t, b, 4 * hidden);
  const T* c = a.c + s.at(t, b, hidden);
  const T* c_prev = before < 0 ? a.c0 + s.initial(b, hidden) : a.c + s.at(before, b, hidden);
  const T* grad_y = a.grad_y == nullptr ? nullptr : a.grad_y + s.at(t, b, hidden);
  T* d_out = a.d == nullptr ? nullptr : a.d + s.at(t, b, hidden);
  for (int64_t unit = 0; unit < hidden; unit += kLanes<T>) {
    const int64_t valid = hidden - unit;
    const Gates<Vec<T>> g{load_n(gates + unit, valid), load_n(gates + hidden + unit, valid),
                          load_n(gates + 2 * hidden + unit, valid),
                          load_n(gates + 3 * hidden + unit, valid)};
    Vec<T> d = load(n_state + unit), e = load(e_state + unit);
    if (grad_y != nullptr) d += load_n(grad_y + unit, valid);
    const Vec<T> tau = tanh_(load_n(c + unit, valid));
    const Gates<Vec<T>> z = cell_backward(g, load_n(c_prev + unit, valid), tau, d, e);
    store(e_state + unit, e);
    store_n(dz + unit, z.i, valid);
    store_n(dz + hidden + unit, z.f, valid);
    store_n(dz + 2 * hidden + unit, z.g, valid);
    store_n(dz + 3 * hidden + unit, z.o, valid);
    if (d_out != nullptr) store_n(d_out + unit, d, valid);
  }
}

// dz: [T,B,D,4H], or null where the steps need not be kept.
template <typename T>
void backward_slice(const LstmBackward<T>& a, const Slice& s, const ColumnPack<T>& pack,
                    const T* weights, T* dz, T* grad_x) {
  const LstmShape& shape = a.shape;
  const int64_t hidden = shape.hidden, padded = pack.hidden_vectors * kLanes<T>;
  Scratch<T> states(2 * s.count * padded);
  T *e = states.get(), *n = e + s.count * padded;
  Scratch<T> step_dz(dz == nullptr ? s.count * 4 * hidden : 0);
  Scratch<const T*> dz_rows(s.count);
  Scratch<T*> x_rows(s.count);
  load_state(s, a.grad_c_last, e, padded);
  load_state(s, a.grad_h_last, n, padded);
  zero_after_end(s, dz, 4 * hidden);
  zero_after_end(s, a.d, hidden);

  for_each_step(s, false, [&](int64_t t, int64_t alive) {
    for (int64_t j = 0; j < alive; ++j) {
      const int64_t b = s.row(j);
      T* row = dz == nullptr ? step_dz.get() + j * 4 * hidden : dz + s.at(t, b, 4 * hidden);
      backward_row(a, s, t, b, row, e + j * padded, n + j * padded);
      dz_rows.get()[j] = row;
      x_rows.get()[j] = grad_x == nullptr ? nullptr : grad_x + (t * shape.batch + b) * shape.input;
    }
    multiply_columns<T>(pack, alive, dz_rows.get(), weights, dz_rows.get(), nullptr, n, padded,
                        x_rows.get());
  });

  store_state(s, n, padded, a.grad_h0);
  store_state(s, e, padded, a.grad_c0);
}

template <typename T>
void run_backward(const LstmBackward<T>& a, const Parallel& parallel) {
  const LstmShape& shape = a.shape;
  const bool weights_wanted = a.grad_weights[0].hh != nullptr || a.grad_weights[0].ih != nullptr ||
                              a.grad_weights[0].b_ih != nullptr;
  const int64_t states = shape.steps * shape.batch * shape.directions;
  Scratch<T> own_dz(weights_wanted && a.dz == nullptr ? states * 4 * shape.hidden : 0);
  T* dz = a.dz != nullptr ? a.dz : own_dz.get();
  if (shape.batch > 0) {
    const ColumnPack<T> pack(shape, a.grad_x != nullptr);
    Scratch<T> weights(shape.directions * pack.size());
    auto pack_task = [&](int64_t task) {
      const int64_t direction = task / pack.blocks();
      pack.pack(a.weights[direction], task % pack.blocks(),
                weights.get() + direction * pack.size());
    };
    for_each_task(parallel, shape.directions * pack.blocks(), pack_task);
    const Slicing slices(shape, parallel);
    InputGradient<T> grad_x(shape, a.grad_x);
    auto slice_task = [&](int64_t task) {
      const Slice s = slices[task];
      backward_slice(a, s, pack, weights.get() + s.direction * pack.size(), dz, grad_x.of(s));
    };
    for_each_task(parallel, slices.tasks(), slice_task);
    grad_x.add_directions(parallel);
  }
  const GradientSource<T> source{dz, a.y, a.h0, a.x};
  weight_gradient(shape, &source, 1, a.grad_weights, parallel);
}

}  // namespace

namespace GANLSTM_ISA {
void lstm_backward(const LstmBackward<float>& args, const Parallel& parallel) {
  run_backward(args, parallel);
}
void lstm_backward(const LstmBackward<double>& args, const Parallel& parallel) {
  run_backward(args, parallel);
}
}  // namespace GANLSTM_ISA
}  // namespace ganlstm

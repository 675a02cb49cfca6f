// LSTM double backward on the CPU: the tangent of the forward in a loop along time, the tangent of
// the backward in a loop against it, then one product for the weights.
#include "../common/scratch.h"
#include "../common/simd.h"
// (simd.h comes first: its vector overloads are what cell.h calls.)
#include "cell.h"
#include "input_gradient.h"
#include "instruction_sets.h"
#include "lstm.h"
#include "products.h"
#include "slices.h"
#include "weight_gradient.h"

namespace ganlstm {
namespace {

// A weight matrix is read only where its cotangent came.
template <typename T>
struct Cotangents {
  bool hh, ih, bias, any;

  explicit Cotangents(const LstmWeights<T>& v)
      : hh(v.hh != nullptr),
        ih(v.ih != nullptr),
        bias(v.b_ih != nullptr || v.b_hh != nullptr),
        any(hh || ih || bias) {}
};

template <typename T>
struct TangentBuffers {
  Compute<T>* gates;  // [T,B,D,4H] tangents of the gates
  Compute<T>* c;      // [T,B,D,H] tangents of c_t
  StepRows<T> dz_;    // of rows of 4H: may be in the place of the gates' tangents
};

template <typename T>
struct TangentRows {
  const T** h_;  // tangents of h_{t-1}, of x_t
  const T** x_;
  const T** h;
  const T** x;
};

template <typename T>
struct Packs {
  GatePack<T> gates;
  ColumnPack<T> columns;
  const T* gate_weights;          // of the weights, for each direction
  const T* gate_v_weights;        // of their cotangents, or null
  const Compute<T>* gate_v_bias;  // cotangents of the biases: zeros where there are none
  const T* column_weights;
  const T* column_v_weights;  // or null
};

template <typename T>
struct InitialStates {
  const Compute<T>* c0;    // [D,B,H]
  const Compute<T>* v_c0;  // [D,B,H]
  const T* zeros;          // [H]
};

// One row's gates, states and tangents at step t and the step before it.
template <typename T>
struct RowPointers {
  const Compute<T>*gates, *c, *c_prev, *c_prev_;
  Compute<T>*gates_, *c_;
  T* h_;

  RowPointers(const LstmDoubleBackward<T>& a, const Slice& s, const TangentBuffers<T>& tangent,
              int64_t t, int64_t b, const InitialStates<T>& initial) {
    const int64_t hidden = a.shape.hidden, before = s.before(t, b), now = s.at(t, b, hidden);
    gates = a.gates + 4 * now;
    c = a.c + now;
    gates_ = tangent.gates + 4 * now;
    c_ = tangent.c + now;
    h_ = a.g_grad_y + now;
    if (before >= 0) {
      c_prev = a.c + s.at(before, b, hidden);
      c_prev_ = tangent.c + s.at(before, b, hidden);
    } else {
      c_prev = initial.c0 + s.initial(b, hidden);
      c_prev_ = initial.v_c0 + s.initial(b, hidden);
    }
  }
};

template <typename T>
GANLSTM_INLINE Gates<Vec<T>> load_gates(const T* p, int64_t hidden, int64_t valid) {
  return {load_n(p, valid), load_n(p + hidden, valid), load_n(p + 2 * hidden, valid),
          load_n(p + 3 * hidden, valid)};
}

template <typename T>
GANLSTM_INLINE void store_gates(T* p, int64_t hidden, const Gates<Vec<T>>& g, int64_t valid) {
  store_n(p, g.i, valid);
  store_n(p + hidden, g.f, valid);
  store_n(p + 2 * hidden, g.g, valid);
  store_n(p + 3 * hidden, g.o, valid);
}

template <int M, typename T>
GANLSTM_INLINE void tangent_block(const LstmDoubleBackward<T>& a, const Packs<T>& packs,
                                  const Cotangents<T>& came, int64_t block,
                                  const TangentRows<T>& rows, const RowPointers<T>* row,
                                  int64_t r) {
  const int64_t hidden = a.shape.hidden, input = a.shape.input;
  const int64_t unit = block * kLanes<T>, valid = hidden - unit;
  const Compute<T>* bias = packs.gate_v_bias + block * packs.gates.width;
  Vec<T> z[M][kColumns];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < kColumns; ++n) z[m][n] = load(bias + n * kLanes<T>);
  multiply(z, rows.h_ + r, hidden, packs.gate_weights + packs.gates.hh(block));
  if (a.v_x != nullptr) multiply(z, rows.x_ + r, input, packs.gate_weights + packs.gates.ih(block));
  if (came.hh) multiply(z, rows.h + r, hidden, packs.gate_v_weights + packs.gates.hh(block));
  if (came.ih) multiply(z, rows.x + r, input, packs.gate_v_weights + packs.gates.ih(block));
  for (int m = 0; m < M; ++m) {
    const RowPointers<T>& p = row[r + m];
    Vec<T> c_, h_;
    const Gates<Vec<T>> gates_ = cell_forward_tangent(
        load_gates(p.gates + unit, hidden, valid),
        Gates<Vec<T>>{z[m][0], z[m][1], z[m][2], z[m][3]}, load_n(p.c_prev + unit, valid),
        load_n(p.c_prev_ + unit, valid), tanh_(load_n(p.c + unit, valid)), c_, h_);
    store_gates(p.gates_ + unit, hidden, gates_, valid);
    store_n(p.c_ + unit, c_, valid);
    store_n(p.h_ + unit, h_, valid);
  }
}

template <typename T>
struct SliceState {
  Scratch<RowPointers<T>> rows;
  Scratch<const T*> pointers;
  Scratch<T*> g_x;
  InitialStates<T> initial;
};

template <typename T>
void tangent_forward(const LstmDoubleBackward<T>& a, const Slice& s, const Packs<T>& packs,
                     const TangentBuffers<T>& tangent, const SliceState<T>& state) {
  const LstmShape& shape = a.shape;
  const int64_t hidden = shape.hidden;
  const Cotangents<T> came(a.v_weights[s.direction]);
  const T** memory = state.pointers.get();
  const TangentRows<T> rows{memory, memory + s.count, memory + 2 * s.count, memory + 3 * s.count};
  zero_after_end(s, a.g_grad_y, hidden);
  for_each_step(s, true, {0, shape.steps}, [&](int64_t, int64_t t, int64_t alive) {
    for (int64_t j = 0; j < alive; ++j) {
      const int64_t b = s.row(j), before = s.before(t, b);
      const int64_t x = (t * shape.batch + b) * shape.input;
      state.rows.get()[j] = RowPointers<T>(a, s, tangent, t, b, state.initial);
      if (before >= 0) {
        rows.h_[j] = a.g_grad_y + s.at(before, b, hidden);
        rows.h[j] = a.y + s.at(before, b, hidden);
      } else {
        rows.h_[j] = a.v_h0 == nullptr ? state.initial.zeros : a.v_h0 + s.initial(b, hidden);
        rows.h[j] = a.h0 + s.initial(b, hidden);
      }
      rows.x_[j] = a.v_x == nullptr ? nullptr : a.v_x + x;
      rows.x[j] = a.x + x;
    }
    for (int64_t block = 0; block < packs.gates.blocks; ++block)
      for_row_groups(alive, [&](int64_t r, auto m) {
        tangent_block<decltype(m)::value>(a, packs, came, block, rows, state.rows.get(), r);
      });
  });
  store_last(s, a.g_grad_y, a.g_grad_h_last);
  store_last(s, tangent.c, a.g_grad_c_last);
}

template <typename T>
void tangent_backward(const LstmDoubleBackward<T>& a, const Slice& s, const Packs<T>& packs,
                      const TangentBuffers<T>& tangent, const SliceState<T>& state, Range range,
                      Compute<T>* carried, T* g_x) {
  const LstmShape& shape = a.shape;
  const int64_t hidden = shape.hidden, padded = packs.columns.hidden_vectors * kLanes<T>;
  Compute<T>*e = carried, *e_ = e + s.count * padded, *d_ = e_ + s.count * padded;
  if (range.begin == 0) {
    load_state<T>(s, a.grad_c_last, e, padded);
    load_state<T>(s, nullptr, e_, padded);
    load_state<T>(s, nullptr, d_, padded);
  }
  const T **dz_rows_ = state.pointers.get(), **dz_rows = dz_rows_ + s.count;

  for_each_step(s, false, range, [&](int64_t n, int64_t t, int64_t alive) {
    for (int64_t j = 0; j < alive; ++j) {
      const int64_t b = s.row(j);
      const RowPointers<T> p(a, s, tangent, t, b, state.initial);
      T* row = tangent.dz_.row(s, n, t, b, 4 * hidden);
      const Compute<T>* d = a.d + s.at(t, b, hidden);
      for (int64_t unit = 0; unit < hidden; unit += kLanes<T>) {
        const int64_t valid = hidden - unit, at = j * padded + unit;
        Vec<T> e_now = load(e + at), e_now_ = load(e_ + at);
        const Gates<Vec<T>> dz_ = cell_backward_tangent(
            load_gates(p.gates + unit, hidden, valid), load_gates(p.gates_ + unit, hidden, valid),
            load_n(p.c_prev + unit, valid), load_n(p.c_prev_ + unit, valid),
            load_n(p.c_ + unit, valid), tanh_(load_n(p.c + unit, valid)), load_n(d + unit, valid),
            load(d_ + at), e_now, e_now_);
        store(e + at, e_now);
        store(e_ + at, e_now_);
        store_gates(row + unit, hidden, dz_, valid);
      }
      dz_rows_[j] = row;
      dz_rows[j] = a.dz + s.at(t, b, 4 * hidden);
      state.g_x.get()[j] = g_x == nullptr ? nullptr : g_x + (t * shape.batch + b) * shape.input;
    }
    multiply_columns<T>(packs.columns, alive, dz_rows_, packs.column_weights, dz_rows,
                        packs.column_v_weights, d_, padded, state.g_x.get());
  });
  if (range.end < shape.steps) return;
  store_state(s, d_, padded, a.g_h0);
  store_state(s, e_, padded, a.g_c0);
}

template <typename T>
void run_double_backward(const LstmDoubleBackward<T>& a, const Parallel& parallel) {
  const LstmShape& shape = a.shape;
  const int64_t D = shape.directions, states = shape.steps * shape.batch * D;
  const Slicing slices(shape, parallel);
  const WeightGradient<T> gradient(shape, a.g_weights, slices, parallel);
  Scratch<Compute<T>> tangent_memory(states * 5 * shape.hidden);
  TangentBuffers<T> tangent{
      tangent_memory.get(), tangent_memory.get() + states * 4 * shape.hidden, {nullptr, 0}};
  Scratch<T> own_dz_(0);
  if constexpr (std::is_same_v<T, Compute<T>>) {
    tangent.dz_.data = tangent.gates;
  } else {
    tangent.dz_.window = gradient.wanted() ? gradient.part() : 1;
    own_dz_.resize(tangent.dz_.window * shape.batch * D * 4 * shape.hidden);
    tangent.dz_.data = own_dz_.get();
  }
  Scratch<T> zeros(shape.hidden);
  memset(zeros.get(), 0, size_t(shape.hidden) * sizeof(T));
  const ComputeState<T> c0(shape, a.c0), v_c0(shape, a.v_c0);
  if (shape.batch > 0) {
    const GatePack<T> gates(shape);
    const ColumnPack<T> columns(shape, a.g_x != nullptr);
    bool cotangents = false, matrices = false;
    for (int64_t direction = 0; direction < D; ++direction) {
      const Cotangents<T> came(a.v_weights[direction]);
      cotangents |= came.any;
      matrices |= came.hh || came.ih;
    }
    const int64_t gate_size = gates.weight_size(), column_size = columns.size();
    Scratch<T> gate_weights(D * gate_size), gate_v_weights(cotangents ? D * gate_size : 0);
    Scratch<Compute<T>> gate_bias(D * gates.bias_size()), gate_v_bias(D * gates.bias_size());
    Scratch<T> column_weights(D * column_size), column_v_weights(matrices ? D * column_size : 0);
    const int64_t of_gates = D * gates.blocks, of_columns = D * columns.blocks();
    auto pack_task = [&](int64_t task) {
      if (task < of_gates) {
        const int64_t direction = task / gates.blocks, block = task % gates.blocks;
        const int64_t bias = direction * gates.bias_size();
        gates.pack(shape, a.weights[direction], block, gate_weights.get() + direction * gate_size,
                   gate_bias.get() + bias);
        gates.pack(shape, a.v_weights[direction], block,
                   gate_v_weights.get() + direction * gate_size, gate_v_bias.get() + bias);
      } else {
        const int64_t direction = (task - of_gates) / columns.blocks();
        const int64_t block = (task - of_gates) % columns.blocks();
        columns.pack(a.weights[direction], block, column_weights.get() + direction * column_size);
        if (matrices)
          columns.pack(a.v_weights[direction], block,
                       column_v_weights.get() + direction * column_size);
      }
    };
    for_each_pack(parallel, D * (gate_size + column_size), of_gates + of_columns, pack_task);

    InputGradient<T> g_x(shape, a.g_x);
    const int64_t padded = columns.hidden_vectors * kLanes<T>;
    const int64_t carried_size = 3 * slices.most_rows() * padded;
    Scratch<Compute<T>> carried(slices.tasks() * carried_size);
    auto walk = [&](int64_t task, Range range) {
      const Slice s = slices[task];
      const int64_t d = s.direction;
      const Packs<T> packs{gates,
                           columns,
                           gate_weights.get() + d * gate_size,
                           gate_v_weights.get() + (cotangents ? d * gate_size : 0),
                           gate_v_bias.get() + d * gates.bias_size(),
                           column_weights.get() + d * column_size,
                           matrices ? column_v_weights.get() + d * column_size : nullptr};
      const SliceState<T> state{Scratch<RowPointers<T>>(s.count),
                                Scratch<const T*>(4 * s.count),
                                Scratch<T*>(s.count),
                                {c0.get(), v_c0.get(), zeros.get()}};
      if (range.begin == 0) tangent_forward(a, s, packs, tangent, state);
      tangent_backward(a, s, packs, tangent, state, range, carried.get() + task * carried_size,
                       range.begin == 0 ? g_x.zeroed(s) : g_x.of(d));
    };
    gradient.walk_and_add(walk, [&](Range range, auto add) {
      add({{tangent.dz_.data, tangent.dz_.window}, a.y, a.h0, a.x, range}, true);
      add({{a.dz, 0}, a.g_grad_y, a.v_h0, a.v_x, range}, false);
    });
    g_x.add_directions(parallel);
  }
  gradient.finish();
}

}  // namespace

GANLSTM_DEFINE(lstm_double_backward, LstmDoubleBackward, run_double_backward)
}  // namespace ganlstm

// LSTM double backward on the CPU: the tangent of the forward in a loop along time, the tangent of
// the backward in a loop against it, then one product for the weights.
#include "hidden_split.h"
#include "input_gradient.h"
#include "lstm_forward_steps.h"
#include "lstm_on_isa.h"
#include "weight_gradient.h"

namespace ganlstm {
namespace {

// A weight matrix is read only where its cotangent came.
template <typename T>
struct Cotangents {
  bool hh, ih, bias, any;

  explicit Cotangents(const LayerWeights<T>& v)
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

// The weights and their cotangents.
template <typename T>
struct Packs {
  const ForwardWeights<T>&gates, &v_gates;
  const ColumnPack<T>& columns;
  const ColumnWeights<T>&column_weights, &column_v_weights;
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

template <int M, typename T>
GANLSTM_INLINE void tangent_block(const LstmDoubleBackward<T>& a, const Packs<T>& packs,
                                  const Cotangents<T>& came, int64_t direction, int64_t block,
                                  const TangentRows<T>& rows, const RowPointers<T>* row,
                                  int64_t r) {
  const int64_t hidden = a.shape.hidden, input = a.shape.input;
  const int64_t unit = block * kLanes<T>, valid = hidden - unit;
  Vec<T> z[M][kColumns] = {};
  if (came.bias) {
    const Compute<T>* bias = packs.v_gates.bias(direction, block);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int n = 0; n < kColumns; ++n) z[m][n] = load(bias + n * kLanes<T>);
  }
  // Up to four products add to the same sums, which would make one long chain.
  const int64_t longest = kChain<M>;
  multiply(z, rows.h_ + r, hidden, packs.gates.hh(direction, block), longest);
  if (a.v_x != nullptr) multiply(z, rows.x_ + r, input, packs.gates.ih(direction, block), longest);
  if (came.hh) multiply(z, rows.h + r, hidden, packs.v_gates.hh(direction, block), longest);
  if (came.ih) multiply(z, rows.x + r, input, packs.v_gates.ih(direction, block), longest);
  for (int m = 0; m < M; ++m) {
    const RowPointers<T>& p = row[r + m];
    Vec<T> c_, h_;
    const Gates<Vec<T>> gates_ = cell_forward_tangent(
        load_slots<Gates>(p.gates + unit, hidden, valid),
        Gates<Vec<T>>{z[m][0], z[m][1], z[m][2], z[m][3]}, load_n(p.c_prev + unit, valid),
        load_n(p.c_prev_ + unit, valid), tanh_(load_n(p.c + unit, valid)), c_, h_);
    store_slots(p.gates_ + unit, hidden, gates_, valid);
    store_n(p.c_ + unit, c_, valid);
    store_n(p.h_ + unit, h_, valid);
  }
}

template <typename T>
struct SliceState {
  Scratch<RowPointers<T>> rows;
  Scratch<const T*> pointers;
  Scratch<T*> g_x;
  const InitialStates<T>& initial;
  int64_t padded;
  Compute<T>*e, *e_, *d_;  // [rows,padded] what a walk against time carries

  SliceState(const Slice& s, const InitialStates<T>& initial, int64_t padded, Compute<T>* carried)
      : rows(s.count),
        pointers(4 * s.count),
        g_x(s.count),
        initial(initial),
        padded(padded),
        e(carried),
        e_(e + s.count * padded),
        d_(e_ + s.count * padded) {}
};

// All steps, of the hidden units in `blocks`; after_step() is called after each.
template <typename T, typename F>
void tangent_forward(const LstmDoubleBackward<T>& a, const Slice& s, const Packs<T>& packs,
                     const TangentBuffers<T>& tangent, const SliceState<T>& state, Range blocks,
                     F after_step) {
  const LayerShape& shape = a.shape;
  const int64_t hidden = shape.hidden;
  const Cotangents<T> came(a.v_weights[s.direction]);
  const T** memory = state.pointers.get();
  const TangentRows<T> rows{memory, memory + s.count, memory + 2 * s.count, memory + 3 * s.count};
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
    for (int64_t block = blocks.begin; block < blocks.end; ++block)
      for_row_groups(alive, [&](int64_t r, auto m) {
        tangent_block<decltype(m)::value>(a, packs, came, s.direction, block, rows,
                                          state.rows.get(), r);
      });
    after_step();
  });
}

// Walks steps of a slice against time, for the units and inputs of the columns' pack. Calls made()
// in each step after it has written dz_ of these units and before it reads dz_ of all units.
template <typename T, typename F>
void tangent_backward(const LstmDoubleBackward<T>& a, const Slice& s, const Packs<T>& packs,
                      const TangentBuffers<T>& tangent, const SliceState<T>& state, Range range,
                      T* g_x, F made) {
  const LayerShape& shape = a.shape;
  const int64_t hidden = shape.hidden;
  const Range units = packs.columns.units;
  const T **dz_rows_ = state.pointers.get(), **dz_rows = dz_rows_ + s.count;
  for_each_step(s, false, range, [&](int64_t n, int64_t t, int64_t alive) {
    for (int64_t j = 0; j < alive; ++j) {
      const int64_t b = s.row(j);
      const RowPointers<T> p(a, s, tangent, t, b, state.initial);
      T* row = tangent.dz_.row(s, n, t, b, 4 * hidden);
      const Compute<T>* d = a.d + s.at(t, b, hidden);
      for (int64_t unit = units.begin; unit < units.end; unit += kLanes<T>) {
        const int64_t valid = hidden - unit, at = j * state.padded + unit;
        Vec<T> e_now = load(state.e + at), e_now_ = load(state.e_ + at);
        const Gates<Vec<T>> dz_ =
            cell_backward_tangent(load_slots<Gates>(p.gates + unit, hidden, valid),
                                  load_slots<Gates>(p.gates_ + unit, hidden, valid),
                                  load_n(p.c_prev + unit, valid), load_n(p.c_prev_ + unit, valid),
                                  load_n(p.c_ + unit, valid), tanh_(load_n(p.c + unit, valid)),
                                  load_n(d + unit, valid), load(state.d_ + at), e_now, e_now_);
        store(state.e + at, e_now);
        store(state.e_ + at, e_now_);
        store_slots(row + unit, hidden, dz_, valid);
      }
      dz_rows_[j] = row;
      dz_rows[j] = a.dz + s.at(t, b, 4 * hidden);
      state.g_x.get()[j] = g_x == nullptr ? nullptr : g_x + (t * shape.batch + b) * shape.input;
    }
    made();
    multiply_columns<T>(packs.columns, alive, dz_rows_, packs.column_weights.of(s.direction),
                        dz_rows, packs.column_v_weights.of(s.direction), state.d_, state.padded,
                        state.g_x.get());
  });
}

// Called before and after the walk of a slice.
template <typename T>
void begin_tangent(const LstmDoubleBackward<T>& a, const Slice& s, const SliceState<T>& state) {
  zero_after_end(s, a.g_grad_y, a.shape.hidden);
  load_state<T>(s, a.grad_c_last, state.e, state.padded);
  load_state<T>(s, nullptr, state.e_, state.padded);
  load_state<T>(s, nullptr, state.d_, state.padded);
}
template <typename T>
void end_tangent(const LstmDoubleBackward<T>& a, const Slice& s, const TangentBuffers<T>& tangent,
                 const SliceState<T>& state) {
  store_last(s, a.g_grad_y, a.g_grad_h_last);
  store_last(s, tangent.c, a.g_grad_c_last);
  store_state(s, state.d_, state.padded, a.g_h0);
  store_state(s, state.e_, state.padded, a.g_c0);
}

template <typename T>
void run_double_backward(const LstmDoubleBackward<T>& a, const Parallel& parallel) {
  const LayerShape& shape = a.shape;
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
    // Two at least: if threads share the units, one step is written while another is read.
    tangent.dz_.window = gradient.wanted() && gradient.part() > 1 ? gradient.part() : 2;
    own_dz_.resize(tangent.dz_.window * shape.batch * D * 4 * shape.hidden);
    tangent.dz_.data = own_dz_.get();
  }
  Scratch<T> zeros(shape.hidden);
  memset(zeros.get(), 0, size_t(shape.hidden) * sizeof(T));
  const ComputeState<T> c0(shape, a.c0), v_c0(shape, a.v_c0);
  if (shape.batch > 0) {
    bool cotangents = false, matrices = false;
    for (int64_t direction = 0; direction < D; ++direction) {
      const Cotangents<T> came(a.v_weights[direction]);
      cotangents |= came.any;
      matrices |= came.hh || came.ih;
    }
    const ForwardWeights<T> gates(shape, a.weights, true, parallel);
    const ForwardWeights<T> v_gates(shape, a.v_weights, cotangents, parallel);
    const InitialStates<T> initial{c0.get(), v_c0.get(), zeros.get()};
    const InputGradient<T> g_x(shape, a.g_x);
    const int64_t padded = gates.padded(), carried_size = 3 * slices.most_rows() * padded;
    Scratch<Compute<T>> carried(D * slices.per_direction * carried_size);
    const auto sources = [&](Range range, auto add) {
      add({{tangent.dz_.data, tangent.dz_.window}, a.y, a.h0, a.x, range}, true);
      add({{a.dz, 0}, a.g_grad_y, a.v_h0, a.v_x, range}, false);
    };
    const auto walk = [&](const Slice& s, Compute<T>* carried, const ColumnPack<T>& columns,
                          const ColumnWeights<T>& weights, const ColumnWeights<T>& v_weights,
                          Range range, Range blocks, auto wait) {
      const Packs<T> packs{gates, v_gates, columns, weights, v_weights};
      const SliceState<T> state(s, initial, padded, carried);
      if (range.begin == 0) tangent_forward(a, s, packs, tangent, state, blocks, wait);
      tangent_backward(a, s, packs, tangent, state, range, g_x.of(s.direction), wait);
    };
    const int64_t members = split_members(shape, gates.blocks(), slices, parallel);
    if (members > 1) {
      const auto slice = [&](int64_t d) { return Slice{&shape, d, 0, 1, shape.batch}; };
      const auto carried_of = [&](int64_t d) {
        return carried.get() + d * slices.per_direction * carried_size;
      };
      gradient.walk_all_and_add(
          [&](Range range) {
            for (int64_t d = 0; d < D && range.begin == 0; ++d) {
              begin_tangent(a, slice(d), {slice(d), initial, padded, carried_of(d)});
              g_x.zeroed(slice(d));
            }
            for_each_member(parallel, members, [&](const Member& member, auto wait) {
              const Parallel alone{1, nullptr};
              const ColumnPack<T> columns(shape, member.columns<T>(shape.hidden),
                                          member.columns<T>(a.g_x == nullptr ? 0 : shape.input));
              const ColumnWeights<T> weights(shape, a.weights, columns, true, alone);
              const ColumnWeights<T> v_weights(shape, a.v_weights, columns, matrices, alone);
              for (int64_t d = 0; d < D; ++d)
                walk(slice(d), carried_of(d), columns, weights, v_weights, range,
                     member.share(gates.blocks()), wait);
            });
            for (int64_t d = 0; d < D && range.end == shape.steps; ++d)
              end_tangent(a, slice(d), tangent, {slice(d), initial, padded, carried_of(d)});
          },
          sources);
    } else {
      const ColumnPack<T> columns(shape, a.g_x != nullptr);
      const ColumnWeights<T> weights(shape, a.weights, columns, true, parallel);
      const ColumnWeights<T> v_weights(shape, a.v_weights, columns, matrices, parallel);
      gradient.walk_and_add(
          [&](int64_t task, Range range) {
            const Slice s = slices[task];
            Compute<T>* own = carried.get() + task * carried_size;
            if (range.begin == 0) {
              begin_tangent(a, s, {s, initial, padded, own});
              g_x.zeroed(s);
            }
            walk(s, own, columns, weights, v_weights, range, {0, gates.blocks()}, [] {});
            if (range.end == shape.steps) end_tangent(a, s, tangent, {s, initial, padded, own});
          },
          sources);
    }
    g_x.add_directions(parallel);
  }
  gradient.finish();
}

}  // namespace

#define GANLSTM_DEFINE(T)                                               \
  template <>                                                           \
  void lstm_double_backward_on<kIsa>(const LstmDoubleBackward<T>& args, \
                                     const Parallel& parallel) {        \
    run_double_backward(args, parallel);                                \
  }
GANLSTM_FOR_PRODUCT_TYPES(GANLSTM_DEFINE)

}  // namespace ganlstm

// LSTM backward on the CPU: one loop against time for dz, dx and the initial state's gradients,
// then one product for the weights' gradients.
#include "hidden_split.h"
#include "input_gradient.h"
#include "lstm_on_isa.h"
#include "lstm_saved_steps.h"
#include "weight_gradient.h"

namespace ganlstm {
namespace {

// Computes dz and d of some units of row b at the walk's n-th step, whose time is t. e and n come
// from the step after t; e is then updated for the step before.
template <typename T>
GANLSTM_INLINE void backward_row(const LstmBackward<T>& a, const SavedSteps<T>& saved,
                                 const Slice& s, int64_t n, int64_t t, int64_t b, Range units,
                                 T* dz, Compute<T>* e_state, const Compute<T>* n_state) {
  const int64_t hidden = a.shape.hidden;
  const Compute<T>*gates = saved.gates(s, n, t, b), *c = saved.c(s, n, t, b);
  const Compute<T>* c_prev = saved.c_before(s, n, t, b);
  const T* grad_y = a.grad_y == nullptr ? nullptr : a.grad_y + s.at(t, b, hidden);
  Compute<T>* d_out = a.d == nullptr ? nullptr : a.d + s.at(t, b, hidden);
  for (int64_t unit = units.begin; unit < units.end; unit += kLanes<T>) {
    const int64_t valid = hidden - unit;
    // Not by load_slots and store_slots, with which GCC makes a longer loop of this for SSE2.
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

// What a slice carries from one part of the walk to the next.
template <typename T>
struct BackwardState {
  int64_t padded;  // of H, for each row
  Compute<T>* e;   // [rows,padded]
  Compute<T>* n;   // [rows,padded]
};

template <typename T>
void begin_backward(const LstmBackward<T>& a, const Slice& s, const BackwardState<T>& state) {
  load_state(s, a.grad_c_last, state.e, state.padded);
  load_state(s, a.grad_h_last, state.n, state.padded);
  zero_after_end(s, a.dz, 4 * a.shape.hidden);
  zero_after_end(s, a.d, a.shape.hidden);
}
template <typename T>
void end_backward(const LstmBackward<T>& a, const Slice& s, const BackwardState<T>& state) {
  store_state(s, state.n, state.padded, a.grad_h0);
  store_state(s, state.e, state.padded, a.grad_c0);
}

// Walks steps of a slice against time, for the units and inputs of a pack. Calls made() in each
// step after it has written dz of these units and before it reads dz of all units.
template <typename T, typename F>
void backward_steps(const LstmBackward<T>& a, const Slice& s, const ColumnPack<T>& pack,
                    const T* weights, const SavedSteps<T>& saved, const StepRows<T>& dz,
                    Range range, const BackwardState<T>& state, T* grad_x, F made) {
  const LayerShape& shape = a.shape;
  Scratch<const T*> dz_rows(s.count);
  Scratch<T*> x_rows(s.count);
  for (Range part, left = range; left.begin < left.end; left.begin = part.end) {
    part = saved.next(s, left);
    for_each_step(s, false, part, [&](int64_t n, int64_t t, int64_t alive) {
      for (int64_t j = 0; j < alive; ++j) {
        const int64_t b = s.row(j);
        T* row = dz.row(s, n, t, b, 4 * shape.hidden);
        backward_row(a, saved, s, n, t, b, pack.units, row, state.e + j * state.padded,
                     state.n + j * state.padded);
        dz_rows.get()[j] = row;
        x_rows.get()[j] =
            grad_x == nullptr ? nullptr : grad_x + (t * shape.batch + b) * shape.input;
      }
      made();
      multiply_columns<T>(pack, alive, dz_rows.get(), weights, dz_rows.get(), nullptr, state.n,
                          state.padded, x_rows.get());
    });
  }
}

// The steps `range` of all rows and directions, with the units shared out. dz has room for two
// steps at least: one is written while another is read.
template <typename T>
void backward_split(const LstmBackward<T>& a, const SavedSteps<T>& saved, const StepRows<T>& dz,
                    Range range, const BackwardState<T>& states, const InputGradient<T>& grad_x,
                    int64_t members, const Parallel& parallel) {
  const LayerShape& shape = a.shape;
  const int64_t size = shape.batch * states.padded;
  const auto slice = [&](int64_t d) { return Slice{&shape, d, 0, 1, shape.batch}; };
  const auto state = [&](int64_t d) {
    return BackwardState<T>{states.padded, states.e + 2 * d * size, states.e + (2 * d + 1) * size};
  };
  for (int64_t d = 0; d < shape.directions && range.begin == 0; ++d) {
    begin_backward(a, slice(d), state(d));
    grad_x.zeroed(slice(d));
  }
  for_each_member(parallel, members, [&](const Member& member, auto wait) {
    const ColumnPack<T> pack(shape, member.columns<T>(shape.hidden),
                             member.columns<T>(a.grad_x == nullptr ? 0 : shape.input));
    const ColumnWeights<T> weights(shape, a.weights, pack, true, Parallel{1, nullptr});
    for (int64_t d = 0; d < shape.directions; ++d)
      backward_steps(a, slice(d), pack, weights.of(d), saved, dz, range, state(d), grad_x.of(d),
                     wait);
  });
  for (int64_t d = 0; d < shape.directions && range.end == shape.steps; ++d)
    end_backward(a, slice(d), state(d));
}

template <typename T>
void run_backward(const LstmBackward<T>& a, const Parallel& parallel) {
  const LayerShape& shape = a.shape;
  const Slicing slices(shape, parallel);
  const WeightGradient<T> gradient(shape, a.grad_weights, slices, parallel);
  if (shape.batch > 0) {
    const int64_t vectors = divide_up(shape.hidden, kLanes<T>), padded = vectors * kLanes<T>;
    // With a window, slices compute the steps again.
    const int64_t members = a.window > 0 ? 1 : split_members(shape, vectors, slices, parallel);

    // If the caller does not keep dz, it is enough to hold a part of it, or one or two steps.
    const int64_t window = a.dz != nullptr ? 0 : gradient.wanted() ? gradient.part() : 1;
    const int64_t kept = window == 1 && members > 1 ? 2 : window;
    Scratch<T> own_dz(kept * shape.batch * shape.directions * 4 * shape.hidden);
    const StepRows<T> dz{a.dz != nullptr ? a.dz : own_dz.get(), kept};
    const SavedSteps<T> saved(a, parallel);
    InputGradient<T> grad_x(shape, a.grad_x);
    const auto sources = [&](Range range, auto add) {
      add({{dz.data, kept}, a.y, a.h0, a.x, range}, true);
    };
    const int64_t state_size = slices.most_rows() * padded;
    Scratch<Compute<T>> states(2 * shape.directions * slices.per_direction * state_size);
    if (members > 1) {
      const BackwardState<T> all{padded, states.get(), nullptr};
      const auto walk = [&](Range range) {
        backward_split(a, saved, dz, range, all, grad_x, members, parallel);
      };
      gradient.walk_all_and_add(walk, sources);
    } else {
      const ColumnPack<T> pack(shape, a.grad_x != nullptr);
      const ColumnWeights<T> weights(shape, a.weights, pack, true, parallel);
      const auto walk = [&](int64_t task, Range range) {
        const Slice s = slices[task];
        Compute<T>* e = states.get() + task * 2 * state_size;
        const BackwardState<T> state{padded, e, e + state_size};
        if (range.begin == 0) begin_backward(a, s, state);
        backward_steps(a, s, pack, weights.of(s.direction), saved, dz, range, state,
                       range.begin == 0 ? grad_x.zeroed(s) : grad_x.of(s.direction), [] {});
        if (range.end == shape.steps) end_backward(a, s, state);
      };
      gradient.walk_and_add(walk, sources);
    }
    grad_x.add_directions(parallel);
  }
  gradient.finish();
}

}  // namespace

#define GANLSTM_DEFINE(T)                                                              \
  template <>                                                                          \
  void lstm_backward_on<kIsa>(const LstmBackward<T>& args, const Parallel& parallel) { \
    run_backward(args, parallel);                                                      \
  }
GANLSTM_FOR_PRODUCT_TYPES(GANLSTM_DEFINE)

}  // namespace ganlstm

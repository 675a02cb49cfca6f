// LSTM forward on the CPU: input and recurrent products, gates and state in one time loop.
#include "hidden_split.h"
#include "lstm_few_steps.h"
#include "lstm_forward_steps.h"
#include "lstm_on_isa.h"

namespace ganlstm {
namespace {

template <typename T>
void forward_slice(const LstmForward<T>& a, const Slice& s, const ForwardWeights<T>& weights) {
  const ForwardLoop<T> loop = forward_loop(a, &weights);
  Scratch<Compute<T>> c_state(s.count * weights.padded());
  begin_forward(a, s, c_state.get(), weights.padded());
  for_each_window(a, s, {0, a.shape.steps}, {0, weights.blocks()}, c_state.get(), weights.padded(),
                  [&](Range part) { forward_steps(loop, s, part, c_state.get()); });
  end_forward(a, s, c_state.get(), weights.padded());
}

// z[step][row][block of gates] = x W^T + b for steps of a walk and the member's blocks.
template <typename T>
void project_inputs(const ForwardLoop<T>& a, const Slice& s, Range range, Range blocks,
                    Compute<T>* z) {
  constexpr int64_t width = kColumns * kLanes<T>;
  const int64_t stride = a.weights->blocks() * width, batch = a.shape.batch;
  const int64_t rows = (range.end - range.begin) * batch;
  const auto time = [&](int64_t n) { return s.direction == 0 ? n : a.shape.steps - 1 - n; };
  for (int64_t block = blocks.begin; block < blocks.end; ++block)
    for_row_groups(rows, [&](int64_t r, auto count) {
      constexpr int M = decltype(count)::value;
      const T* x[M];
      const Compute<T>* bias = a.weights->bias(s.direction, block);
      Vec<T> sums[M][kColumns];
      for (int m = 0; m < M; ++m) {
        const int64_t n = range.begin + (r + m) / batch, b = (r + m) % batch;
        x[m] = a.x + (time(n) * batch + b) * a.shape.input;
#pragma GCC unroll 4
        for (int k = 0; k < kColumns; ++k) sums[m][k] = load(bias + k * kLanes<T>);
      }
      multiply(sums, x, a.shape.input, a.weights->ih(s.direction, block));
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int k = 0; k < kColumns; ++k)
          store(z + (r + m) * stride + block * width + k * kLanes<T>, sums[m][k]);
    });
}

template <typename T>
void forward_split(const LstmForward<T>& a, const ForwardWeights<T>& weights, int64_t members,
                   const Parallel& parallel) {
  const LayerShape& shape = a.shape;
  const int64_t padded = weights.padded(), state = shape.batch * padded;
  const int64_t chunk = smaller(divide_up(kSplitSteps, shape.batch), shape.steps);
  Scratch<Compute<T>> c_state(shape.directions * state);
  Scratch<Compute<T>> z(shape.directions * chunk * 4 * state);
  const ForwardLoop<T> loop = forward_loop(a, &weights);
  const auto slice = [&](int64_t direction) { return Slice{&shape, direction, 0, 1, shape.batch}; };
  for (int64_t d = 0; d < shape.directions; ++d)
    begin_forward(a, slice(d), c_state.get() + d * state, padded);
  for_each_member(parallel, members, [&](const Member& member, auto wait) {
    const Range blocks = member.share(weights.blocks());
    for (int64_t d = 0; d < shape.directions; ++d) {
      Compute<T>* inputs = z.get() + d * chunk * 4 * state;
      for (int64_t begin = 0; begin < shape.steps; begin += chunk) {
        const Range range{begin, smaller(begin + chunk, shape.steps)};
        project_inputs(loop, slice(d), range, blocks, inputs);
        Compute<T>* c = c_state.get() + d * state;
        for_each_window(a, slice(d), range, blocks, c, padded, [&](Range part) {
          forward_steps(loop, slice(d), part, c, blocks, inputs + (part.begin - begin) * 4 * state,
                        wait);
        });
      }
    }
  });
  for (int64_t d = 0; d < shape.directions; ++d)
    end_forward(a, slice(d), c_state.get() + d * state, padded);
}

template <typename T>
void run_forward(const LstmForward<T>& a, const Parallel& parallel) {
  if (a.shape.batch == 0) return;
  if (are_few_steps(a)) return forward_few_steps(a, parallel);
  const ForwardWeights<T> weights(a.shape, a.weights, true, parallel);
  const Slicing slices(a.shape, parallel);
  const int64_t members = split_members(a.shape, weights.blocks(), slices, parallel);
  if (members > 1) return forward_split(a, weights, members, parallel);
  auto slice_task = [&](int64_t task) { forward_slice(a, slices[task], weights); };
  for_each_task(parallel, slices.tasks(), slice_task);
}

}  // namespace

#define GANLSTM_DEFINE(T)                                                            \
  template <>                                                                        \
  void lstm_forward_on<kIsa>(const LstmForward<T>& args, const Parallel& parallel) { \
    run_forward(args, parallel);                                                     \
  }
GANLSTM_FOR_PRODUCT_TYPES(GANLSTM_DEFINE)

}  // namespace ganlstm

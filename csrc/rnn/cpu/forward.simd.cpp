// LSTM forward on the CPU: input and recurrent products, gates and state in one time loop.
#include "few_steps.h"
#include "forward_steps.h"
#include "hidden_split.h"
#include "instruction_sets.h"

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

GANLSTM_DEFINE(lstm_forward, LstmForward, run_forward)
}  // namespace ganlstm

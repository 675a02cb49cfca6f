// For a batch that has fewer rows than there are threads: each thread owns some of the hidden units
// for the whole sequence and waits for the others at each step. A step then reads the weights from
// as many second-level caches as there are threads, which is what bounds it.
#pragma once

#include "../../common/cpu/team.h"
#include "forward_steps.h"

namespace ganlstm {
namespace {

// Multiply-adds of one thread in one step; with fewer, waiting costs more than the work.
constexpr int64_t kSplitWork = 30000;
// Steps whose input products are made at once: as rows of one product they read the weights once.
constexpr int64_t kSplitSteps = 4 * kRows;

// How many threads should share the hidden units; 1: slices of the batch are better.
inline int64_t split_members(const LstmShape& s, int64_t blocks, const Slicing& slices,
                             const Parallel& parallel) {
  if (2 * slices.tasks() > parallel.threads || s.steps < kSplitSteps) return 1;
  const int64_t work = s.batch * 4 * s.hidden * s.hidden;
  const int64_t most = smaller(blocks, smaller(parallel.threads, Team::kMost));
  return smaller(most, work / kSplitWork);
}

// What a thread has of a split walk.
struct Member {
  int64_t index, members;
  // Its part of `count` things.
  Range share(int64_t count) const {
    return {count * index / members, count * (index + 1) / members};
  }
  // Its part of `count` hidden units or inputs, in whole vectors.
  template <typename T>
  Range columns(int64_t count) const {
    const Range vectors = share(divide_up(count, kLanes<T>));
    return {smaller(vectors.begin * kLanes<T>, count), smaller(vectors.end * kLanes<T>, count)};
  }
};

// Calls f(member, wait) on each thread of a team; wait() returns when all have called it.
template <typename F>
void for_each_member(const Parallel& parallel, int64_t members, F f) {
  Team team(members);
  for_each_task(parallel, members, [&](int64_t) {
    const int64_t index = team.join();
    if (index < 0) return;
    int64_t turn = 0;
    f(Member{index, team.size()}, [&] { team.wait(index, ++turn); });
  });
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
  const LstmShape& shape = a.shape;
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

}  // namespace
}  // namespace ganlstm

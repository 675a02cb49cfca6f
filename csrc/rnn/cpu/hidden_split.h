// For a batch with fewer rows than there are threads: each thread owns some of the hidden units for
// the whole sequence and waits for the others at each step. The time of a step is that of reading
// the weights, which then come from the second-level caches of all threads.
#pragma once

#include "../../common/cpu/team.h"
#include "products.h"
#include "slices.h"

namespace ganlstm {
namespace {

// Multiply-adds of one thread in one step. With fewer, waiting takes longer than the work.
constexpr int64_t kSplitWork = 30000;
// Steps whose input products are computed together: one product of all their rows reads the weights
// once.
constexpr int64_t kSplitSteps = 4 * kRows;

// How many threads should share the hidden units. 1: slices of the batch are faster.
inline int64_t split_members(const LayerShape& s, int64_t blocks, const Slicing& slices,
                             const Parallel& parallel) {
  if (2 * slices.tasks() > parallel.threads || s.steps < kSplitSteps) return 1;
  const int64_t work = s.batch * 4 * s.hidden * s.hidden;
  const int64_t most = smaller(blocks, smaller(parallel.threads, Team::kMost));
  return smaller(most, work / kSplitWork);
}

// A thread's share of a split walk.
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

}  // namespace
}  // namespace ganlstm

// How the arrays of a call are cut into blocks that the threads share. The blocks of an array
// depend neither on the number of threads nor on the other arrays of the call, and so the order of
// every sum does not either.
#pragma once

#include <algorithm>
#include <vector>

#include "parallel.h"

namespace ganlstm {

// The part [begin, end) of the units that array `index` is made of: rows, segments or elements.
struct Block {
  int64_t index, begin, end;
};

class Blocks {
 public:
  // Cuts an array of `units` units into blocks of at least `block_bytes`. The units of each block
  // but the last are a multiple of `multiple`.
  void add(int64_t index, int64_t units, int64_t unit_bytes, int64_t block_bytes,
           int64_t multiple) {
    const int64_t least = (block_bytes + unit_bytes - 1) / unit_bytes;
    const int64_t step = (least + multiple - 1) / multiple * multiple;
    for (int64_t begin = 0; begin < units; begin += step) {
      const int64_t end = std::min(begin + step, units);
      blocks_.push_back({index, begin, end});
      bytes_.push_back(bytes() + (end - begin) * unit_bytes);
    }
  }

  const std::vector<Block>& all() const { return blocks_; }
  int64_t bytes() const { return bytes_.empty() ? 0 : bytes_.back(); }

  // Calls f(k) for each block k. Threads get neighbouring blocks, all about the same number of
  // bytes.
  template <typename F>
  void run(const Parallel& parallel, F f) const {
    const int64_t tasks =
        std::max(int64_t(1), std::min(parallel.threads, bytes() / kBytesOfAThread));
    for_each_task(parallel, tasks, [&](int64_t task) {
      for (int64_t k = first(task, tasks); k < first(task + 1, tasks); ++k) f(k);
    });
  }

 private:
  // Waking a thread takes as long as reading this many bytes.
  static constexpr int64_t kBytesOfAThread = 128 << 10;

  // The block that holds the first byte of a task's share.
  int64_t first(int64_t task, int64_t tasks) const {
    if (task == 0) return 0;
    const int64_t share = bytes() / tasks * task;
    if (task == tasks) return int64_t(blocks_.size());
    return std::lower_bound(bytes_.begin(), bytes_.end(), share) - bytes_.begin();
  }

  std::vector<Block> blocks_;
  std::vector<int64_t> bytes_;  // of all blocks up to this one
};

// The size of a block for passes element by element: a core's cache holds it for a second read.
constexpr int64_t kBlockBytes = 128 << 10;

}  // namespace ganlstm

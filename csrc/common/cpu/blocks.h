// How the arrays of a call are cut into blocks and shared among the threads. The blocks, and with
// them the order of every sum, are the same for any number of threads and for any other arrays in
// the call.
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
  // Cuts an array of `units` units into blocks of about `block_bytes` or more, a multiple of
  // `multiple` units but for the last.
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

  // Calls f(k) for each block k. A thread gets neighbouring blocks of about as many bytes as any
  // other.
  template <typename F>
  void run(const Parallel& parallel, F f) const {
    const int64_t tasks =
        std::max(int64_t(1), std::min(parallel.threads, bytes() / kBytesOfAThread));
    for_each_task(parallel, tasks, [&](int64_t task) {
      for (int64_t k = first(task, tasks); k < first(task + 1, tasks); ++k) f(k);
    });
  }

 private:
  // To wake a thread takes as long as to read this much.
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

// For passes over arrays element by element. Small enough to be read twice from a core's cache.
constexpr int64_t kBlockBytes = 128 << 10;

}  // namespace ganlstm

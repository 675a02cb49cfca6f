// How arrays [B,n] are cut into units: a unit is the row of one sample, or a part of a large row.
#pragma once

#include <vector>

#include "../../common/cpu/blocks.h"

namespace ganlstm {

// A unit: elements [begin, end) of the array's row `sample`, counted over the whole array.
struct SamplePart {
  int64_t index, sample, begin, end;
  int64_t slot;  // its number among all parts of the sample, over all arrays
};

class Samples {
 public:
  explicit Samples(int64_t batch) : batch_(batch) {}

  void add(int64_t index, int64_t elements, int64_t element_bytes) {
    const int64_t bytes = elements * element_bytes;
    const int64_t parts = std::max(int64_t(1), (bytes + kBlockBytes - 1) / kBlockBytes);
    const int64_t part = (elements + parts - 1) / parts;
    arrays_.push_back({elements, part, parts, slots_});
    index_.push_back(index);
    blocks_.add(int64_t(arrays_.size()) - 1, batch_ * parts,
                std::max(part * element_bytes, int64_t(1)), kLeastBytes, 1);
    slots_ += parts;
  }

  // The parts of a sample, over all arrays.
  int64_t slots() const { return slots_; }

  int64_t bytes() const { return blocks_.bytes(); }

  // Calls f(part) for each unit; those of one block in order, on one thread.
  template <typename F>
  void run(const Parallel& parallel, F f) const {
    blocks_.run(parallel, [&](int64_t k) {
      const Block& block = blocks_.all()[size_t(k)];
      const Array& a = arrays_[size_t(block.index)];
      for (int64_t unit = block.begin; unit < block.end; ++unit) {
        const int64_t sample = unit / a.parts, part = unit % a.parts;
        const int64_t row = sample * a.elements;
        f(SamplePart{index_[size_t(block.index)], sample, row + std::min(part * a.part, a.elements),
                     row + std::min((part + 1) * a.part, a.elements), a.slot + part});
      }
    });
  }

 private:
  // Small blocks are shared evenly.
  static constexpr int64_t kLeastBytes = 16 << 10;

  struct Array {
    int64_t elements, part, parts, slot;
  };

  int64_t batch_, slots_ = 0;
  std::vector<Array> arrays_;
  std::vector<int64_t> index_;
  Blocks blocks_;
};

}  // namespace ganlstm

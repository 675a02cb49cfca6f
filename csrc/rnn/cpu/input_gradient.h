// The gradient of x, to which both directions of a layer add.
#pragma once

#include "../../common/cpu/scratch.h"
#include "../../common/cpu/simd.h"
#include "../layer.h"
#include "slices.h"

namespace ganlstm {
namespace {

// The directions run at the same time, so each writes an array of its own; add_directions() then
// adds the second to the first.
template <typename T>
class InputGradient {
 public:
  InputGradient(const LayerShape& shape, T* grad_x)
      : size_(shape.steps * shape.batch * shape.input),
        first_(grad_x),
        second_(grad_x != nullptr && shape.directions == 2 ? size_ : 0) {}

  // The array [T,B,I] of a direction.
  T* of(int64_t direction) const { return direction == 0 ? first_ : second_.get(); }

  // The same, with zeros after the end of the slice's sequences.
  T* zeroed(const Slice& s) const {
    T* array = of(s.direction);
    Slice undirected = s;
    LayerShape one = *s.shape;
    one.directions = 1;
    undirected.shape = &one;
    undirected.direction = 0;
    zero_after_end(undirected, array, one.input);
    return array;
  }

  void add_directions(const Parallel& parallel) const {
    if (second_.get() == nullptr) return;
    constexpr int64_t block = 1 << 16;
    auto add = [&](int64_t task) {
      const int64_t end = smaller((task + 1) * block, size_);
      const T* from = second_.get();
      for (int64_t i = task * block; i < end; ++i)
        first_[i] = narrow<T>(widen(first_[i]) + widen(from[i]));
    };
    for_each_task(parallel, divide_up(size_, block), add);
  }

 private:
  int64_t size_;
  T* first_;
  Scratch<T> second_;
};

}  // namespace
}  // namespace ganlstm

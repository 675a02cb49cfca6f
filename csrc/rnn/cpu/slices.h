// How the batch is shared between threads, and how a thread walks through time.
#pragma once

#include <cstring>

#include "../../common/cpu/scratch.h"
#include "../../common/cpu/simd.h"
#include "../layer.h"

namespace ganlstm {
namespace {

// Below this many multiply-adds a second thread costs more time than it saves.
constexpr int64_t kSerialWork = 200000;

// Some rows of the batch in one direction. One task owns a slice for the whole sequence, so slices
// never wait for each other. With lengths, the rows are distributed in order of falling length:
// slices then have equal work, and the rows that are alive at a step are the first ones.
struct Slice {
  const LayerShape* shape;
  int64_t direction, first, stride, count;

  int64_t row(int64_t j) const {
    const int64_t at = first + j * stride;
    return shape->order == nullptr ? at : shape->order[at];
  }
  int64_t length(int64_t b) const {
    return shape->lengths == nullptr ? shape->steps : shape->lengths[b];
  }
  // The step before t in this direction, or -1 where the sequence starts.
  int64_t before(int64_t t, int64_t b) const {
    if (direction == 0) return t - 1;
    return t + 1 < length(b) ? t + 1 : -1;
  }
  // The step after which the sequence has ended in this direction.
  int64_t last(int64_t b) const { return direction == 0 ? length(b) - 1 : 0; }

  // [T,B,D,width] and [D,B,width]
  int64_t at(int64_t t, int64_t b, int64_t width) const {
    return ((t * shape->batch + b) * shape->directions + direction) * width;
  }
  int64_t initial(int64_t b, int64_t width) const { return (direction * shape->batch + b) * width; }
};

// A range [begin, end) of hidden units, or of the steps that a walk through time visits, in its
// order.
struct Range {
  int64_t begin, end;
};

// Calls f(n, t, alive) for each step t in which a row is alive, in the order of the direction or
// against it. `alive` is the number of the slice's rows for which step t is valid.
template <typename F>
GANLSTM_INLINE void for_each_step(const Slice& s, bool with_direction, Range range, F f) {
  const bool ascending = (s.direction == 0) == with_direction;
  int64_t alive = ascending ? s.count : 0;
  for (int64_t n = range.begin; n < range.end; ++n) {
    const int64_t t = ascending ? n : s.shape->steps - 1 - n;
    while (alive > 0 && s.length(s.row(alive - 1)) <= t) --alive;
    while (alive < s.count && s.length(s.row(alive)) > t) ++alive;
    if (alive > 0) f(n, t, alive);
  }
}

// Where a walk against time keeps the rows of a step: in an array of all steps, or in a ring of the
// last `window` steps, in the order of the walk.
template <typename T>
struct StepRows {
  T* data;         // [T or window,B,D,width]
  int64_t window;  // 0: all steps

  T* row(const Slice& s, int64_t n, int64_t t, int64_t b, int64_t width) const {
    return data + s.at(window == 0 ? t : n % window, b, width);
  }
};

// A walk of all steps against the direction, cut into windows; the last one may be shorter.
struct Windows {
  int64_t steps, size;

  Windows(const LayerShape& s, int64_t window)
      : steps(s.steps), size(window == 0 ? s.steps : smaller(window, s.steps)) {}
  int64_t count() const { return divide_up(steps, size); }
  // The window of a step, which is counted in the order of the direction.
  int64_t of(int64_t step) const { return (steps - 1 - step) / size; }
  // The steps of window k, counted in the order of the direction.
  Range with_direction(int64_t k) const {
    const int64_t begin = steps - (k + 1) * size;
    return {begin < 0 ? 0 : begin, steps - k * size};
  }
};

struct Slicing {
  const LayerShape& shape;
  int64_t per_direction;
  bool serial;  // too little work for a second thread

  Slicing(const LayerShape& s, const Parallel& parallel) : shape(s), per_direction(1) {
    const int64_t work = s.steps * s.batch * s.hidden * 4 * (s.hidden + s.input) * s.directions;
    serial = work < kSerialWork || parallel.threads == 1;
    const int64_t threads = serial ? 1 : parallel.threads;
    per_direction = threads % s.directions == 0 ? threads / s.directions : threads;
    if (per_direction > s.batch) per_direction = s.batch;
    if (per_direction < 1) per_direction = 1;
  }
  int64_t tasks() const { return per_direction * shape.directions; }
  // Whether all threads have work, and none has much more than the others.
  bool is_even(const Parallel& parallel) const {
    return serial ||
           (tasks() >= parallel.threads && 8 * per_direction * most_rows() <= 9 * shape.batch);
  }
  int64_t most_rows() const { return divide_up(shape.batch, per_direction); }

  Slice operator[](int64_t task) const {
    const int64_t direction = task / per_direction, part = task % per_direction;
    if (shape.order != nullptr)
      return {&shape, direction, part, per_direction, divide_up(shape.batch - part, per_direction)};
    const int64_t first = shape.batch * part / per_direction;
    const int64_t end = shape.batch * (part + 1) / per_direction;
    return {&shape, direction, first, 1, end - first};
  }
};

// Below this many weights, packing them costs less than a second thread.
constexpr int64_t kSerialPack = 1 << 15;

// for_each_task for packing `size` weights.
template <typename F>
void for_each_pack(const Parallel& parallel, int64_t size, int64_t tasks, F& f) {
  for_each_task(size < kSerialPack ? Parallel{1, nullptr} : parallel, tasks, f);
}

// Zeros in the steps of a [T,B,D,width] array that lie after each sequence's end.
template <typename T>
void zero_after_end(const Slice& s, T* array, int64_t width) {
  if (s.shape->lengths == nullptr || array == nullptr) return;
  for (int64_t j = 0; j < s.count; ++j) {
    const int64_t b = s.row(j);
    for (int64_t t = s.length(b); t < s.shape->steps; ++t)
      memset(array + s.at(t, b, width), 0, size_t(width) * sizeof(T));
  }
}

// state[j][padded] <- from[row(j)][width], or zeros; and back.
template <typename From, typename State>
void load_state(const Slice& s, const From* from, State* state, int64_t padded) {
  const int64_t width = s.shape->hidden;
  memset(state, 0, size_t(s.count * padded) * sizeof(State));
  if (from == nullptr) return;
  for (int64_t j = 0; j < s.count; ++j)
    convert(state + j * padded, from + s.initial(s.row(j), width), width);
}

// Of some hidden units only.
template <typename State, typename To>
void store_state(const Slice& s, const State* state, int64_t padded, To* to, Range units) {
  if (to == nullptr) return;
  for (int64_t j = 0; j < s.count; ++j)
    convert(to + s.initial(s.row(j), s.shape->hidden) + units.begin,
            state + j * padded + units.begin, units.end - units.begin);
}

template <typename State, typename To>
void store_state(const Slice& s, const State* state, int64_t padded, To* to) {
  store_state(s, state, padded, to, {0, s.shape->hidden});
}

// to[row] <- the last valid step of a [T,B,D,H] array.
template <typename From, typename To>
void store_last(const Slice& s, const From* array, To* to) {
  if (to == nullptr) return;
  const int64_t width = s.shape->hidden;
  for (int64_t j = 0; j < s.count; ++j) {
    const int64_t b = s.row(j);
    convert(to + s.initial(b, width), array + s.at(s.last(b), b, width), width);
  }
}

// A [D,B,H] state in Compute<T>; zeros for a null pointer.
template <typename T>
class ComputeState {
 public:
  ComputeState(const LayerShape& s, const T* state)
      : state_(state), copy_(is_same && state != nullptr ? 0 : size(s)) {
    if (state == nullptr)
      memset(copy_.get(), 0, size_t(size(s)) * sizeof(Compute<T>));
    else if constexpr (!is_same)
      convert(copy_.get(), state, size(s));
  }

  const Compute<T>* get() const {
    if constexpr (is_same)
      if (state_ != nullptr) return state_;
    return copy_.get();
  }

 private:
  static constexpr bool is_same = std::is_same_v<T, Compute<T>>;
  static int64_t size(const LayerShape& s) { return s.directions * s.batch * s.hidden; }

  const T* state_;
  Scratch<Compute<T>> copy_;
};

}  // namespace
}  // namespace ganlstm

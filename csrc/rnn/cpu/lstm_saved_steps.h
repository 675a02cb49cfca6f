// The gates and cell states of each step, for a backward: as the forward saved them, or, with a
// window, computed again just before the backward reads them.
#pragma once

#include "lstm_forward_steps.h"

namespace ganlstm {
namespace {

template <typename T>
class SavedSteps {
 public:
  SavedSteps(const LstmBackward<T>& a, const Parallel& parallel)
      : a_(a),
        windows_(a.shape, a.window),
        window_(a.window == 0 ? 0 : windows_.size),
        state_size_(a.shape.directions * a.shape.batch * a.shape.hidden),
        weights_(a.shape, a.weights, window_ > 0, parallel),
        new_gates_(window_ * 4 * state_size_),
        new_c_(window_ * state_size_),
        c0_(a.shape, a.c0),
        gates_{window_ > 0 ? new_gates_.get() : a.gates, window_},
        c_{window_ > 0 ? new_c_.get() : a.c, window_} {}

  // Makes the first steps of a range readable and returns them: all up to the end of the range or
  // of the window. A range begins where the one before it ended.
  Range next(const Slice& s, Range range) const {
    if (window_ == 0) return range;
    const int64_t k = range.begin / window_;
    if (range.begin % window_ == 0) {
      const ForwardLoop<T> loop{a_.shape,
                                &weights_,
                                a_.x,
                                a_.h0,
                                a_.y,
                                nullptr,
                                {new_gates_.get(), window_},
                                {new_c_.get(), window_}};
      Scratch<Compute<T>> c_state(s.count * weights_.padded());
      load_state(s, c_at_window(k), c_state.get(), weights_.padded());
      forward_steps(loop, s, windows_.with_direction(k), c_state.get());
    }
    return {range.begin, smaller((k + 1) * window_, range.end)};
  }

  // Of row b at the walk's n-th step, whose time is t.
  const Compute<T>* gates(const Slice& s, int64_t n, int64_t t, int64_t b) const {
    return gates_.row(s, n, t, b, 4 * a_.shape.hidden);
  }
  const Compute<T>* c(const Slice& s, int64_t n, int64_t t, int64_t b) const {
    return c_.row(s, n, t, b, a_.shape.hidden);
  }
  const Compute<T>* c_before(const Slice& s, int64_t n, int64_t t, int64_t b) const {
    const int64_t before = s.before(t, b), initial = s.initial(b, a_.shape.hidden);
    if (before < 0) return c0_.get() + initial;
    if (window_ > 0 && (n + 1) % window_ == 0) return c_at_window(n / window_) + initial;
    return c_.row(s, n + 1, before, b, a_.shape.hidden);
  }

 private:
  // [D,B,H] c before the first step, in the order of the direction, of window k.
  const Compute<T>* c_at_window(int64_t k) const {
    return k + 1 == windows_.count() ? c0_.get() : a_.c + k * state_size_;
  }

  const LstmBackward<T>& a_;
  Windows windows_;
  int64_t window_;  // 0: all steps were saved
  int64_t state_size_;
  ForwardWeights<T> weights_;
  Scratch<Compute<T>> new_gates_, new_c_;
  ComputeState<T> c0_;
  StepRows<const Compute<T>> gates_, c_;
};

}  // namespace
}  // namespace ganlstm

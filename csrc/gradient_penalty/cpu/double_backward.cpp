// The gradients of the penalty's gradient. For a sample of one unit, the inner product and the
// result are computed while the sample is in the cache; larger samples are read twice.
#include <algorithm>
#include <limits>

#include "../../common/cpu/arrays.h"
#include "../../common/cpu/scratch.h"
#include "../gradient_penalty.h"
#include "../slope.h"
#include "samples.h"

namespace ganlstm {
namespace {

template <typename T>
class DoubleBackward {
 public:
  using C = Compute<T>;

  DoubleBackward(const PenaltyGradient<T>* arrays, int64_t count, int64_t batch,
                 const PenaltyOptions& options, const C* norms, C s, const Parallel& parallel)
      : arrays_(arrays),
        count_(count),
        batch_(batch),
        norms_(norms),
        share_(2 * double(s) / double(batch)),
        curve_{options.center, options.one_sided},
        parallel_(parallel),
        read_(batch),
        written_(batch) {
    for (int64_t index = 0; index < count; ++index) {
      const PenaltyGradient<T>& a = arrays[index];
      if (a.v != nullptr) read_.add(index, a.elements, sizeof(T));
      if (a.out != nullptr) written_.add(index, a.elements, sizeof(T));
    }
    kernels_ = &array_kernels_for<T>(written_.bytes());
    parts_.resize(batch * read_.slots());
  }

  void run(C* g_s) {
    const bool in_one = count_ == 1 && read_.slots() == 1 && written_.slots() == 1;
    read_.run(parallel_, [&](const SamplePart& part) {
      const PenaltyGradient<T>& a = arrays_[part.index];
      const double product =
          kernels_->dot(a.v + part.begin, a.grad + part.begin, part.end - part.begin);
      parts_.get()[part.sample * read_.slots() + part.slot] = product;
      if (in_one) write(part, product);
    });
    if (!in_one)
      written_.run(parallel_, [&](const SamplePart& part) { write(part, product(part.sample)); });
    if (g_s == nullptr) return;
    double total = 0;
    for (int64_t b = 0; b < batch_; ++b) total += curve_.slope(norms_[b]) * product(b);
    *g_s = C(2 / double(batch_) * total);
  }

 private:
  double product(int64_t sample) const {
    double sum = 0;
    for (int64_t slot = 0; slot < read_.slots(); ++slot)
      sum += parts_.get()[sample * read_.slots() + slot];
    return sum;
  }

  void write(const SamplePart& part, double product) const {
    const PenaltyGradient<T>& a = arrays_[part.index];
    const double norm = norms_[part.sample];
    const C of_v = finite(share_ * curve_.slope(norm));
    const C of_grad = finite(share_ * curve_.curvature(norm, product));
    const int64_t at = part.begin, n = part.end - part.begin;
    if (a.v == nullptr)
      kernels_->scale(a.grad + at, n, of_grad, a.out + at);
    else
      kernels_->add(a.v + at, a.grad + at, n, of_v, of_grad, a.out + at);
  }

  // The factor of a tiny gradient may overflow C, and infinity times the zeros in it would be NaN.
  static C finite(double factor) {
    constexpr double most = std::numeric_limits<C>::max();
    return C(factor != factor ? factor : std::clamp(factor, -most, most));
  }

  const ArrayKernels<T>* kernels_;
  const PenaltyGradient<T>* arrays_;
  int64_t count_, batch_;
  const C* norms_;
  double share_;
  PenaltyCurve<double> curve_;
  const Parallel& parallel_;
  Samples read_, written_;
  Scratch<double> parts_{0};  // of <V, g>, by sample and slot
};

}  // namespace

template <typename T>
void penalty_double_backward(const PenaltyGradient<T>* arrays, int64_t count, int64_t batch,
                             const PenaltyOptions& options, const Compute<T>* norms, Compute<T> s,
                             Compute<T>* g_s, const Parallel& parallel) {
  DoubleBackward<T>(arrays, count, batch, options, norms, s, parallel).run(g_s);
}

template void penalty_double_backward(const PenaltyGradient<float>*, int64_t, int64_t,
                                      const PenaltyOptions&, const float*, float, float*,
                                      const Parallel&);
template void penalty_double_backward(const PenaltyGradient<double>*, int64_t, int64_t,
                                      const PenaltyOptions&, const double*, double, double*,
                                      const Parallel&);
template void penalty_double_backward(const PenaltyGradient<BFloat16>*, int64_t, int64_t,
                                      const PenaltyOptions&, const float*, float, float*,
                                      const Parallel&);

}  // namespace ganlstm

// The penalty's gradient: every gradient is read once and multiplied by its sample's factor.
#include "../../common/cpu/arrays.h"
#include "../gradient_penalty.h"
#include "../slope.h"
#include "samples.h"

namespace ganlstm {
namespace {

template <typename T>
void run(const PenaltyGradient<T>* arrays, int64_t count, int64_t batch,
         const PenaltyOptions& options, const Compute<T>* norms, Compute<T> s,
         const Parallel& parallel) {
  Samples samples(batch);
  for (int64_t index = 0; index < count; ++index)
    if (arrays[index].out != nullptr) samples.add(index, arrays[index].elements, sizeof(T));
  const ArrayKernels<T>& kernels = array_kernels_for<T>(samples.bytes());
  const PenaltyCurve<double> curve{options.center, options.one_sided};
  const double share = 2 * double(s) / double(batch);
  samples.run(parallel, [&](const SamplePart& part) {
    const PenaltyGradient<T>& a = arrays[part.index];
    const auto factor = Compute<T>(share * curve.slope(norms[part.sample]));
    kernels.scale(a.grad + part.begin, part.end - part.begin, factor, a.out + part.begin);
  });
}

}  // namespace

template <typename T>
void penalty_backward(const PenaltyGradient<T>* arrays, int64_t count, int64_t batch,
                      const PenaltyOptions& options, const Compute<T>* norms, Compute<T> s,
                      const Parallel& parallel) {
  run(arrays, count, batch, options, norms, s, parallel);
}

template void penalty_backward(const PenaltyGradient<float>*, int64_t, int64_t,
                               const PenaltyOptions&, const float*, float, const Parallel&);
template void penalty_backward(const PenaltyGradient<double>*, int64_t, int64_t,
                               const PenaltyOptions&, const double*, double, const Parallel&);
template void penalty_backward(const PenaltyGradient<BFloat16>*, int64_t, int64_t,
                               const PenaltyOptions&, const float*, float, const Parallel&);

}  // namespace ganlstm

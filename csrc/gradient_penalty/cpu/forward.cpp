// The samples' norms and the mean of their penalties: every gradient is read once.
#include <cmath>

#include "../../common/cpu/arrays.h"
#include "../../common/cpu/scratch.h"
#include "../gradient_penalty.h"
#include "../slope.h"
#include "samples.h"

namespace ganlstm {
namespace {

template <typename T>
void run(const PenaltyGradient<T>* arrays, int64_t count, int64_t batch,
         const PenaltyOptions& options, Compute<T>* norms, Compute<T>* value,
         const Parallel& parallel) {
  const ArrayKernels<T>& kernels = array_kernels<T>();
  Samples samples(batch);
  for (int64_t index = 0; index < count; ++index)
    samples.add(index, arrays[index].elements, sizeof(T));
  const int64_t slots = samples.slots();
  Scratch<double> squares(batch * slots);
  samples.run(parallel, [&](const SamplePart& part) {
    const T* grad = arrays[part.index].grad + part.begin;
    squares.get()[part.sample * slots + part.slot] = kernels.dot(grad, grad, part.end - part.begin);
  });

  const PenaltyCurve<double> curve{options.center, options.one_sided};
  double total = 0;
  for (int64_t b = 0; b < batch; ++b) {
    double square = 0;
    for (int64_t slot = 0; slot < slots; ++slot) square += squares.get()[b * slots + slot];
    const double norm = std::sqrt(square), excess = curve.excess(norm);
    norms[b] = Compute<T>(norm);
    total += curve.center == 0 ? square : excess * excess;
  }
  *value = Compute<T>(total / double(batch));
}

}  // namespace

template <typename T>
void penalty_forward(const PenaltyGradient<T>* arrays, int64_t count, int64_t batch,
                     const PenaltyOptions& options, Compute<T>* norms, Compute<T>* value,
                     const Parallel& parallel) {
  run(arrays, count, batch, options, norms, value, parallel);
}

template void penalty_forward(const PenaltyGradient<float>*, int64_t, int64_t,
                              const PenaltyOptions&, float*, float*, const Parallel&);
template void penalty_forward(const PenaltyGradient<double>*, int64_t, int64_t,
                              const PenaltyOptions&, double*, double*, const Parallel&);
template void penalty_forward(const PenaltyGradient<BFloat16>*, int64_t, int64_t,
                              const PenaltyOptions&, float*, float*, const Parallel&);

}  // namespace ganlstm

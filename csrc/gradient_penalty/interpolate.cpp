// Random points between real and fake samples: both are read once.
#include "../common/arrays.h"
#include "gradient_penalty.h"
#include "philox.h"
#include "samples.h"

namespace ganlstm {
namespace {

template <typename T>
void run(const Interpolation<T>* arrays, int64_t count, int64_t batch, uint64_t seed,
         const Parallel& parallel) {
  using C = Compute<T>;
  const ArrayKernels<T>& kernels = array_kernels<T>();
  Samples samples(batch);
  for (int64_t index = 0; index < count; ++index)
    if (arrays[index].out != nullptr) samples.add(index, arrays[index].elements, sizeof(T));
  samples.run(parallel, [&](const SamplePart& part) {
    const Interpolation<T>& a = arrays[part.index];
    const C weight = philox_uniform<C>(seed, uint64_t(part.sample));
    const int64_t at = part.begin, n = part.end - part.begin;
    if (a.fake == nullptr)
      kernels.scale(a.real + at, n, weight, a.out + at);
    else if (a.real == nullptr)
      kernels.scale(a.fake + at, n, 1 - weight, a.out + at);
    else
      kernels.mix(a.real + at, a.fake + at, n, weight, a.out + at);
  });
}

}  // namespace

template <typename T>
void interpolate(const Interpolation<T>* arrays, int64_t count, int64_t batch, uint64_t seed,
                 const Parallel& parallel) {
  run(arrays, count, batch, seed, parallel);
}

template void interpolate(const Interpolation<float>*, int64_t, int64_t, uint64_t, const Parallel&);
template void interpolate(const Interpolation<double>*, int64_t, int64_t, uint64_t,
                          const Parallel&);
template void interpolate(const Interpolation<BFloat16>*, int64_t, int64_t, uint64_t,
                          const Parallel&);

}  // namespace ganlstm

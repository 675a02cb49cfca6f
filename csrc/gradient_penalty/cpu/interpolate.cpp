// Random points between real and fake samples: both are read once.
#include "../../common/cpu/arrays.h"
#include "../../common/cpu/scratch.h"
#include "../gradient_penalty.h"
#include "../philox.h"
#include "samples.h"

namespace ganlstm {
namespace {

// The number of bytes that are read in the time that a draw takes.
constexpr int64_t kBytesOfADraw = 64;

template <typename T>
void run(const Interpolation<T>& a, const Parallel& parallel) {
  using C = Compute<T>;
  // The draws have a loop of their own: the operations of one draw depend on each other, those of
  // several draws can overlap.
  Scratch<C> weights(a.batch);
  Blocks draws;
  draws.add(0, a.batch, kBytesOfADraw, kBlockBytes, 1);
  draws.run(parallel, [&](int64_t k) {
    const Block& block = draws.all()[size_t(k)];
    for (int64_t b = block.begin; b < block.end; ++b)
      weights.get()[b] = philox_uniform<C>(a.seed, uint64_t(b));
  });

  Samples samples(a.batch);
  samples.add(0, a.elements, sizeof(T));
  const ArrayKernels<T>& kernels = array_kernels_for<T>(samples.bytes());
  samples.run(parallel, [&](const SamplePart& part) {
    const C weight = weights.get()[part.sample];
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
void interpolate(const Interpolation<T>& args, const Parallel& parallel) {
  run(args, parallel);
}

template void interpolate(const Interpolation<float>&, const Parallel&);
template void interpolate(const Interpolation<double>&, const Parallel&);
template void interpolate(const Interpolation<BFloat16>&, const Parallel&);

}  // namespace ganlstm

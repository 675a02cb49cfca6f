// The gradient of the weights: an inner product over two arrays, then one step over G.
#include "../../common/cpu/arrays.h"
#include "../../common/cpu/blocks.h"
#include "../../common/cpu/scratch.h"
#include "kernels.h"

namespace ganlstm {
namespace {

template <typename T>
void run(const SpectralNormBackward<T>* weights, int64_t count, Compute<T> eps,
         const Parallel& parallel) {
  using C = Compute<T>;
  const SpectralNormKernels<T>& kernels = spectral_norm_kernels<T>();
  const ArrayKernels<T>& arrays = array_kernels<T>();
  Blocks flat, segments;
  for (int64_t index = 0; index < count; ++index) {
    const SpectralNormBackward<T>& a = weights[index];
    if (a.grad == nullptr) continue;
    const SpectralNormSegments<C> s(a.shape, a.u, a.v);
    flat.add(index, a.shape.elements(), sizeof(T), kBlockBytes, 1);
    segments.add(index, s.count(), s.shape.inner * int64_t(sizeof(T)), kBlockBytes, 1);
  }

  Scratch<double> parts(int64_t(flat.all().size()));
  flat.run(parallel, [&](int64_t k) {
    const Block& block = flat.all()[size_t(k)];
    const SpectralNormBackward<T>& a = weights[block.index];
    parts.get()[k] =
        arrays.dot(a.grad + block.begin, a.normalized + block.begin, block.end - block.begin);
  });
  std::vector<double> inner(size_t(count), 0.0);
  for (size_t k = 0; k < flat.all().size(); ++k)
    inner[size_t(flat.all()[k].index)] += parts.get()[k];
  for (int64_t index = 0; index < count; ++index) *weights[index].inner = C(inner[size_t(index)]);

  segments.run(parallel, [&](int64_t k) {
    const Block& block = segments.all()[size_t(k)];
    const SpectralNormBackward<T>& a = weights[block.index];
    const SpectralNormSegments<C> s(a.shape, a.u, a.v);
    if (divides(*a.sigma, eps)) {
      kernels.add_outer(s.shape, a.grad, block.begin, block.end, s.u, s.v, C(1) / *a.sigma, C(1),
                        C(-inner[size_t(block.index)]), a.grad_weight);
    } else {
      const int64_t at = block.begin * s.shape.inner, n = (block.end - block.begin) * s.shape.inner;
      std::copy_n(a.grad + at, n, a.grad_weight + at);
    }
  });
}

}  // namespace

template <typename T>
void spectral_norm_backward(const SpectralNormBackward<T>* weights, int64_t count, Compute<T> eps,
                            const Parallel& parallel) {
  run(weights, count, eps, parallel);
}

template void spectral_norm_backward(const SpectralNormBackward<float>*, int64_t, float,
                                     const Parallel&);
template void spectral_norm_backward(const SpectralNormBackward<double>*, int64_t, double,
                                     const Parallel&);
template void spectral_norm_backward(const SpectralNormBackward<BFloat16>*, int64_t, float,
                                     const Parallel&);

}  // namespace ganlstm

// The gradients of the gradient: two inner products over V and G, then one step over V, N and G.
#include "../../common/cpu/arrays.h"
#include "../../common/cpu/blocks.h"
#include "../../common/cpu/scratch.h"
#include "kernels.h"

namespace ganlstm {
namespace {

template <typename T>
void run(const SpectralNormDoubleBackward<T>* weights, int64_t count, Compute<T> eps,
         const Parallel& parallel) {
  using C = Compute<T>;
  const SpectralNormKernels<T>& kernels = spectral_norm_kernels<T>();
  const ArrayKernels<T>& arrays = array_kernels<T>();
  Blocks segments;
  for (int64_t index = 0; index < count; ++index) {
    const SpectralNormDoubleBackward<T>& a = weights[index];
    if (a.v_weight == nullptr) continue;
    const SpectralNormSegments<C> s(a.shape, a.u, a.v);
    segments.add(index, s.count(), s.shape.inner * int64_t(sizeof(T)), kBlockBytes, 1);
  }
  auto for_each_block = [&](auto f) {
    segments.run(parallel, [&](int64_t k) {
      const Block& block = segments.all()[size_t(k)];
      const SpectralNormDoubleBackward<T>& a = weights[block.index];
      f(k, block, a, SpectralNormSegments<C>(a.shape, a.u, a.v));
    });
  };

  struct Products {
    double v_grad = 0, v_outer = 0;  // <V, G>, <V, P>
  };
  Scratch<Products> parts(int64_t(segments.all().size()));
  for_each_block([&](int64_t k, const Block& block, const auto& a, const auto& s) {
    const int64_t at = block.begin * s.shape.inner, n = (block.end - block.begin) * s.shape.inner;
    parts.get()[k] = {arrays.dot(a.v_weight + at, a.grad + at, n),
                      kernels.dot_outer(s.shape, a.v_weight, block.begin, block.end, s.u, s.v)};
  });
  std::vector<Products> products{size_t(count)};
  for (size_t k = 0; k < segments.all().size(); ++k) {
    Products& sum = products[size_t(segments.all()[k].index)];
    sum.v_grad += parts.get()[k].v_grad;
    sum.v_outer += parts.get()[k].v_outer;
  }

  for_each_block([&](int64_t, const Block& block, const auto& a, const auto& s) {
    const int64_t at = block.begin * s.shape.inner, n = (block.end - block.begin) * s.shape.inner;
    if (!divides(*a.sigma, eps)) {
      if (a.g_grad != nullptr) std::copy_n(a.v_weight + at, n, a.g_grad + at);
      if (a.g_weight != nullptr) std::fill_n(a.g_weight + at, n, T{});
      return;
    }
    const auto [v_grad, f] = products[size_t(block.index)];
    const double sigma = *a.sigma, c = *a.inner;
    if (a.g_grad != nullptr)
      arrays.add(a.v_weight + at, a.normalized + at, n, C(1 / sigma), C(-f / sigma), a.g_grad + at);
    // <V, D> - f c / sigma
    const double outer = (v_grad - 2 * c * f) / sigma;
    if (a.g_weight != nullptr)
      kernels.add_outer(s.shape, a.grad, block.begin, block.end, s.u, s.v, C(-1 / sigma),
                        C(f / sigma), C(outer), a.g_weight);
  });
}

}  // namespace

template <typename T>
void spectral_norm_double_backward(const SpectralNormDoubleBackward<T>* weights, int64_t count,
                                   Compute<T> eps, const Parallel& parallel) {
  run(weights, count, eps, parallel);
}

template void spectral_norm_double_backward(const SpectralNormDoubleBackward<float>*, int64_t,
                                            float, const Parallel&);
template void spectral_norm_double_backward(const SpectralNormDoubleBackward<double>*, int64_t,
                                            double, const Parallel&);
template void spectral_norm_double_backward(const SpectralNormDoubleBackward<BFloat16>*, int64_t,
                                            float, const Parallel&);

}  // namespace ganlstm

// Power iteration, sigma and the normalised weights.
//
// An iteration reads a weight once. W^T (W v) needs no norm, so a block of rows is multiplied by v,
// and its transpose by the result while the block is in the cache; the norms come afterwards. Sigma
// is the norm of the last W^T u before it is normalised.
#include <limits>

#include "../../common/cpu/arrays.h"
#include "../../common/cpu/blocks.h"
#include "../../common/cpu/scratch.h"
#include "kernels.h"

namespace ganlstm {
namespace {

template <typename C>
double dot(const C* x, const C* y, int64_t count) {
  constexpr int64_t unroll = 16;
  double sums[unroll] = {};
  int64_t k = 0;
  for (; k + unroll <= count; k += unroll)
    for (int64_t m = 0; m < unroll; ++m) sums[m] += double(x[k + m]) * double(y[k + m]);
  for (; k < count; ++k) sums[0] += double(x[k]) * double(y[k]);
  double sum = 0;
  for (double part : sums) sum += part;
  return sum;
}

template <typename C>
double norm(const C* x, int64_t count) {
  return std::sqrt(dot(x, x, count));
}

template <typename C>
void multiply(const C* x, int64_t count, double factor, C* to) {
  for (int64_t k = 0; k < count; ++k) to[k] = C(x[k] * factor);
}

template <typename T>
class Forward {
 public:
  using C = Compute<T>;

  Forward(const SpectralNormForward<T>* weights, int64_t count, C eps, const Parallel& parallel)
      : weights_(weights), count_(count), eps_(eps), parallel_(parallel), p_(0), q_(0) {
    int64_t rows = 0, columns = 0;
    for (int64_t index = 0; index < count; ++index) {
      const SpectralNormShape& s = weights[index].shape;
      first_.push_back(int64_t(rows_.all().size()));
      const int64_t bytes = s.elements() * int64_t(sizeof(T));
      rows_.add(index, s.rows, s.columns() * int64_t(sizeof(T)),
                std::min(std::max(bytes / 8, kLeastBlock), kMostBlock), 8);
      flat_.add(index, s.elements(), sizeof(T), kBlockBytes, 1);
      p_at_.push_back(rows);
      rows += s.rows;
      for (size_t k = size_t(first_.back()); k < rows_.all().size(); ++k) {
        q_at_.push_back(columns);
        columns += s.columns();
      }
    }
    first_.push_back(int64_t(rows_.all().size()));
    p_.resize(rows);
    q_.resize(columns);
  }

  void iterate() {
    rows_.run(parallel_, [&](int64_t k) {
      const Block& block = rows_.all()[size_t(k)];
      const SpectralNormForward<T>& a = weights_[block.index];
      C* q = cleared_q(k, a.shape);
      kernels_.products(a.shape, a.weight, block.begin, block.end, a.v, p(block.index), q);
    });
    for (int64_t index = 0; index < count_; ++index) finish_iteration(index);
  }

  // Sigma of u and v as they are.
  void estimate() {
    rows_.run(parallel_, [&](int64_t k) {
      const Block& block = rows_.all()[size_t(k)];
      const SpectralNormForward<T>& a = weights_[block.index];
      kernels_.products(a.shape, a.weight, block.begin, block.end, a.v, p(block.index), nullptr);
    });
    for (int64_t index = 0; index < count_; ++index) {
      const SpectralNormForward<T>& a = weights_[index];
      *a.sigma = C(dot(a.u, p(index), a.shape.rows));
    }
  }

  void normalize() {
    flat_.run(parallel_, [&](int64_t k) {
      const Block& block = flat_.all()[size_t(k)];
      const SpectralNormForward<T>& a = weights_[block.index];
      const C factor = divides(*a.sigma, eps_) ? C(1) / *a.sigma : C(1);
      arrays_.scale(a.weight + block.begin, block.end - block.begin, factor,
                    a.normalized + block.begin);
    });
  }

 private:
  // Each block of rows adds a sum over all columns to the work.
  static constexpr int64_t kLeastBlock = 32 << 10, kMostBlock = 512 << 10;

  C* p(int64_t index) const { return p_.get() + p_at_[size_t(index)]; }
  C* q(int64_t block) const { return q_.get() + q_at_[size_t(block)]; }
  C* cleared_q(int64_t block, const SpectralNormShape& shape) const {
    std::fill_n(q(block), shape.columns(), C(0));
    return q(block);
  }

  void finish_iteration(int64_t index) {
    const SpectralNormForward<T>& a = weights_[index];
    const int64_t rows = a.shape.rows, columns = a.shape.columns();
    const double p_norm = norm(p(index), rows), p_divisor = std::max(p_norm, double(eps_));
    if (p_norm > 0) multiply(p(index), rows, 1 / p_divisor, a.u);
    C* sum = q(first_[size_t(index)]);
    double divisor = p_divisor;
    if (p_norm > kLeastNorm && p_norm < kMostNorm) {
      for (int64_t k = first_[size_t(index)] + 1; k < first_[size_t(index) + 1]; ++k)
        for (int64_t j = 0; j < columns; ++j) sum[j] += q(k)[j];
    } else {
      // u was kept, or W^T (W v) may have overflowed C.
      cleared_q(first_[size_t(index)], a.shape);
      kernels_.products(a.shape, a.weight, 0, rows, nullptr, a.u, sum);
      divisor = 1;
    }
    const double q_norm = norm(sum, columns) / divisor, q_divisor = std::max(q_norm, double(eps_));
    if (q_norm > 0) multiply(sum, columns, 1 / (divisor * q_divisor), a.v);
    *a.sigma = C(q_norm > 0 ? q_norm * (q_norm / q_divisor) : q_norm);
  }

  static constexpr double kLeastNorm = 1e-15, kMostNorm = 1e15;

  const SpectralNormKernels<T>& kernels_ = spectral_norm_kernels<T>();
  const ArrayKernels<T>& arrays_ = array_kernels<T>();
  const SpectralNormForward<T>* weights_;
  int64_t count_;
  C eps_;
  const Parallel& parallel_;
  Blocks rows_, flat_;
  std::vector<int64_t> first_;        // each weight's first block of rows, and the number of blocks
  std::vector<int64_t> p_at_, q_at_;  // where p of a weight and q of a block begin
  Scratch<C> p_, q_;                  // W v, and for each block its share of W^T (W v)
};

}  // namespace

template <typename T>
void spectral_norm_forward(const SpectralNormForward<T>* weights, int64_t count, int64_t iterations,
                           Compute<T> eps, const Parallel& parallel) {
  Forward<T> forward(weights, count, eps, parallel);
  for (int64_t k = 0; k < iterations; ++k) forward.iterate();
  if (iterations == 0) forward.estimate();
  forward.normalize();
}

template void spectral_norm_forward(const SpectralNormForward<float>*, int64_t, int64_t, float,
                                    const Parallel&);
template void spectral_norm_forward(const SpectralNormForward<double>*, int64_t, int64_t, double,
                                    const Parallel&);
template void spectral_norm_forward(const SpectralNormForward<BFloat16>*, int64_t, int64_t, float,
                                    const Parallel&);

}  // namespace ganlstm

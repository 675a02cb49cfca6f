// The three passes of the spectral norm without torch, on the instruction set named on the command
// line: the forward against loops in double, the backward against finite differences of the
// normalised weight, the double backward against finite differences of the backward, float and
// bfloat16 against double, and several threads against one.
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <string>

#include "spectral_norm/spectral_norm.h"
#include "testing.h"

namespace {

using ganlstm::BFloat16;
using ganlstm::Compute;
using ganlstm::Parallel;
using ganlstm::SpectralNormShape;
constexpr double kEps = 1e-12;

struct Point {
  Values weight, u, v, grad, cotangent;
};

struct Results {
  Values normalized, u, v, sigma, grad_weight, g_grad, g_weight;
};

template <typename T>
Results run(const SpectralNormShape& s, const Point& at, int64_t iterations, int64_t threads) {
  using C = Compute<T>;
  const Parallel parallel = reversed(threads);
  const int64_t n = s.elements();
  auto weight = in<T>(at.weight), grad = in<T>(at.grad), cotangent = in<T>(at.cotangent);
  auto u = in<C>(at.u), v = in<C>(at.v), sigma = fresh<C>(1), inner = fresh<C>(1);
  auto normalized = fresh<T>(n), grad_weight = fresh<T>(n), g_grad = fresh<T>(n),
       g_weight = fresh<T>(n);

  const ganlstm::SpectralNormForward<T> forward{s,        weight.data(), u.data(),
                                                v.data(), sigma.data(),  normalized.data()};
  ganlstm::spectral_norm_forward(&forward, 1, iterations, C(kEps), parallel);
  const ganlstm::SpectralNormBackward<T> backward{
      s,        grad.data(),  normalized.data(), u.data(),
      v.data(), sigma.data(), inner.data(),      grad_weight.data()};
  ganlstm::spectral_norm_backward(&backward, 1, C(kEps), parallel);
  const ganlstm::SpectralNormDoubleBackward<T> twice{
      s,        cotangent.data(), grad.data(),  normalized.data(), u.data(),
      v.data(), sigma.data(),     inner.data(), g_grad.data(),     g_weight.data()};
  ganlstm::spectral_norm_double_backward(&twice, 1, C(kEps), parallel);
  return {out(normalized),  out(u),      out(v),       out(sigma),
          out(grad_weight), out(g_grad), out(g_weight)};
}

double at(const SpectralNormShape& s, const Values& weight, int64_t row, int64_t column) {
  return weight[size_t((column / s.inner * s.rows + row) * s.inner + column % s.inner)];
}

void normalize(Values& x) {
  double square = 0;
  for (double value : x) square += value * value;
  for (double& value : x) value /= std::max(std::sqrt(square), kEps);
}

// u, v, sigma and the normalised weight.
Results naive(const SpectralNormShape& s, const Point& point, int64_t iterations) {
  Results r;
  r.u = point.u;
  r.v = point.v;
  const int64_t w = s.columns();
  auto product = [&](const Values& v) {
    Values p(size_t(s.rows), 0.0);
    for (int64_t i = 0; i < s.rows; ++i)
      for (int64_t j = 0; j < w; ++j) p[size_t(i)] += at(s, point.weight, i, j) * v[size_t(j)];
    return p;
  };
  for (int64_t k = 0; k < iterations; ++k) {
    r.u = product(r.v);
    normalize(r.u);
    r.v.assign(size_t(w), 0.0);
    for (int64_t i = 0; i < s.rows; ++i)
      for (int64_t j = 0; j < w; ++j) r.v[size_t(j)] += at(s, point.weight, i, j) * r.u[size_t(i)];
    normalize(r.v);
  }
  const Values p = product(r.v);
  double sigma = 0;
  for (int64_t i = 0; i < s.rows; ++i) sigma += r.u[size_t(i)] * p[size_t(i)];
  r.sigma = {sigma};
  for (double value : point.weight) r.normalized.push_back(value / sigma);
  return r;
}

Point draw(const SpectralNormShape& s, std::mt19937& generator) {
  std::normal_distribution<double> normal;
  auto values = [&](int64_t count) {
    Values result;
    for (int64_t k = 0; k < count; ++k)
      result.push_back(ganlstm::widen(ganlstm::narrow<BFloat16>(float(normal(generator)))));
    return result;
  };
  const int64_t n = s.elements();
  return {values(n), values(s.rows), values(s.columns()), values(n), values(n)};
}

void check_shape(const SpectralNormShape& s, const std::string& name) {
  std::mt19937 generator(3);
  Point point = draw(s, generator);
  for (int64_t iterations : {1, 3}) {
    const Results expected = naive(s, point, iterations);
    for (int64_t threads : {1, 3}) {
      const Results got = run<double>(s, point, iterations, threads);
      compare(got.u, expected.u, 1e-13, name + ", u");
      compare(got.v, expected.v, 1e-13, name + ", v");
      compare(got.sigma, expected.sigma, 1e-13, name + ", sigma");
      compare(got.normalized, expected.normalized, 1e-13, name + ", normalised weight");
    }
  }

  // From here on u and v are constants.
  const Results vectors = naive(s, point, 5);
  point.u = vectors.u;
  point.v = vectors.v;
  const Results got = run<double>(s, point, 0, 1);
  const Values direction = draw(s, generator).weight;
  auto normalized_along_grad = [&](const Values& weight) {
    Point moved = point;
    moved.weight = weight;
    return dot(naive(s, moved, 0).normalized, point.grad);
  };
  auto backward_along_cotangent = [&](const Values& weight, const Values& grad) {
    Point moved = point;
    moved.weight = weight;
    moved.grad = grad;
    return dot(run<double>(s, moved, 0, 1).grad_weight, point.cotangent);
  };
  auto of_weight = [&](const Values& weight) {
    return backward_along_cotangent(weight, point.grad);
  };
  auto of_grad = [&](const Values& grad) { return backward_along_cotangent(point.weight, grad); };
  // Beside the sizes of what is differentiated: a derivative may be near zero.
  const double scale = 1 + std::sqrt(dot(direction, direction) * dot(point.grad, point.grad));
  auto check = [&](double analytic, double numeric, const char* what) {
    if (std::abs(analytic - numeric) <= 1e-7 * scale) return;
    std::printf("FAILED %s, %s: %.12g, by differences %.12g\n", name.c_str(), what, analytic,
                numeric);
    ++failures;
  };
  check(dot(got.grad_weight, direction), derivative(normalized_along_grad, point.weight, direction),
        "backward");
  check(dot(got.g_weight, direction), derivative(of_weight, point.weight, direction),
        "double backward of the weight");
  check(dot(got.g_grad, direction), derivative(of_grad, point.grad, direction),
        "double backward of the cotangent");

  auto check_type = [&](auto type, double tolerance, const std::string& what) {
    using T = decltype(type);
    const Results one = run<T>(s, point, 2, 1), truth = run<double>(s, point, 2, 1);
    compare(one.u, truth.u, std::min(tolerance, 1e-4), what + ", u");
    compare(one.v, truth.v, std::min(tolerance, 1e-4), what + ", v");
    compare(one.normalized, truth.normalized, tolerance, what + ", normalised weight");
    if (s.elements() > 1) {  // a single element has a gradient of 0, made of roundings
      compare(one.grad_weight, truth.grad_weight, tolerance, what + ", backward");
      compare(one.g_grad, truth.g_grad, tolerance, what + ", double backward of the cotangent");
      compare(one.g_weight, truth.g_weight, 4 * tolerance,
              what + ", double backward of the weight");
    }
    for (int64_t threads : {2, 5}) {
      const Results same = run<T>(s, point, 2, threads);
      compare(same.v, one.v, 0, what + ", v of several threads");
      compare(same.grad_weight, one.grad_weight, 0, what + ", backward of several threads");
      compare(same.g_weight, one.g_weight, 0, what + ", double backward of several threads");
    }
  };
  check_type(float(), 1e-4, name + " in float");
  check_type(BFloat16(), 2e-2, name + " in bfloat16");
}

void check_zero() {
  const SpectralNormShape s{1, 4, 6};
  std::mt19937 generator(5);
  Point point = draw(s, generator);
  point.weight.assign(24, 0.0);
  for (int64_t iterations : {0, 2}) {
    const Results got = run<double>(s, point, iterations, 1);
    compare(got.u, point.u, 0, "zero weight, u");
    compare(got.v, point.v, 0, "zero weight, v");
    compare(got.normalized, point.weight, 0, "zero weight");
    compare(got.grad_weight, point.grad, 0, "zero weight, backward");
    compare(got.g_grad, point.cotangent, 0, "zero weight, double backward of the cotangent");
    compare(got.g_weight, point.weight, 0, "zero weight, double backward of the weight");
  }
}

}  // namespace

int main(int argc, char** argv) {
  return run_tests(argc, argv, [] {
    check_shape({1, 19, 37}, "a matrix");
    check_shape({1, 70, 3000}, "several blocks");
    check_shape({1, 1, 300}, "one row");
    check_shape({1, 300, 1}, "one column");
    check_shape({5, 11, 9}, "a transposed convolution");
    check_shape({40, 33, 16}, "a transposed convolution of several blocks");
    check_shape({7, 30, 1}, "a transposed matrix");
    check_shape({1, 1, 1}, "one element");
    check_zero();
  });
}

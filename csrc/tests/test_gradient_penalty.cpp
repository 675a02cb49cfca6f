// The passes of the gradient penalty without torch, on the instruction set named on the command
// line: the random numbers against their authors' known answers, the interpolation and the norms
// against loops in double, the backward against differences of the value, the double backward
// against differences of the backward, float and bfloat16 against double, several threads against
// one.
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "gradient_penalty/gradient_penalty.h"
#include "gradient_penalty/philox.h"
#include "testing.h"

namespace {

using ganlstm::BFloat16;
using ganlstm::Compute;
using ganlstm::PenaltyOptions;

// Of the arrays' samples.
using Sizes = std::vector<int64_t>;
using Arrays = std::vector<Values>;

void check(bool right, const std::string& what) {
  if (right) return;
  std::printf("FAILED %s\n", what.c_str());
  ++failures;
}

void check_philox() {
  const auto zeros = ganlstm::philox(0, 0);
  check(zeros.x == 0x6627e8d5 && zeros.y == 0xe169c58d, "philox of zeros");
  const double wide = ganlstm::philox_uniform<double>(7, 3);
  const float narrow = ganlstm::philox_uniform<float>(7, 3);
  check(std::floor(wide * 0x1p24) == double(narrow) * 0x1p24, "the first bits of both types");
}

template <typename T>
Values interpolate(const Values& real, const Values& fake, int64_t batch, int64_t threads) {
  const auto r = in<T>(real), f = in<T>(fake);
  auto result = fresh<T>(int64_t(real.size()));
  const int64_t n = int64_t(real.size()) / batch;
  const ganlstm::Interpolation<T> args{batch, n, 99, r.data(), f.data(), result.data()};
  ganlstm::interpolate(args, reversed(threads));
  return out(result);
}

void check_interpolation(const Values& real, const Values& fake, int64_t batch) {
  const int64_t n = int64_t(real.size()) / batch;
  Values expected;
  for (int64_t b = 0; b < batch; ++b) {
    const double a = ganlstm::philox_uniform<double>(99, uint64_t(b));
    for (int64_t k = b * n; k < (b + 1) * n; ++k)
      expected.push_back(a * real[size_t(k)] + (1 - a) * fake[size_t(k)]);
  }
  for (int64_t threads : {1, 3}) {
    compare(interpolate<double>(real, fake, batch, threads), expected, 1e-15, "interpolation");
    compare(interpolate<float>(real, fake, batch, threads), expected, 1e-6, "in float");
    compare(interpolate<BFloat16>(real, fake, batch, threads), expected, 4e-3, "in bfloat16");
  }
}

struct Results {
  double value, g_s;
  Values norms;
  Arrays grad, g_grad;
};

template <typename T>
Results run(const Arrays& grads, const Arrays& v, const Sizes& sizes, int64_t batch,
            const PenaltyOptions& options, double s, int64_t threads) {
  using C = Compute<T>;
  const auto parallel = reversed(threads);
  const size_t count = grads.size();
  std::vector<std::vector<T>> g, cotangents, first, second;
  std::vector<ganlstm::PenaltyGradient<T>> args;
  for (size_t k = 0; k < count; ++k) {
    g.push_back(in<T>(grads[k]));
    cotangents.push_back(in<T>(v[k]));
    first.push_back(fresh<T>(batch * sizes[k]));
    second.push_back(fresh<T>(batch * sizes[k]));
  }
  for (size_t k = 0; k < count; ++k)
    args.push_back({sizes[k], g[k].data(), cotangents[k].data(), first[k].data()});
  std::vector<C> norms(static_cast<size_t>(batch));
  C value, g_s;
  ganlstm::penalty_forward(args.data(), int64_t(count), batch, options, norms.data(), &value,
                           parallel);
  ganlstm::penalty_backward(args.data(), int64_t(count), batch, options, norms.data(), C(s),
                            parallel);
  for (size_t k = 0; k < count; ++k) args[k].out = second[k].data();
  ganlstm::penalty_double_backward(args.data(), int64_t(count), batch, options, norms.data(), C(s),
                                   &g_s, parallel);
  Results r{double(value), double(g_s), out(norms), {}, {}};
  for (size_t k = 0; k < count; ++k) {
    r.grad.push_back(out(first[k]));
    r.g_grad.push_back(out(second[k]));
  }
  return r;
}

double dot(const Arrays& a, const Arrays& b) {
  double sum = 0;
  for (size_t k = 0; k < a.size(); ++k) sum += ::dot(a[k], b[k]);
  return sum;
}

// The derivative of f along `direction`.
template <typename F>
double slope(F f, const Arrays& point, const Arrays& direction) {
  return derivative(
      [&](const Values& step) {
        Arrays to = point;
        for (size_t k = 0; k < to.size(); ++k)
          for (size_t j = 0; j < to[k].size(); ++j) to[k][j] += step[0] * direction[k][j];
        return f(to);
      },
      {0.0}, {1.0});
}

void check_penalty(const Sizes& sizes, int64_t batch, const PenaltyOptions& options,
                   const std::string& name) {
  std::mt19937 generator(3);
  std::normal_distribution<double> normal;
  double elements = 0;
  for (int64_t size : sizes) elements += double(size);
  auto draw = [&](double scale) {
    Arrays result;
    for (int64_t size : sizes) {
      Values values;
      for (int64_t k = 0; k < batch * size; ++k)
        values.push_back(
            ganlstm::widen(ganlstm::narrow<BFloat16>(float(scale * normal(generator)))));
      result.push_back(values);
    }
    return result;
  };
  const Arrays grads = draw(1.3 / std::sqrt(elements)), v = draw(1),
               direction = draw(1 / std::sqrt(elements));
  const double s = 0.75;
  const Results got = run<double>(grads, v, sizes, batch, options, s, 1);

  double value = 0;
  for (int64_t b = 0; b < batch; ++b) {
    double square = 0;
    for (size_t k = 0; k < sizes.size(); ++k)
      for (int64_t j = b * sizes[k]; j < (b + 1) * sizes[k]; ++j)
        square += grads[k][size_t(j)] * grads[k][size_t(j)];
    double excess = std::sqrt(square) - options.center;
    if (options.one_sided) excess = std::max(excess, 0.0);
    value += excess * excess / double(batch);
  }
  compare({got.value}, {value}, 1e-13, name + ", value");

  auto close = [&](double analytic, double numeric, const char* what) {
    const double scale = 1 + std::sqrt(dot(direction, direction) / double(batch));
    check(std::abs(analytic - numeric) <= 1e-7 * scale, name + ", " + what);
  };
  auto of_value = [&](const Arrays& at) {
    return s * run<double>(at, v, sizes, batch, options, s, 1).value;
  };
  auto of_gradient = [&](const Arrays& at) {
    return dot(run<double>(at, v, sizes, batch, options, s, 1).grad, v);
  };
  close(dot(got.grad, direction), slope(of_value, grads, direction), "backward");
  close(dot(got.g_grad, direction), slope(of_gradient, grads, direction), "double backward");
  close(got.g_s, dot(got.grad, v) / s, "double backward of the cotangent");

  auto check_type = [&](auto type, double tolerance, const std::string& what) {
    using T = decltype(type);
    const Results one = run<T>(grads, v, sizes, batch, options, s, 1);
    compare({one.value}, {got.value}, 1e-5, what + ", value");
    for (int64_t threads : {2, 5}) {
      const Results same = run<T>(grads, v, sizes, batch, options, s, threads);
      compare({same.value, same.g_s}, {one.value, one.g_s}, 0, what + ", several threads");
      for (size_t k = 0; k < sizes.size(); ++k) {
        compare(same.grad[k], one.grad[k], 0, what + ", backward of several threads");
        compare(same.g_grad[k], one.g_grad[k], 0, what + ", double backward of several threads");
      }
    }
    for (size_t k = 0; k < sizes.size(); ++k) {
      compare(one.grad[k], got.grad[k], tolerance, what + ", backward");
      compare(one.g_grad[k], got.g_grad[k], tolerance, what + ", double backward");
    }
  };
  check_type(double(), 0, name + " in double");
  check_type(float(), 1e-5, name + " in float");
  check_type(BFloat16(), 1e-2, name + " in bfloat16");
}

void check_zero() {
  const Arrays zeros{Values(12, 0.0)}, ones{Values(12, 1.0)};
  const Results around_one = run<double>(zeros, ones, {4}, 3, {1, false}, 1, 1);
  check(around_one.value == 1, "zero gradient, value");
  compare(around_one.grad[0], zeros[0], 0, "zero gradient, backward");
  compare(around_one.g_grad[0], zeros[0], 0, "zero gradient, double backward");
  const Results around_zero = run<double>(zeros, ones, {4}, 3, {0, false}, 1, 1);
  compare(around_zero.g_grad[0], Values(12, 2.0 / 3), 1e-15, "curvature at a zero gradient");
}

}  // namespace

int main(int argc, char** argv) {
  return run_tests(argc, argv, [] {
    check_philox();
    std::mt19937 generator(1);
    std::normal_distribution<double> normal;
    // The last are written past the caches, from places that are not aligned.
    for (int64_t n : {1, 37, 50000, 700001}) {
      Values real, fake;
      for (int64_t k = 0; k < 3 * n; ++k) {
        real.push_back(normal(generator));
        fake.push_back(normal(generator));
      }
      check_interpolation(real, fake, 3);
    }
    for (const PenaltyOptions& options :
         {PenaltyOptions{1, false}, PenaltyOptions{1, true}, PenaltyOptions{0, false}}) {
      check_penalty({19}, 5, options, "a small array");
      check_penalty({50000}, 2, options, "an array of several parts");
      check_penalty({3, 40000, 7}, 2, options, "several arrays");
    }
    check_zero();
  });
}

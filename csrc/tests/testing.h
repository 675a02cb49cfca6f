// What the tests of the kernels without torch share.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "common/bfloat16.h"
#include "common/cpu/isa.h"
#include "common/cpu/parallel.h"

namespace {

using Values = std::vector<double>;

int failures = 0;

// Tasks may run in any order, so they run in the opposite one.
ganlstm::Parallel reversed(int64_t threads) {
  return {threads, [](int64_t tasks, void (*task)(int64_t, void*), void* data) {
            for (int64_t index = tasks; index-- > 0;) task(index, data);
          }};
}

template <typename T>
std::vector<T> in(const Values& values) {
  std::vector<T> result;
  for (double value : values) result.push_back(ganlstm::narrow<T>(ganlstm::Compute<T>(value)));
  return result;
}

// Full of NaN for a pass to write.
template <typename T>
std::vector<T> fresh(int64_t count) {
  return in<T>(Values(size_t(count), std::numeric_limits<double>::quiet_NaN()));
}

template <typename T>
Values out(const std::vector<T>& values) {
  Values result;
  for (T value : values) result.push_back(double(ganlstm::widen(value)));
  return result;
}

void compare(const Values& got, const Values& expected, double tolerance, const std::string& what) {
  double error = 0, scale = 0;
  for (size_t k = 0; k < got.size(); ++k) {
    error += (got[k] - expected[k]) * (got[k] - expected[k]);
    scale += expected[k] * expected[k];
  }
  // As it is: a NaN compares as false.
  if (std::sqrt(error) <= tolerance * std::sqrt(scale)) return;
  std::printf("FAILED %s: relative error %.3g, allowed %.3g\n", what.c_str(),
              std::sqrt(error / scale), tolerance);
  ++failures;
}

double dot(const Values& a, const Values& b) {
  double sum = 0;
  for (size_t k = 0; k < a.size(); ++k) sum += a[k] * b[k];
  return sum;
}

// The derivative of f along `direction`, by differences of the fourth order.
double derivative(const std::function<double(const Values&)>& f, const Values& point,
                  const Values& direction) {
  const double h = 1e-3;
  auto moved = [&](double step) {
    Values to = point;
    for (size_t k = 0; k < to.size(); ++k) to[k] += step * direction[k];
    return f(to);
  };
  return (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h);
}

// GANLSTM_FAST_CPU_ISA has chosen the instruction set; the argument says which one it meant.
template <typename F>
int run_tests(int argc, char** argv, F all) {
  if (argc > 1 && std::strcmp(argv[1], ganlstm::cpu_isa()) != 0) {
    std::printf("skipped: runs %s, not %s\n", ganlstm::cpu_isa(), argv[1]);
    return 77;
  }
  all();
  if (failures == 0) std::printf("passed on %s\n", ganlstm::cpu_isa());
  return failures == 0 ? 0 : 1;
}

}  // namespace

// Sums over arrays, for the sources that are compiled once for each instruction set.
#pragma once

#include "simd.h"

namespace ganlstm {
namespace {

template <typename V>
GANLSTM_INLINE double sum_of_lanes(V v) {
  double sum = 0;
  for (size_t lane = 0; lane < sizeof(V) / sizeof(v[0]); ++lane) sum += v[lane];
  return sum;
}

// After this many additions a sum is added to a total and starts again at 0: the rounding error of
// a single long sum would grow with the square root of its length.
constexpr int64_t kRun = 64;

// <a, b> lane by lane.
template <typename A, typename B>
GANLSTM_INLINE Vec<A> dot_lanes(const A* a, const B* b, int64_t count) {
  constexpr int64_t lanes = kLanes<A>, unroll = 4, step = unroll * lanes;
  Vec<A> total = {};
  int64_t k = 0;
  while (k + step <= count) {
    Vec<A> sums[unroll] = {};
    const int64_t end = smaller(count, k + kRun * step);
    for (; k + step <= end; k += step)
#pragma GCC unroll 4
      for (int64_t m = 0; m < unroll; ++m)
        sums[m] += load(a + k + m * lanes) * load(b + k + m * lanes);
    total += (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }
  for (; k < count; k += lanes) {
    const int64_t n = smaller(lanes, count - k);
    total += load_n(a + k, n) * load_n(b + k, n);
  }
  return total;
}

}  // namespace
}  // namespace ganlstm

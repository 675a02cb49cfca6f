// Gradients of the LSTM's weights: sums over all steps of dz^T [h_{t-1} | x_t | 1], one product
// with the vectors along 4H. Each output element is summed by one task in a fixed order: the result
// does not depend on the number of threads.
#pragma once

#include "../common/scratch.h"
#include "../common/simd.h"
#include "lstm.h"
#include "products.h"
#include "slices.h"

namespace ganlstm {
namespace {

template <typename T>
struct GradientSource {
  const T* dz;  // [T,B,D,4H]
  const T* h;   // [T,B,D*H]
  const T* h0;  // [D,B,H], or null for zeros
  const T* x;   // [T,B,I], or null for zeros
};

// Steps whose rows of dz stay in the first-level cache while all columns are summed.
constexpr int64_t kStepBlock = 64;

// sums[m][n] += sum over k of columns[k][first + m] * dz[k][n]
// The block's sum begins at zero and is added once: a single running sum over all T*B steps would
// lose several bits in float32.
template <int M, int N, bool Tail, typename T>
GANLSTM_INLINE void multiply_outer(T* sums, const T* const* columns, int64_t first,
                                   const T* const* dz, int64_t offset, int64_t tail,
                                   int64_t count) {
  constexpr int64_t L = kLanes<T>;
  Vec<T> sum[M][N] = {};
  for (int64_t k = 0; k < count; ++k) {
    const T* from = dz[k] + offset;
    const T* column = columns[k] + first;
    Vec<T> w[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n)
      w[n] = Tail && n == N - 1 ? load_masked(from + n * L, tail) : load(from + n * L);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Vec<T> a = fill<Vec<T>>(column[m]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[m][n] += a * w[n];
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      T* to = sums + (m * N + n) * L;
      store(to, load(to) + sum[m][n]);
    }
}

// One task: N vectors of the 4H gate rows from `offset` on, columns [begin, end) of [h | x].
template <typename T>
struct GradientTask {
  const LstmShape& shape;
  const GradientSource<T>* sources;
  int64_t source_count;
  const T* zeros;  // [H]
  int64_t direction, offset, begin, end;
  bool with_bias;

  template <int N, bool Tail>
  void run(const LstmWeightGrads<T>& out, int64_t tail) const {
    constexpr int64_t L = kLanes<T>, width = N * L;
    const int64_t count = end - begin;
    Scratch<T> memory((count + 1) * width);
    T* sums = memory.get();
    T* bias = sums + count * width;
    memset(sums, 0, size_t((count + 1) * width) * sizeof(T));
    for (int64_t i = 0; i < source_count; ++i) {
      Steps steps(*this, sources[i]);
      while (steps.next()) {
        columns<N, Tail>(sums, steps.h, 0, shape.hidden, steps, tail);
        if (sources[i].x != nullptr)
          columns<N, Tail>(sums, steps.x, shape.hidden, shape.hidden + shape.input, steps, tail);
        if (with_bias && i == 0) {
          for (int n = 0; n < N; ++n) {
            Vec<T> sum = {};
            for (int64_t k = 0; k < steps.count; ++k) {
              const T* from = steps.dz[k] + offset + n * L;
              sum += Tail && n == N - 1 ? load_masked(from, tail) : load(from);
            }
            store(bias + n * L, load(bias + n * L) + sum);
          }
        }
      }
    }
    const int64_t valid = (N - 1) * L + (Tail ? tail : L);
    for (int64_t gate = 0; gate < valid; ++gate) {
      const int64_t row = offset + gate;
      for (int64_t column = begin; column < end; ++column) {
        const T sum = sums[(column - begin) * width + gate];
        if (column < shape.hidden) {
          if (out.hh != nullptr) out.hh[row * shape.hidden + column] = sum;
        } else if (out.ih != nullptr) {
          out.ih[row * shape.input + column - shape.hidden] = sum;
        }
      }
      if (with_bias && out.b_ih != nullptr) out.b_ih[row] = bias[gate];
      if (with_bias && out.b_hh != nullptr) out.b_hh[row] = bias[gate];
    }
  }

 private:
  // Pointers to the next kStepBlock valid (step, row) pairs of a source.
  struct Steps {
    Slice slice;
    const GradientSource<T>& source;
    const T* zeros;
    int64_t t = 0, b = 0, count = 0;
    const T* dz[kStepBlock];
    const T* h[kStepBlock];
    const T* x[kStepBlock];

    Steps(const GradientTask& task, const GradientSource<T>& source)
        : slice{&task.shape, task.direction, 0, 1, task.shape.batch},
          source(source),
          zeros(task.zeros) {}

    bool next() {
      const LstmShape& shape = *slice.shape;
      for (count = 0; shape.batch > 0 && t < shape.steps && count < kStepBlock;) {
        if (t < slice.length(b)) {
          const int64_t before = slice.before(t, b);
          dz[count] = source.dz + slice.at(t, b, 4 * shape.hidden);
          if (before >= 0)
            h[count] = source.h + slice.at(before, b, shape.hidden);
          else
            h[count] = source.h0 == nullptr ? zeros : source.h0 + slice.initial(b, shape.hidden);
          x[count] = source.x == nullptr ? nullptr : source.x + (t * shape.batch + b) * shape.input;
          ++count;
        }
        if (++b == shape.batch) {
          b = 0;
          ++t;
        }
      }
      return count > 0;
    }
  };

  // The part of [begin, end) that lies in [low, high): columns of h, or of x.
  template <int N, bool Tail>
  void columns(T* sums, const T* const* from, int64_t low, int64_t high, const Steps& steps,
               int64_t tail) const {
    constexpr int64_t width = N * kLanes<T>;
    const int64_t first = begin > low ? begin : low, last = smaller(end, high);
    if (first >= last) return;
    for_row_groups(last - first, [&](int64_t r, auto m) {
      multiply_outer<decltype(m)::value, N, Tail>(sums + (first - begin + r) * width, from,
                                                  first - low + r, steps.dz, offset, tail,
                                                  steps.count);
    });
  }
};

// Writes what is wanted of `out[direction]`. The bias' gradient is the sum of the first source's
// dz.
template <typename T>
void weight_gradient(const LstmShape& shape, const GradientSource<T>* sources, int64_t source_count,
                     const LstmWeightGrads<T>* out, const Parallel& parallel) {
  const LstmWeightGrads<T>& first = out[0];
  const bool hh = first.hh != nullptr, ih = first.ih != nullptr, bias = first.b_ih != nullptr;
  if (!hh && !ih && !bias) return;
  constexpr int64_t L = kLanes<T>, width = kColumns * L;
  const int64_t rows = 4 * shape.hidden, slabs = divide_up(rows, width);
  const int64_t low = hh ? 0 : shape.hidden, high = ih ? shape.hidden + shape.input : shape.hidden;
  const int64_t columns = high > low ? high - low : 0;
  const int64_t work = shape.steps * shape.batch * rows * (columns + 1) * shape.directions;
  int64_t parts = 1;
  if (work >= kSerialWork && parallel.threads > 1)
    parts = smaller(divide_up(4 * parallel.threads, slabs * shape.directions),
                    divide_up(columns, 2 * kRows));
  if (parts < 1) parts = 1;
  Scratch<T> zeros(shape.hidden);
  memset(zeros.get(), 0, size_t(shape.hidden) * sizeof(T));
  auto task = [&](int64_t index) {
    const int64_t part = index % parts, slab = index / parts % slabs;
    const int64_t direction = index / parts / slabs, offset = slab * width;
    const GradientTask<T> gradient{shape,
                                   sources,
                                   source_count,
                                   zeros.get(),
                                   direction,
                                   offset,
                                   low + columns * part / parts,
                                   low + columns * (part + 1) / parts,
                                   bias && part == 0};
    const int64_t left = smaller(width, rows - offset), vectors = divide_up(left, L);
    const int64_t tail = left - (vectors - 1) * L;
    const LstmWeightGrads<T>& to = out[direction];
    switch (vectors) {
      case 1:
        return tail == L ? gradient.template run<1, false>(to, tail)
                         : gradient.template run<1, true>(to, tail);
      case 2:
        return tail == L ? gradient.template run<2, false>(to, tail)
                         : gradient.template run<2, true>(to, tail);
      case 3:
        return tail == L ? gradient.template run<3, false>(to, tail)
                         : gradient.template run<3, true>(to, tail);
      default:
        return tail == L ? gradient.template run<4, false>(to, tail)
                         : gradient.template run<4, true>(to, tail);
    }
  };
  const Parallel serial{1, parallel.run};
  for_each_task(work < kSerialWork ? serial : parallel, slabs * parts * shape.directions, task);
}

}  // namespace
}  // namespace ganlstm

// Gradients of the weights: sums over all steps of dz^T [h_{t-1} | x_t | 1], one product
// with the vectors along 4H. The order of each sum is fixed by the shape and the number of threads.
#pragma once

#include "../../common/cpu/scratch.h"
#include "../../common/cpu/simd.h"
#include "../layer.h"
#include "products.h"
#include "slices.h"

namespace ganlstm {
namespace {

// What the steps `range` of a walk against time contribute.
template <typename T>
struct GradientSource {
  StepRows<const T> dz;  // of rows of 4H
  const T* h;            // [T,B,D*H]
  const T* h0;           // [D,B,H], or null for zeros
  const T* x;            // [T,B,I], or null for zeros
  Range range;
};

// Steps whose rows are copied side by side before they are multiplied. In place the rows are often
// large powers of two apart, and would share a few sets of the first-level cache.
template <typename T>
constexpr int64_t kStepBlock = 64 * kDepth<T>;

// sums[m][n] += sum over k of columns[k * stride + m] * dz[k][n], kDepth<T> values of k side by
// side. The block's sum begins at zero and is added once: a single running sum over all T*B steps
// would lose several bits in float32.
template <int M, int N, typename T>
GANLSTM_INLINE void multiply_outer(Compute<T>* sums, const T* columns, int64_t stride, const T* dz,
                                   int64_t count) {
  constexpr int64_t L = kLanes<T>, D = kDepth<T>;
  Vec<T> sum[M][N] = {};
  for (int64_t k = 0; k < count; k += D, columns += D * stride, dz += D * N * L) {
    Factors<T> w[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) w[n] = load_factors(dz + n * D * L);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Factors<T> a = fill_factors(columns + m * D, D);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[m][n] = multiply_add(sum[m][n], a, w[n]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      Compute<T>* to = sums + (m * N + n) * L;
      store(to, load(to) + sum[m][n]);
    }
}

// to[0, count) <- elements from `offset` on of each of kDepth<T> rows, side by side, and up to a
// vector of zeros behind them.
template <typename T>
GANLSTM_INLINE void copy_rows(T* to, const T* const* rows, int64_t offset, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes<T>)
    store_factors(to + i * kDepth<T>, rows, offset + i, count - i);
}

// Pointers to the next kStepBlock valid (step, row) pairs of a source, filled up with null ones to
// a multiple of kDepth.
template <typename T>
struct GradientSteps {
  const Slice& slice;
  const GradientSource<T>& source;
  const T* zeros;  // [H]
  int64_t n, j = 0, count = 0;
  const T* dz[kStepBlock<T>];
  const T* h[kStepBlock<T>];
  const T* x[kStepBlock<T>];

  GradientSteps(const Slice& slice, const GradientSource<T>& source, const T* zeros)
      : slice(slice), source(source), zeros(zeros), n(source.range.begin) {}

  bool next() {
    const LayerShape& shape = *slice.shape;
    for (count = 0; slice.count > 0 && n < source.range.end && count < kStepBlock<T>;) {
      const int64_t t = slice.direction == 0 ? shape.steps - 1 - n : n, b = slice.row(j);
      if (t < slice.length(b)) {
        const int64_t before = slice.before(t, b);
        dz[count] = source.dz.row(slice, n, t, b, 4 * shape.hidden);
        if (before >= 0)
          h[count] = source.h + slice.at(before, b, shape.hidden);
        else
          h[count] = source.h0 == nullptr ? zeros : source.h0 + slice.initial(b, shape.hidden);
        x[count] = source.x == nullptr ? nullptr : source.x + (t * shape.batch + b) * shape.input;
        ++count;
      }
      if (++j == slice.count) {
        j = 0;
        ++n;
      }
    }
    for (int64_t k = count; k % kDepth<T> != 0; ++k) dz[k] = h[k] = x[k] = nullptr;
    return count > 0;
  }
};

// Columns [begin, end) of those of h, x and 1 that are wanted, and rows of the weights in slabs of
// kColumns vectors, slabs [first, last).
struct GradientTile {
  int64_t first, last, begin, end;
};

// Sums of this size stay in the second-level cache while a block of steps is added to them.
constexpr int64_t kSumsBytes = 256 << 10;
// Above this, all tasks share one array of sums.
constexpr int64_t kOwnSumsBytes = 64 << 20;
// Bytes of dz that a walk makes before they are added to the sums, so that they are still in a
// cache: of one slice in its core's second-level cache, of all slices together in the third-level
// cache.
constexpr int64_t kOwnPartBytes = 512 << 10, kSharedPartBytes = 4 << 20;

// Sums are kept between the parts of a walk, so that a backward needs only one part of its dz.
//
// Each slice of the batch has sums of its own and adds to them right after it has made its dz,
// which is then still in its core's cache; finish() adds up the slices in their order. If there are
// too few rows for slices of equal work, or the sums would need too much memory, all tasks share
// one array of sums. The work is then distributed by rows and columns of the weights, after all
// slices have ended.
template <typename T>
class WeightGradient {
 public:
  WeightGradient(const LayerShape& shape, const LayerWeightGrads<T>* out, const Slicing& slices,
                 const Parallel& parallel)
      : shape_(shape),
        slices_(slices),
        out_(out),
        x_begin_(out[0].hh != nullptr ? shape.hidden : 0),
        x_end_(x_begin_ + (out[0].ih != nullptr ? shape.input : 0)),
        columns_(x_end_ + (out[0].b_ih != nullptr || out[0].b_hh != nullptr ? 1 : 0)),
        slabs_(divide_up(4 * shape.hidden, kWidth)),
        copies_(slices.per_direction),
        parallel_(slices.serial ? Parallel{1, nullptr} : parallel),
        zeros_(shape.hidden),
        sums_(0) {
    const int64_t bytes = slices.tasks() * size() * int64_t(sizeof(Compute<T>));
    own_ = slices.is_even(parallel) && bytes <= kOwnSumsBytes;
    if (!own_) copies_ = 1;
    memset(zeros_.get(), 0, size_t(shape.hidden) * sizeof(T));
    if (wanted()) {
      sums_.resize(copies_ * shape.directions * size());
      memset(sums_.get(), 0, size_t(copies_ * shape.directions * size()) * sizeof(Compute<T>));
    }
  }

  bool wanted() const { return columns_ > 0; }

  // The number of steps that a walk makes before their dz is added to the sums.
  int64_t part() const {
    if (!wanted()) return shape_.steps;
    const int64_t step = shape_.batch * shape_.directions * 4 * shape_.hidden * int64_t(sizeof(T));
    const int64_t steps = (own_ ? slices_.tasks() * kOwnPartBytes : kSharedPartBytes) / (step + 1);
    return steps < 1 ? 1 : smaller(steps, shape_.steps);
  }

  // Runs walk(task, range) of every slice over the parts of a walk against time, and adds what each
  // part contributes: sources(range, add) calls add(source, with_bias).
  template <typename Walk, typename Sources>
  void walk_and_add(Walk walk, Sources sources) const {
    const auto in_slices = [&](auto f) { for_each_task(parallel_, slices_.tasks(), f); };
    if (!own_) {
      const auto walk_all = [&](Range range) {
        in_slices([&](int64_t task) { walk(task, range); });
      };
      return walk_all_and_add(walk_all, sources);
    }
    in_slices([&](int64_t task) {
      for_each_part([&](Range range) {
        walk(task, range);
        sources(range, [&](const GradientSource<T>& source, bool with_bias) {
          add(slices_[task], task % copies_, source, with_bias);
        });
      });
    });
  }

  // The same for a walk(range) over all rows, with sums that all tasks share.
  template <typename Walk, typename Sources>
  void walk_all_and_add(Walk walk, Sources sources) const {
    for_each_part([&](Range range) {
      walk(range);
      sources(range,
              [&](const GradientSource<T>& source, bool with_bias) { add_all(source, with_bias); });
    });
  }

  // Writes what is wanted.
  void finish() const {
    if (!wanted()) return;
    auto task = [&](int64_t index) {
      const int64_t direction = index / slabs_, slab = index % slabs_;
      const int64_t width = width_of(slab), valid = rows_of(slab);
      Compute<T>* to = sums(direction, 0) + slab * columns_ * kWidth;
      for (int64_t copy = 1; copy < copies_; ++copy) {
        const Compute<T>* from = sums(direction, copy) + slab * columns_ * kWidth;
        for (int64_t i = 0; i < columns_ * width; i += kLanes<T>)
          store(to + i, load(to + i) + load(from + i));
      }
      const LayerWeightGrads<T>& out = out_[direction];
      for (int64_t row = 0; row < valid; ++row)
        for (int64_t column = 0; column < columns_; ++column)
          write(out, slab * kWidth + row, column, narrow<T>(to[column * width + row]));
    };
    for_each_task(parallel_, slabs_ * shape_.directions, task);
  }

 private:
  static constexpr int64_t kWidth = kColumns * kLanes<T>;

  template <typename F>
  void for_each_part(F f) const {
    const int64_t part = this->part();
    for (int64_t begin = 0; begin < shape_.steps; begin += part)
      f(Range{begin, smaller(begin + part, shape_.steps)});
  }

  // On the calling thread, what the steps of a slice contribute to its sums.
  void add(const Slice& slice, int64_t part, const GradientSource<T>& source,
           bool with_bias) const {
    if (!wanted()) return;
    const int64_t group = kSumsBytes / (columns_ * kWidth * int64_t(sizeof(Compute<T>))) + 1;
    for (int64_t first = 0; first < slabs_; first += group)
      add_tile({first, smaller(first + group, slabs_), 0, end_of(source, with_bias)}, slice, source,
               sums(slice.direction, part));
  }

  // What the steps of all slices contribute, with all threads.
  void add_all(const GradientSource<T>& source, bool with_bias) const {
    if (!wanted()) return;
    int64_t parts = divide_up(4 * parallel_.threads, slabs_ * shape_.directions);
    parts = parallel_.threads == 1 ? 1 : smaller(parts, divide_up(columns_, 2 * kRows));
    auto task = [&](int64_t index) {
      const int64_t part = index % parts, slab = index / parts % slabs_;
      const Slice all{&shape_, index / parts / slabs_, 0, 1, shape_.batch};
      const int64_t end = smaller(columns_ * (part + 1) / parts, end_of(source, with_bias));
      add_tile({slab, slab + 1, columns_ * part / parts, end}, all, source, sums(all.direction, 0));
    };
    for_each_task(parallel_, parts * slabs_ * shape_.directions, task);
  }

  // Of a direction: [slab][column][row], only the last slab may have fewer vectors.
  int64_t size() const { return slabs_ * columns_ * kWidth; }
  Compute<T>* sums(int64_t direction, int64_t part) const {
    return sums_.get() + (direction * copies_ + part) * size();
  }
  int64_t rows_of(int64_t slab) const { return smaller(kWidth, 4 * shape_.hidden - slab * kWidth); }
  int64_t width_of(int64_t slab) const { return divide_up(rows_of(slab), kLanes<T>) * kLanes<T>; }
  int64_t end_of(const GradientSource<T>& source, bool with_bias) const {
    return source.x == nullptr ? x_begin_ : with_bias ? columns_ : x_end_;
  }

  void write(const LayerWeightGrads<T>& out, int64_t row, int64_t column, T sum) const {
    if (column < x_begin_) {
      out.hh[row * shape_.hidden + column] = sum;
    } else if (column < x_end_) {
      out.ih[row * shape_.input + column - x_begin_] = sum;
    } else {
      if (out.b_ih != nullptr) out.b_ih[row] = sum;
      if (out.b_hh != nullptr) out.b_hh[row] = sum;
    }
  }

  void add_tile(const GradientTile& tile, const Slice& slice, const GradientSource<T>& source,
                Compute<T>* sums) const {
    constexpr int64_t L = kLanes<T>, D = kDepth<T>;
    const int64_t columns = tile.end - tile.begin;
    if (columns <= 0) return;
    // Room for a vector of zeros behind a row, and an odd number of vectors from row to row.
    const int64_t stride = (divide_up(columns + L, L) | 1) * L;
    Scratch<T> memory(kStepBlock<T> * (kWidth + stride));
    T *dz = memory.get(), *panel = dz + kStepBlock<T> * kWidth;
    GradientSteps<T> steps(slice, source, zeros_.get());
    while (steps.next()) {
      for (int64_t k = 0; k < steps.count; k += D) {
        T* to = panel + k * stride - tile.begin * D;
        copy_columns(tile, 0, x_begin_, steps.h + k, to);
        copy_columns(tile, x_begin_, x_end_, steps.x + k, to);
        if (tile.end > x_end_)
          for (int64_t i = 0; i < D; ++i) to[x_end_ * D + i] = narrow<T>(1);
      }
      for (int64_t slab = tile.first; slab < tile.last; ++slab) {
        const int64_t rows = rows_of(slab), width = width_of(slab);
        Compute<T>* to = sums + slab * columns_ * kWidth + tile.begin * width;
        for (int64_t k = 0; k < steps.count; k += D)
          copy_rows(dz + k * width, steps.dz + k, slab * kWidth, rows);
        switch (width / L) {
          case 1: multiply_slab<1>(to, columns, panel, stride, dz, steps.count); break;
          case 2: multiply_slab<2>(to, columns, panel, stride, dz, steps.count); break;
          case 3: multiply_slab<3>(to, columns, panel, stride, dz, steps.count); break;
          default: multiply_slab<4>(to, columns, panel, stride, dz, steps.count);
        }
      }
    }
  }

  template <int N>
  static void multiply_slab(Compute<T>* sums, int64_t columns, const T* panel, int64_t stride,
                            const T* dz, int64_t count) {
    for_row_groups(columns, [&](int64_t r, auto m) {
      multiply_outer<decltype(m)::value, N>(sums + r * N * kLanes<T>, panel + r * kDepth<T>, stride,
                                            dz, count);
    });
  }

  // The part of the tile's columns that lies in [low, high), whose values are `from`.
  static void copy_columns(const GradientTile& tile, int64_t low, int64_t high,
                           const T* const* from, T* to) {
    const int64_t first = tile.begin > low ? tile.begin : low, last = smaller(tile.end, high);
    if (first < last) copy_rows(to + first * kDepth<T>, from, first - low, last - first);
  }

  const LayerShape& shape_;
  const Slicing& slices_;
  const LayerWeightGrads<T>* out_;
  int64_t x_begin_, x_end_, columns_, slabs_;  // columns of h, then those of x, then that of 1
  int64_t copies_;                             // arrays of sums of a direction
  bool own_;
  Parallel parallel_;
  Scratch<T> zeros_;
  Scratch<Compute<T>> sums_;
};

}  // namespace
}  // namespace ganlstm

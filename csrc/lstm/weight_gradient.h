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
  const T* dz;  // [steps,B,D,4H], one entry for each step of `range`
  const T* h;   // [T,B,D*H]
  const T* h0;  // [D,B,H], or null for zeros
  const T* x;   // [T,B,I], or null for zeros
  StepRange range;
  bool against;  // dz and range are in the order of the backward, against the direction, not of t
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

// Pointers to the next kStepBlock valid (step, row) pairs of a source.
template <typename T>
struct GradientSteps {
  Slice slice;
  const GradientSource<T>& source;
  const T* zeros;  // [H]
  int64_t n, b = 0, count = 0;
  const T* dz[kStepBlock];
  const T* h[kStepBlock];
  const T* x[kStepBlock];

  GradientSteps(const LstmShape& shape, int64_t direction, const GradientSource<T>& source,
                const T* zeros)
      : slice{&shape, direction, 0, 1, shape.batch},
        source(source),
        zeros(zeros),
        n(source.range.begin) {}

  bool next() {
    const LstmShape& shape = *slice.shape;
    const bool descending = source.against && slice.direction == 0;
    for (count = 0; shape.batch > 0 && n < source.range.end && count < kStepBlock;) {
      const int64_t t = descending ? shape.steps - 1 - n : n;
      if (t < slice.length(b)) {
        const int64_t before = slice.before(t, b);
        dz[count] = source.dz + slice.at(n - source.range.begin, b, 4 * shape.hidden);
        if (before >= 0)
          h[count] = source.h + slice.at(before, b, shape.hidden);
        else
          h[count] = source.h0 == nullptr ? zeros : source.h0 + slice.initial(b, shape.hidden);
        x[count] = source.x == nullptr ? nullptr : source.x + (t * shape.batch + b) * shape.input;
        ++count;
      }
      if (++b == shape.batch) {
        b = 0;
        ++n;
      }
    }
    return count > 0;
  }
};

// One task's share: some vectors of the 4H gate rows from `offset` on, columns [begin, end) of
// [h | x] and, if with_bias, of the 1.
struct GradientTile {
  int64_t direction, offset, vectors, tail, begin, end;
  bool with_bias;
};

// Sums are kept between add() and finish(), so that a backward can hand in its dz in parts and keep
// only one of them.
template <typename T>
class WeightGradient {
 public:
  WeightGradient(const LstmShape& shape, const LstmWeightGrads<T>* out, const Parallel& parallel)
      : shape_(shape),
        out_(out),
        hh_(out[0].hh != nullptr),
        ih_(out[0].ih != nullptr),
        bias_(out[0].b_ih != nullptr || out[0].b_hh != nullptr),
        low_(hh_ ? 0 : shape.hidden),
        columns_((hh_ ? shape.hidden : 0) + (ih_ ? shape.input : 0)),
        slabs_(divide_up(4 * shape.hidden, kColumns * kLanes<T>)),
        parallel_(parallel),
        parts_(1),
        zeros_(shape.hidden),
        sums_(0) {
    const int64_t work =
        shape.steps * shape.batch * 4 * shape.hidden * (columns_ + 1) * shape.directions;
    if (work < kSerialWork) parallel_.threads = 1;
    if (parallel_.threads > 1)
      parts_ = smaller(divide_up(4 * parallel.threads, slabs_ * shape.directions),
                       divide_up(columns_, 2 * kRows));
    if (parts_ < 1) parts_ = 1;
    tile_size_ = (divide_up(columns_, parts_) + 1) * kColumns * kLanes<T>;
    memset(zeros_.get(), 0, size_t(shape.hidden) * sizeof(T));
    if (wanted()) {
      sums_.resize(tasks() * tile_size_);
      memset(sums_.get(), 0, size_t(tasks() * tile_size_) * sizeof(T));
    }
  }

  bool wanted() const { return hh_ || ih_ || bias_; }

  // Adds what the steps of a source contribute; to the bias' gradient too, if with_bias.
  void add(const GradientSource<T>& source, bool with_bias) const {
    if (!wanted()) return;
    auto task = [&](int64_t index) {
      GradientTile tile = tile_of(index);
      tile.with_bias = tile.with_bias && with_bias;
      T* sums = sums_.get() + index * tile_size_;
      const bool ragged = tile.tail != kLanes<T>;
      switch (tile.vectors) {
        case 1:
          return ragged ? add_tile<1, true>(tile, source, sums)
                        : add_tile<1, false>(tile, source, sums);
        case 2:
          return ragged ? add_tile<2, true>(tile, source, sums)
                        : add_tile<2, false>(tile, source, sums);
        case 3:
          return ragged ? add_tile<3, true>(tile, source, sums)
                        : add_tile<3, false>(tile, source, sums);
        default:
          return ragged ? add_tile<4, true>(tile, source, sums)
                        : add_tile<4, false>(tile, source, sums);
      }
    };
    for_each_task(parallel_, tasks(), task);
  }

  // Writes what is wanted.
  void finish() const {
    if (!wanted()) return;
    auto task = [&](int64_t index) {
      const GradientTile tile = tile_of(index);
      const LstmWeightGrads<T>& out = out_[tile.direction];
      const T* sums = sums_.get() + index * tile_size_;
      const int64_t width = tile.vectors * kLanes<T>, hidden = shape_.hidden;
      const T* bias = sums + (tile.end - tile.begin) * width;
      const int64_t valid = (tile.vectors - 1) * kLanes<T> + tile.tail;
      for (int64_t gate = 0; gate < valid; ++gate) {
        const int64_t row = tile.offset + gate;
        for (int64_t column = tile.begin; column < tile.end; ++column) {
          const T sum = sums[(column - tile.begin) * width + gate];
          if (column < hidden)
            out.hh[row * hidden + column] = sum;
          else
            out.ih[row * shape_.input + column - hidden] = sum;
        }
        if (tile.with_bias && out.b_ih != nullptr) out.b_ih[row] = bias[gate];
        if (tile.with_bias && out.b_hh != nullptr) out.b_hh[row] = bias[gate];
      }
    };
    for_each_task(parallel_, tasks(), task);
  }

 private:
  int64_t tasks() const { return slabs_ * parts_ * shape_.directions; }

  GradientTile tile_of(int64_t index) const {
    const int64_t part = index % parts_, slab = index / parts_ % slabs_;
    const int64_t offset = slab * kColumns * kLanes<T>;
    const int64_t rows = smaller(kColumns * kLanes<T>, 4 * shape_.hidden - offset);
    const int64_t vectors = divide_up(rows, kLanes<T>);
    return {index / parts_ / slabs_,
            offset,
            vectors,
            rows - (vectors - 1) * kLanes<T>,
            low_ + columns_ * part / parts_,
            low_ + columns_ * (part + 1) / parts_,
            bias_ && part == 0};
  }

  template <int N, bool Tail>
  void add_tile(const GradientTile& tile, const GradientSource<T>& source, T* sums) const {
    constexpr int64_t L = kLanes<T>, width = N * L;
    const int64_t hidden = shape_.hidden;
    T* bias = sums + (tile.end - tile.begin) * width;
    GradientSteps<T> steps(shape_, tile.direction, source, zeros_.get());
    while (steps.next()) {
      add_columns<N, Tail>(tile, sums, steps.h, 0, hidden, steps);
      if (source.x != nullptr)
        add_columns<N, Tail>(tile, sums, steps.x, hidden, hidden + shape_.input, steps);
      if (!tile.with_bias) continue;
      for (int n = 0; n < N; ++n) {
        Vec<T> sum = {};
        for (int64_t k = 0; k < steps.count; ++k) {
          const T* from = steps.dz[k] + tile.offset + n * L;
          sum += Tail && n == N - 1 ? load_masked(from, tile.tail) : load(from);
        }
        store(bias + n * L, load(bias + n * L) + sum);
      }
    }
  }

  // The part of the tile's columns that lies in [low, high): columns of h, or of x.
  template <int N, bool Tail>
  void add_columns(const GradientTile& tile, T* sums, const T* const* from, int64_t low,
                   int64_t high, const GradientSteps<T>& steps) const {
    constexpr int64_t width = N * kLanes<T>;
    const int64_t first = tile.begin > low ? tile.begin : low, last = smaller(tile.end, high);
    if (first >= last) return;
    for_row_groups(last - first, [&](int64_t r, auto m) {
      multiply_outer<decltype(m)::value, N, Tail>(sums + (first - tile.begin + r) * width, from,
                                                  first - low + r, steps.dz, tile.offset, tile.tail,
                                                  steps.count);
    });
  }

  const LstmShape& shape_;
  const LstmWeightGrads<T>* out_;
  bool hh_, ih_, bias_;
  int64_t low_, columns_, slabs_;
  Parallel parallel_;
  int64_t parts_, tile_size_;
  Scratch<T> zeros_, sums_;
};

}  // namespace
}  // namespace ganlstm

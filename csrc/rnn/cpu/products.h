// The matrix products inside the time loops: micro-kernels that keep a block of sums in registers,
// and the packing of the weights into the order in which these read them.
#pragma once

#include "../../common/cpu/scratch.h"
#include "../../common/cpu/simd.h"
#include "../layer.h"
#include "slices.h"

namespace ganlstm {
namespace {

// Vectors of output columns in a block of sums. In the forward products these are the four slots of
// the same hidden units, so that the cell's step can be computed before anything is stored.
constexpr int kColumns = 4;

// Few rows have too few sums to keep the multipliers busy. Consecutive steps of k then add to
// different sums in turn.
template <int M>
constexpr int kTurns = M == 1                ? kRows / 2 + 1
                       : M == 2 && kRows > 4 ? 2
                                             : 1;

// sums[m][n] += rows[m][k] * packed[k][n] for kDepth<T> values of k, or the first `valid` of them.
template <int M, int N, typename T>
GANLSTM_INLINE void multiply_step(Vec<T> (&sums)[M][N], const T* const (&row)[M], int64_t k,
                                  const T* packed, int64_t valid = kDepth<T>) {
  // Holds the values of all rows, but one vector of weights at a time: with kRows rows, the
  // registers cannot hold all of both.
  Factors<T> a[M];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) a[m] = fill_factors(row[m] + k, valid);
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) {
    const Factors<T> w = load_factors(packed + (k * N + n * kDepth<T>)*kLanes<T>);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) sums[m][n] = multiply_add(sums[m][n], a[m], w);
  }
}

// The longer a sum runs, the more it loses to rounding. A sum of more than kLongestChain products
// is therefore cut into chains of kChain products, which start at zero and are then added to a
// total. (Where steps of k take turns, a chain is longer by their number.) The totals do not fit
// into the registers; shorter sums, whose error is small, do without chains because the way through
// memory would take a noticeable part of their time.
template <int M>
constexpr int64_t kChain = 256 * kTurns<M>;
template <int M>
constexpr int64_t kLongestChain = 2 * kChain<M>;

// sums[m][n] += sum over k in [k, end) of rows[m][k] * packed[k][n], kDepth<T> values of k side by
// side.
template <int M, int N, typename T>
GANLSTM_INLINE void multiply_chain(Vec<T> (&sums)[M][N], const T* const (&row)[M], int64_t k,
                                   int64_t end, const T* packed) {
  if constexpr (kTurns<M> > 1) {
    Vec<T> more[kTurns<M> - 1][M][N] = {};
    for (; k + kTurns<M> * kDepth<T> <= end; k += kTurns<M> * kDepth<T>) {
      multiply_step(sums, row, k, packed);
#pragma GCC unroll 4
      for (int turn = 1; turn < kTurns<M>; ++turn)
        multiply_step(more[turn - 1], row, k + turn * kDepth<T>, packed);
    }
#pragma GCC unroll 4
    for (int turn = 1; turn < kTurns<M>; ++turn)
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) sums[m][n] += more[turn - 1][m][n];
  }
  for (; k + kDepth<T> <= end; k += kDepth<T>) multiply_step(sums, row, k, packed);
  // So that at most one element is left, and only at the end of the last chain.
  static_assert(kDepth<T> <= 2 && kChain<M> % kDepth<T> == 0);
  if constexpr (kDepth<T> > 1)
    if (k < end) multiply_step(sums, row, k, packed, 1);
}

// to[m][n] += sum over k in [k, end) of rows[m][k] * packed[k][n]. Not inlined:
// the compiler would keep the caller's totals in registers and push the sums out of them.
template <int M, int N, typename T>
__attribute__((noinline)) void add_chain(Vec<T> (&to)[M][N], const T* const (&row)[M], int64_t k,
                                         int64_t end, const T* packed) {
  Vec<T> sums[M][N] = {};
  multiply_chain(sums, row, k, end, packed);
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) to[m][n] += sums[m][n];
}

// Where there are 16 registers, the sums stay in them only in a function of its own: inlined, they
// would share the registers with the constants of the caller's loop.
#if defined(__AVX512F__) || defined(__aarch64__)
#define GANLSTM_APART GANLSTM_INLINE
#else
#define GANLSTM_APART __attribute__((noinline))
#endif

template <int M, int N, typename V>
GANLSTM_INLINE void copy_sums(V (&to)[M][N], const V (&from)[M][N]) {
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) to[m][n] = from[m][n];
}

// to[m][n] += sum over k of rows[m][k] * packed[k][n], in one chain where they are at most
// `longest`.
template <int M, int N, typename T>
GANLSTM_APART void multiply(Vec<T> (&to)[M][N], const T* const* rows, int64_t depth,
                            const T* packed, int64_t longest = kLongestChain<M>) {
  const T* row[M];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) row[m] = rows[m];
  if (depth > longest) {
    Vec<T> totals[M][N];
    copy_sums(totals, to);
    for (int64_t k = 0; k < depth; k += kChain<M>)
      add_chain(totals, row, k, smaller(k + kChain<M>, depth), packed);
    copy_sums(to, totals);
  } else {
    Vec<T> sums[M][N];
    copy_sums(sums, to);
    multiply_chain(sums, row, 0, depth, packed);
    copy_sums(to, sums);
  }
}

// Elements of a row of `depth` in a pack.
template <typename T>
constexpr int64_t padded_depth(int64_t depth) {
  return divide_up(depth, kDepth<T>) * kDepth<T>;
}

// Calls f(first, count) for groups of rows, count an integral constant of at most `most`.
template <int M>
struct Count {
  static constexpr int value = M;
};

template <int M, typename F>
GANLSTM_INLINE void for_last_rows(int64_t first, int64_t left, F& f) {
  if constexpr (M > 0) {
    if (left == M)
      f(first, Count<M>{});
    else
      for_last_rows<M - 1>(first, left, f);
  }
}

template <int most = kRows, typename F>
GANLSTM_INLINE void for_row_groups(int64_t rows, F f) {
  int64_t first = 0;
  for (; first + most <= rows; first += most) f(first, Count<most>{});
  for_last_rows<most - 1>(first, rows - first, f);
}

// Weights of the forward products x W^T and h R^T. A block has as many hidden units as a vector has
// lanes and is [depth][slot][lane]: first the H rows of R^T, then the I rows of W^T, with kDepth<T>
// rows side by side.
template <typename T>
struct GatePack {
  static constexpr int64_t width = kColumns * kLanes<T>;
  int64_t blocks, depth, recurrent;

  explicit GatePack(const LayerShape& s)
      : blocks(divide_up(s.hidden, kLanes<T>)),
        depth(padded_depth<T>(s.hidden) + padded_depth<T>(s.input)),
        recurrent(padded_depth<T>(s.hidden)) {}

  int64_t weight_size() const { return blocks * depth * width; }
  int64_t bias_size() const { return blocks * width; }
  int64_t hh(int64_t block) const { return block * depth * width; }
  int64_t ih(int64_t block) const { return hh(block) + recurrent * width; }

  void pack(const LayerShape& s, const LayerWeights<T>& w, int64_t block, T* weights,
            Compute<T>* bias) const {
    pack_matrix(s.hidden, w.hh, s.hidden, block, weights + hh(block));
    pack_matrix(s.hidden, w.ih, s.input, block, weights + ih(block));
    for (int64_t slot = 0; slot < kColumns; ++slot)
      for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
        const int64_t unit = block * kLanes<T> + lane, row = slot * s.hidden + unit;
        Compute<T> sum = 0;
        if (unit < s.hidden && w.b_ih != nullptr) sum += widen(w.b_ih[row]);
        if (unit < s.hidden && w.b_hh != nullptr) sum += widen(w.b_hh[row]);
        bias[block * width + slot * kLanes<T> + lane] = sum;
      }
  }

 private:
  // Tiles of a vector by a vector: the rows of the weights become the columns of the pack.
  static void pack_matrix(int64_t hidden, const T* w, int64_t columns, int64_t block, T* out) {
    if (w == nullptr) return;
    const int64_t unit = block * kLanes<T>, units = smaller(kLanes<T>, hidden - unit);
    for (int64_t k = 0; k < columns; k += kLanes<T> * kDepth<T>)
      for (int64_t slot = 0; slot < kColumns; ++slot) {
        const T* from = w + (slot * hidden + unit) * columns + k;
        T* to = out + k * width + slot * kLanes<T> * kDepth<T>;
        const int64_t valid = columns - k;
        Factors<T> tile[kLanes<T>] = {};
        for (int64_t lane = 0; lane < units; ++lane)
          tile[lane] = load_factors_n(from + lane * columns, valid);
        transpose(tile);
        for (int64_t i = 0; i < kLanes<T> && i * kDepth<T> < valid; ++i)
          memcpy(to + i * kDepth<T> * width, &tile[i], sizeof(tile[i]));
      }
  }
};

// The weights of all directions, packed for the loop; nothing unless `used`.
template <typename T>
class ForwardWeights {
 public:
  ForwardWeights(const LayerShape& shape, const LayerWeights<T>* weights, bool used,
                 const Parallel& parallel)
      : pack_(shape),
        weights_(used ? shape.directions * pack_.weight_size() : 0),
        bias_(used ? shape.directions * pack_.bias_size() : 0) {
    if (!used) return;
    auto task = [&](int64_t index) {
      const int64_t direction = index / pack_.blocks;
      pack_.pack(shape, weights[direction], index % pack_.blocks,
                 weights_.get() + direction * pack_.weight_size(),
                 bias_.get() + direction * pack_.bias_size());
    };
    for_each_pack(parallel, shape.directions * pack_.weight_size(), shape.directions * pack_.blocks,
                  task);
  }

  int64_t blocks() const { return pack_.blocks; }
  int64_t padded() const { return pack_.blocks * kLanes<T>; }  // H in whole vectors
  const T* hh(int64_t direction, int64_t block) const {
    return weights_.get() + direction * pack_.weight_size() + pack_.hh(block);
  }
  const T* ih(int64_t direction, int64_t block) const {
    return weights_.get() + direction * pack_.weight_size() + pack_.ih(block);
  }
  const Compute<T>* bias(int64_t direction, int64_t block) const {
    return bias_.get() + direction * pack_.bias_size() + block * pack_.width;
  }

 private:
  GatePack<T> pack_;
  Scratch<T> weights_;
  Scratch<Compute<T>> bias_;
};

// Weights of the backward products dz R and dz W, or of some of their columns. The columns come in
// vectors, first those of R (the last vector is filled up with zeros), then those of W. A block is
// [4H][vector][lane] with kColumns vectors, the last one with fewer, and kDepth<T> of the 4H rows
// side by side.
template <typename T>
struct ColumnPack {
  Range units, inputs;  // columns of R and of W
  int64_t depth, hidden, input, hidden_vectors, vectors;

  ColumnPack(const LayerShape& s, Range units, Range inputs)
      : units(units),
        inputs(inputs),
        depth(4 * s.hidden),
        hidden(s.hidden),
        input(s.input),
        hidden_vectors(divide_up(units.end - units.begin, kLanes<T>)),
        vectors(hidden_vectors + divide_up(inputs.end - inputs.begin, kLanes<T>)) {}

  ColumnPack(const LayerShape& s, bool with_input)
      : ColumnPack(s, {0, s.hidden}, {0, with_input ? s.input : 0}) {}

  int64_t blocks() const { return divide_up(vectors, kColumns); }
  int64_t size() const { return vectors * depth * kLanes<T>; }
  int64_t offset(int64_t block) const { return block * kColumns * depth * kLanes<T>; }

  void pack(const LayerWeights<T>& w, int64_t block, T* out) const {
    const int64_t first = block * kColumns, count = smaller(kColumns, vectors - first);
    out += offset(block);
    for (int64_t n = 0; n < count; ++n) {
      const int64_t vector = first + n;
      const bool of_hidden = vector < hidden_vectors;
      const T* from = of_hidden ? w.hh : w.ih;
      const int64_t columns = of_hidden ? hidden : input;
      const Range range = of_hidden ? units : inputs;
      const int64_t column =
          range.begin + (of_hidden ? vector : vector - hidden_vectors) * kLanes<T>;
      const int64_t valid = smaller(kLanes<T>, range.end - column);
      for (int64_t k = 0; k < depth; k += kDepth<T>) {
        T* to = out + (k * count + n * kDepth<T>)*kLanes<T>;
        if (from == nullptr) {
          memset(to, 0, size_t(kLanes<T> * kDepth<T>) * sizeof(T));
        } else {
          const T* const rows[] = {from + k * columns, from + (k + 1) * columns};
          store_factors(to, rows, column, valid);
        }
      }
    }
  }
};

// The weights of all directions in a pack; nothing unless `used`.
template <typename T>
class ColumnWeights {
 public:
  ColumnWeights(const LayerShape& shape, const LayerWeights<T>* weights, const ColumnPack<T>& pack,
                bool used, const Parallel& parallel)
      : size_(pack.size()), memory_(used ? shape.directions * size_ : 0) {
    if (!used) return;
    auto task = [&](int64_t index) {
      const int64_t direction = index / pack.blocks();
      pack.pack(weights[direction], index % pack.blocks(), memory_.get() + direction * size_);
    };
    for_each_pack(parallel, shape.directions * size_, shape.directions * pack.blocks(), task);
  }

  const T* of(int64_t direction) const {
    return memory_.get() == nullptr ? nullptr : memory_.get() + direction * size_;
  }

 private:
  int64_t size_;
  Scratch<T> memory_;
};

// Multiplies `rows` rows with a ColumnPack: a packed_a, or, where packed_b is not null, the sum
// a packed_a + b packed_b. The columns of R go to state[row][state_stride], those of W to
// outputs[row]; both arrays begin at unit or input 0.
template <int M, int N, typename T>
GANLSTM_INLINE void multiply_columns_block(const ColumnPack<T>& pack, int64_t first_vector,
                                           const T* const* a, const T* packed_a, const T* const* b,
                                           const T* packed_b, Compute<T>* state,
                                           int64_t state_stride, T* const* outputs) {
  Vec<T> sums[M][N] = {};
  multiply(sums, a, pack.depth, packed_a);
  if (packed_b != nullptr) multiply(sums, b, pack.depth, packed_b);
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      const int64_t vector = first_vector + n;
      if (vector < pack.hidden_vectors) {
        store(state + m * state_stride + pack.units.begin + vector * kLanes<T>, sums[m][n]);
      } else {
        const int64_t column = pack.inputs.begin + (vector - pack.hidden_vectors) * kLanes<T>;
        store_n(outputs[m] + column, sums[m][n], pack.inputs.end - column);
      }
    }
}

template <typename T>
void multiply_columns(const ColumnPack<T>& pack, int64_t rows, const T* const* a, const T* weights,
                      const T* const* b, const T* v_weights, Compute<T>* state,
                      int64_t state_stride, T* const* outputs) {
  for (int64_t block = 0; block < pack.blocks(); ++block) {
    const int64_t first = block * kColumns, count = smaller(kColumns, pack.vectors - first);
    const T* packed_a = weights + pack.offset(block);
    const T* packed_b = v_weights == nullptr ? nullptr : v_weights + pack.offset(block);
    for_row_groups(rows, [&](int64_t r, auto m) {
      constexpr int M = decltype(m)::value;
      Compute<T>* to = state + r * state_stride;
      switch (count) {
        case 1:
          return multiply_columns_block<M, 1>(pack, first, a + r, packed_a, b + r, packed_b, to,
                                              state_stride, outputs + r);
        case 2:
          return multiply_columns_block<M, 2>(pack, first, a + r, packed_a, b + r, packed_b, to,
                                              state_stride, outputs + r);
        case 3:
          return multiply_columns_block<M, 3>(pack, first, a + r, packed_a, b + r, packed_b, to,
                                              state_stride, outputs + r);
        default:
          return multiply_columns_block<M, 4>(pack, first, a + r, packed_a, b + r, packed_b, to,
                                              state_stride, outputs + r);
      }
    });
  }
}

}  // namespace
}  // namespace ganlstm

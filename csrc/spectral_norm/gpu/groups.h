// The spectral norm's passes over a list of weights on a GPU, as spectral_norm.h has them, each in
// one launch of a cooperative grid. The order of every sum is the same for any number of blocks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../../common/gpu/divisor.h"
#include "../../common/numbers.h"

namespace ganlstm::cuda::spectral_norm {

constexpr int kThreads = 256;
constexpr int kMostWeights = 64;     // of a launch: they travel as its argument
constexpr int kRowsOfPart = 16;      // of W that a block multiplies at a time
constexpr int kColumnsOfPart = 256;  // that a block sums at a time
constexpr int kElementsOfPart = 8192;

struct Shape {
  int64_t outer, rows, inner;  // A, h, B; fewer than 2^31 elements
  Divisor by_inner, by_rows;

  Shape() = default;
  Shape(int64_t outer, int64_t rows, int64_t inner)
      : outer(outer),
        rows(rows),
        inner(inner),
        by_inner(uint32_t(inner)),
        by_rows(uint32_t(rows)) {}

  GANLSTM_HD int64_t columns() const { return outer * inner; }
  GANLSTM_HD int64_t elements() const { return outer * rows * inner; }
  GANLSTM_HD int64_t row_parts() const { return parts(rows, kRowsOfPart); }
  GANLSTM_HD int64_t column_parts() const { return parts(columns(), kColumnsOfPart); }
  GANLSTM_HD int64_t element_parts() const { return parts(elements(), kElementsOfPart); }
  static GANLSTM_HD int64_t parts(int64_t all, int64_t of_part) {
    return (all + of_part - 1) / of_part;
  }
};

template <typename T>
struct Forward {
  using Element = T;
  using C = compute_t<T>;
  Shape shape;
  const T* weight;  // [A,h,B]
  void* u_from;     // [h] of T, or of C
  void* v_from;     // [w] likewise
  bool u_is_wide, v_is_wide;
  bool overwrites;  // u_from and v_from, after the iterations
  C* u;             // [h] out
  C* v;             // [w] out
  C* sigma;         // [1] out
  T* normalized;    // [A,h,B] out
  C* p;             // [h] room for W v
  C* q;             // [w] room for W^T u
  C* q_parts;       // [row_parts,w] room for the parts of W^T W v
  double* squares;  // [column_parts] room for the parts of |q|^2

  // Numbers of double that a weight's room takes.
  static size_t room(const Shape& s) {
    return size_t(s.rows + s.columns() * (1 + s.row_parts()) + s.column_parts());
  }
  double* set_room(double* at) {
    squares = at;
    p = reinterpret_cast<C*>(squares + shape.column_parts());
    q = p + shape.rows;
    q_parts = q + shape.columns();
    return at + room(shape);
  }
};

template <typename T>
struct Backward {
  using Element = T;
  using C = compute_t<T>;
  Shape shape;
  const T* grad;        // [A,h,B] G
  const T* normalized;  // [A,h,B]
  const C* u;
  const C* v;
  const C* sigma;
  C* inner;        // [1] out: <G, N>
  T* grad_weight;  // [A,h,B] out
  C* dots;         // [element_parts] room

  static size_t room(const Shape& s) { return size_t(s.element_parts()); }
  double* set_room(double* at) {
    dots = reinterpret_cast<C*>(at);
    return at + room(shape);
  }
};

template <typename T>
struct DoubleBackward {
  using Element = T;
  using C = compute_t<T>;
  Shape shape;
  const T* v_weight;  // [A,h,B] V
  const T* grad;
  const T* normalized;
  const C* u;
  const C* v;
  const C* sigma;
  const C* inner;
  T* g_grad;    // [A,h,B] out, or null
  T* g_weight;  // [A,h,B] out, or null
  C* dots;      // [2,element_parts] room

  static size_t room(const Shape& s) { return size_t(2 * s.element_parts()); }
  double* set_room(double* at) {
    dots = reinterpret_cast<C*>(at);
    return at + room(shape);
  }
};

// `iterations`: of the forward; 0 takes u and v as they are.
template <typename Weight>
struct Group {
  Weight weights[kMostWeights];
  int count;
  int iterations;
  compute_t<typename Weight::Element> eps;
};

}  // namespace ganlstm::cuda::spectral_norm

// The spectral norm's forward on a GPU: a weight's arrays, and a block's part of the pass.
#pragma once

#include "parts.h"

namespace ganlstm::gpu::spectral_norm {

template <typename T>
struct Forward {
  using Element = T;
  using C = Compute<T>;
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

#if defined(GANLSTM_GPU)

template <typename T>
struct ForwardPass {
  using Weight = Forward<T>;
  using C = Compute<T>;

  // Where row i has column j.
  static GANLSTM_GPU int64_t at(const Shape& s, int64_t i, int64_t j) {
    if (s.outer == 1) return i * s.inner + j;
    const uint32_t outer = s.by_inner.quotient(uint32_t(j));
    return (outer * s.rows + i - outer) * s.inner + j;
  }
  static GANLSTM_GPU int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

  static GANLSTM_GPU void copy(const void* from, bool is_wide, C* to, int64_t part, int64_t count) {
    const int64_t k = part * kColumnsOfPart + hardware::thread();
    if (hardware::thread() < kColumnsOfPart && k < count)
      to[k] = is_wide ? static_cast<const C*>(from)[k] : load(static_cast<const T*>(from) + k);
  }

  static GANLSTM_GPU void put(void* to, bool is_wide, int64_t k, C value) {
    if (is_wide)
      static_cast<C*>(to)[k] = value;
    else
      store(static_cast<T*>(to) + k, value);
  }

  // p = W v for the part's rows and, if wanted, their share of W^T p while they are in the cache.
  static GANLSTM_GPU void multiply(const Weight& w, int64_t part, bool with_transposed) {
    const Shape& s = w.shape;
    const int64_t first = part * kRowsOfPart, last = smaller(first + kRowsOfPart, s.rows);
    const int lane = hardware::thread() % 32, warps = hardware::threads() / 32;
    for (int64_t i = first + hardware::thread() / 32; i < last; i += warps) {
      C sum = 0;
#pragma unroll 4
      for (int64_t j = lane; j < s.columns(); j += 32)
        sum += load(w.weight + at(s, i, j)) * fresh(w.v + j);
      sum = hardware::warp_sum(sum);
      if (lane == 0) w.p[i] = sum;
    }
    if (!with_transposed) return;
    hardware::block_barrier();
    C factors[kRowsOfPart];
    for (int r = 0; r < kRowsOfPart; ++r) factors[r] = first + r < last ? w.p[first + r] : C(0);
    for (int64_t j = hardware::thread(); j < s.columns(); j += hardware::threads()) {
      C sum = 0;
      for (int r = 0; r < kRowsOfPart && first + r < last; ++r)
        sum += load(w.weight + at(s, first + r, j)) * factors[r];
      w.q_parts[part * s.columns() + j] = sum;
    }
  }

  static GANLSTM_GPU double norm_of_p(const Weight& w) {
    double sum = 0;
    for (int64_t i = hardware::thread(); i < w.shape.rows; i += hardware::threads()) {
      const double p = fresh(w.p + i);
      sum += p * p;
    }
    return hardware::square_root(block_sum(sum));
  }
  static GANLSTM_GPU C inverse(double norm, C eps) { return C(1 / (norm > eps ? norm : eps)); }

  // q = W^T u of the part's columns.
  static GANLSTM_GPU void sum_columns(const Weight& w, int64_t part, C eps) {
    const Shape& s = w.shape;
    const double norm = norm_of_p(w);
    const C scale = inverse(norm, eps);
    const int64_t j = part * kColumnsOfPart + hardware::thread();
    double q = 0;  // a tall weight has thousands of parts
    if (j < s.columns() && norm > 1e-15 && norm < 1e15) {
      for (int64_t k = 0; k < s.row_parts(); ++k) q += fresh(w.q_parts + k * s.columns() + j);
      q *= scale;
    } else if (j < s.columns()) {
      // u is kept, or W^T (W v) may have overflowed C.
      for (int64_t i = 0; i < s.rows; ++i)
        q += load(w.weight + at(s, i, j)) * (norm > 0 ? fresh(w.p + i) * scale : fresh(w.u + i));
    }
    if (j < s.columns()) w.q[j] = C(q);
    const double square = block_sum(q * q);
    if (hardware::thread() == 0) w.squares[part] = square;
  }
  static GANLSTM_GPU void update_u(const Weight& w, C eps) {
    const double norm = norm_of_p(w);
    const C scale = inverse(norm, eps);
    if (!(norm > 0)) return;
    for (int64_t i = hardware::thread(); i < w.shape.rows; i += hardware::threads()) {
      w.u[i] = fresh(w.p + i) * scale;
      if (w.overwrites) put(w.u_from, w.u_is_wide, i, w.u[i]);
    }
  }

  static GANLSTM_GPU double norm_of_q(const Weight& w) {
    double sum = 0;
    for (int64_t k = 0; k < w.shape.column_parts(); ++k) sum += fresh(w.squares + k);
    return hardware::square_root(sum);
  }
  static GANLSTM_GPU void update_v(const Weight& w, int64_t part, C eps) {
    const double norm = norm_of_q(w);
    const C scale = inverse(norm, eps);
    const int64_t j = part * kColumnsOfPart + hardware::thread();
    if (j >= w.shape.columns() || !(norm > 0)) return;
    w.v[j] = fresh(w.q + j) * scale;
    if (w.overwrites) put(w.v_from, w.v_is_wide, j, w.v[j]);
  }

  // u^T W v: after an iteration |q|^2 / max(|q|, eps), else from p.
  static GANLSTM_GPU C sigma_of(const Weight& w, bool iterated, C eps) {
    if (iterated) {
      const double norm = norm_of_q(w);
      return C(norm * (norm / (norm > eps ? norm : eps)));
    }
    C sum = 0;
    for (int64_t i = hardware::thread(); i < w.shape.rows; i += hardware::threads())
      sum += fresh(w.p + i) * fresh(w.u + i);
    return block_sum(sum);
  }

  static GANLSTM_GPU void run(const Group<Weight>& group, Grid grid) {
    const C eps = group.eps;
    const auto row_parts = [](const Weight& w) { return w.shape.row_parts(); };
    const auto column_parts = [](const Weight& w) { return w.shape.column_parts(); };
    const auto element_parts = [](const Weight& w) { return w.shape.element_parts(); };
    const bool iterates = group.iterations > 0;
    for_each_part(group, grid, column_parts, [&](const Weight& w, int64_t part) {
      copy(w.v_from, w.v_is_wide, w.v, part, w.shape.columns());
      for (int64_t k = part; k * kColumnsOfPart < w.shape.rows; k += w.shape.column_parts())
        copy(w.u_from, w.u_is_wide, w.u, k, w.shape.rows);
    });
    grid.barrier();
    for (int iteration = 0; iteration < (iterates ? group.iterations : 1); ++iteration) {
      for_each_part(group, grid, row_parts,
                    [&](const Weight& w, int64_t part) { multiply(w, part, iterates); });
      grid.barrier();
      if (!iterates) break;
      for_each_part(group, grid, column_parts,
                    [&](const Weight& w, int64_t part) { sum_columns(w, part, eps); });
      grid.barrier();
      // Not earlier: the sum of a column may read the previous u.
      for_each_part(
          group, grid, [](const Weight&) { return int64_t(1); },
          [&](const Weight& w, int64_t) { update_u(w, eps); });
      for_each_part(group, grid, column_parts,
                    [&](const Weight& w, int64_t part) { update_v(w, part, eps); });
      if (iteration + 1 < group.iterations) grid.barrier();
    }
    for_each_part(group, grid, element_parts, [&](const Weight& w, int64_t part) {
      const C sigma = sigma_of(w, iterates, eps);
      if (part == 0 && hardware::thread() == 0) *w.sigma = sigma;
      const C divisor = divides(sigma, eps) ? sigma : C(1);
      const int64_t end = smaller((part + 1) * kElementsOfPart, w.shape.elements());
#pragma unroll 4
      for (int64_t k = part * kElementsOfPart + hardware::thread(); k < end;
           k += hardware::threads())
        store(w.normalized + k, load(w.weight + k) / divisor);
    });
  }
};

#endif

}  // namespace ganlstm::gpu::spectral_norm

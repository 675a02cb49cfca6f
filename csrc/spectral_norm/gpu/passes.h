// A block's part of the spectral norm's passes on a GPU. Between the phases of a pass all blocks
// wait for each other.
#pragma once

#include "../../common/gpu/grid.h"
#include "groups.h"

namespace ganlstm::cuda::spectral_norm {

#if defined(GANLSTM_DEVICE)

// body(weight, part) for this block's parts of all weights: the next in turn, whoever's it is.
template <typename Weight, typename Parts, typename Body>
GANLSTM_DEVICE void for_each_part(const Group<Weight>& group, const Grid& grid, Parts&& parts,
                                  Body&& body) {
  int64_t next = device::block(), begin = 0;
  for (int k = 0; k < group.count; ++k) {
    const Weight& weight = group.weights[k];
    const int64_t end = begin + parts(weight);
    for (; next < end; next += grid.blocks) body(weight, next - begin);
    begin = end;
  }
}

// What other blocks have written in an earlier phase.
template <typename C>
GANLSTM_DEVICE C fresh(const C* p) {
  return device::load_of_others(p);
}

// Whether sigma divides the weight; otherwise it is a constant 1 that does.
template <typename C>
GANLSTM_DEVICE bool divides(C sigma, C eps) {
  return (sigma < 0 ? -sigma : sigma) > eps;
}

template <typename T>
struct ForwardPass {
  using Weight = Forward<T>;
  using C = compute_t<T>;

  // Where row i has column j.
  static GANLSTM_DEVICE int64_t at(const Shape& s, int64_t i, int64_t j) {
    if (s.outer == 1) return i * s.inner + j;
    const uint32_t outer = s.by_inner.quotient(uint32_t(j));
    return (outer * s.rows + i - outer) * s.inner + j;
  }
  static GANLSTM_DEVICE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

  static GANLSTM_DEVICE void copy(const void* from, bool is_wide, C* to, int64_t part,
                                  int64_t count) {
    const int64_t k = part * kColumnsOfPart + device::thread();
    if (device::thread() < kColumnsOfPart && k < count)
      to[k] = is_wide ? static_cast<const C*>(from)[k] : load(static_cast<const T*>(from) + k);
  }

  static GANLSTM_DEVICE void put(void* to, bool is_wide, int64_t k, C value) {
    if (is_wide)
      static_cast<C*>(to)[k] = value;
    else
      store(static_cast<T*>(to) + k, value);
  }

  // p = W v for the part's rows, and, wanted, their share of W^T p, while W is in the cache.
  static GANLSTM_DEVICE void multiply(const Weight& w, int64_t part, bool with_transposed) {
    const Shape& s = w.shape;
    const int64_t first = part * kRowsOfPart, last = smaller(first + kRowsOfPart, s.rows);
    const int lane = device::thread() % 32, warps = device::threads() / 32;
    for (int64_t i = first + device::thread() / 32; i < last; i += warps) {
      C sum = 0;
#pragma unroll 4
      for (int64_t j = lane; j < s.columns(); j += 32)
        sum += load(w.weight + at(s, i, j)) * fresh(w.v + j);
      sum = device::warp_sum(sum);
      if (lane == 0) w.p[i] = sum;
    }
    if (!with_transposed) return;
    device::block_barrier();
    C factors[kRowsOfPart];
    for (int r = 0; r < kRowsOfPart; ++r) factors[r] = first + r < last ? w.p[first + r] : C(0);
    for (int64_t j = device::thread(); j < s.columns(); j += device::threads()) {
      C sum = 0;
      for (int r = 0; r < kRowsOfPart && first + r < last; ++r)
        sum += load(w.weight + at(s, first + r, j)) * factors[r];
      w.q_parts[part * s.columns() + j] = sum;
    }
  }

  static GANLSTM_DEVICE double norm_of_p(const Weight& w) {
    double sum = 0;
    for (int64_t i = device::thread(); i < w.shape.rows; i += device::threads()) {
      const double p = fresh(w.p + i);
      sum += p * p;
    }
    return device::square_root(block_sum(sum));
  }
  static GANLSTM_DEVICE C inverse(double norm, C eps) { return C(1 / (norm > eps ? norm : eps)); }

  // q = W^T u of the part's columns.
  static GANLSTM_DEVICE void sum_columns(const Weight& w, int64_t part, C eps) {
    const Shape& s = w.shape;
    const double norm = norm_of_p(w);
    const C scale = inverse(norm, eps);
    const int64_t j = part * kColumnsOfPart + device::thread();
    double q = 0;  // a tall weight has thousands of parts
    if (j < s.columns() && norm > 1e-15 && norm < 1e15) {
      for (int64_t k = 0; k < s.row_parts(); ++k) q += fresh(w.q_parts + k * s.columns() + j);
      q *= scale;
    } else if (j < s.columns()) {
      // u is kept, or W^T (W v) may have left the range of C.
      for (int64_t i = 0; i < s.rows; ++i)
        q += load(w.weight + at(s, i, j)) * (norm > 0 ? fresh(w.p + i) * scale : fresh(w.u + i));
    }
    if (j < s.columns()) w.q[j] = C(q);
    const double square = block_sum(q * q);
    if (device::thread() == 0) w.squares[part] = square;
  }
  static GANLSTM_DEVICE void update_u(const Weight& w, C eps) {
    const double norm = norm_of_p(w);
    const C scale = inverse(norm, eps);
    if (!(norm > 0)) return;
    for (int64_t i = device::thread(); i < w.shape.rows; i += device::threads()) {
      w.u[i] = fresh(w.p + i) * scale;
      if (w.overwrites) put(w.u_from, w.u_is_wide, i, w.u[i]);
    }
  }

  static GANLSTM_DEVICE double norm_of_q(const Weight& w) {
    double sum = 0;
    for (int64_t k = 0; k < w.shape.column_parts(); ++k) sum += fresh(w.squares + k);
    return device::square_root(sum);
  }
  static GANLSTM_DEVICE void update_v(const Weight& w, int64_t part, C eps) {
    const double norm = norm_of_q(w);
    const C scale = inverse(norm, eps);
    const int64_t j = part * kColumnsOfPart + device::thread();
    if (j >= w.shape.columns() || !(norm > 0)) return;
    w.v[j] = fresh(w.q + j) * scale;
    if (w.overwrites) put(w.v_from, w.v_is_wide, j, w.v[j]);
  }

  // u^T W v: after an iteration |q|^2 / max(|q|, eps), else from p.
  static GANLSTM_DEVICE C sigma_of(const Weight& w, bool iterated, C eps) {
    if (iterated) {
      const double norm = norm_of_q(w);
      return C(norm * (norm / (norm > eps ? norm : eps)));
    }
    C sum = 0;
    for (int64_t i = device::thread(); i < w.shape.rows; i += device::threads())
      sum += fresh(w.p + i) * fresh(w.u + i);
    return block_sum(sum);
  }

  static GANLSTM_DEVICE void run(const Group<Weight>& group, Grid grid) {
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
      // Only now: a column's sum may read the u before.
      for_each_part(
          group, grid, [](const Weight&) { return int64_t(1); },
          [&](const Weight& w, int64_t) { update_u(w, eps); });
      for_each_part(group, grid, column_parts,
                    [&](const Weight& w, int64_t part) { update_v(w, part, eps); });
      if (iteration + 1 < group.iterations) grid.barrier();
    }
    for_each_part(group, grid, element_parts, [&](const Weight& w, int64_t part) {
      const C sigma = sigma_of(w, iterates, eps);
      if (part == 0 && device::thread() == 0) *w.sigma = sigma;
      const C divisor = divides(sigma, eps) ? sigma : C(1);
      const int64_t end = smaller((part + 1) * kElementsOfPart, w.shape.elements());
#pragma unroll 4
      for (int64_t k = part * kElementsOfPart + device::thread(); k < end; k += device::threads())
        store(w.normalized + k, load(w.weight + k) / divisor);
    });
  }
};

// body(k, u_i v_j) for the part's elements.
template <typename Weight, typename Body>
GANLSTM_DEVICE void for_each_element(const Weight& w, int64_t part, Body&& body) {
  const Shape& s = w.shape;
  const int64_t last = (part + 1) * kElementsOfPart;
  const int64_t end = last < s.elements() ? last : s.elements();
#pragma unroll 4
  for (int64_t k = part * kElementsOfPart + device::thread(); k < end; k += device::threads()) {
    const uint32_t segment = s.by_inner.quotient(uint32_t(k));
    const uint32_t outer = s.by_rows.quotient(segment);
    // Segment outer * h + i begins at column outer * B of row i.
    const int64_t row = segment - outer * s.rows, column = k - (segment - outer) * s.inner;
    body(k, w.u[row] * w.v[column]);
  }
}

template <typename C>
GANLSTM_DEVICE C sum_of_parts(const C* parts, int64_t count) {
  C sum = 0;
  for (int64_t k = device::thread(); k < count; k += device::threads()) sum += fresh(parts + k);
  return block_sum(sum);
}

template <typename T>
struct BackwardPass {
  using Weight = Backward<T>;
  using C = compute_t<T>;

  static GANLSTM_DEVICE void run(const Group<Weight>& group, Grid grid) {
    const auto parts = [](const Weight& w) { return w.shape.element_parts(); };
    for_each_part(group, grid, parts, [&](const Weight& w, int64_t part) {
      C sum = 0;
      for_each_element(w, part,
                       [&](int64_t k, C) { sum += load(w.grad + k) * load(w.normalized + k); });
      sum = block_sum(sum);
      if (device::thread() == 0) w.dots[part] = sum;
    });
    grid.barrier();
    for_each_part(group, grid, parts, [&](const Weight& w, int64_t part) {
      const C c = sum_of_parts(w.dots, w.shape.element_parts());
      if (part == 0 && device::thread() == 0) *w.inner = c;
      const bool is_scaled = divides(*w.sigma, group.eps);
      const C scale = is_scaled ? 1 / *w.sigma : C(1), of_outer = is_scaled ? c : C(0);
      for_each_element(w, part, [&](int64_t k, C outer) {
        store(w.grad_weight + k, (load(w.grad + k) - of_outer * outer) * scale);
      });
    });
  }
};

template <typename T>
struct DoubleBackwardPass {
  using Weight = DoubleBackward<T>;
  using C = compute_t<T>;

  static GANLSTM_DEVICE void run(const Group<Weight>& group, Grid grid) {
    const auto parts = [](const Weight& w) { return w.shape.element_parts(); };
    for_each_part(group, grid, parts, [&](const Weight& w, int64_t part) {
      C with_outer = 0, with_grad = 0;
      for_each_element(w, part, [&](int64_t k, C outer) {
        with_outer += load(w.v_weight + k) * outer;
        with_grad += load(w.v_weight + k) * load(w.grad + k);
      });
      with_outer = block_sum(with_outer);
      with_grad = block_sum(with_grad);
      if (device::thread() == 0) {
        w.dots[part] = with_outer;
        w.dots[w.shape.element_parts() + part] = with_grad;
      }
    });
    grid.barrier();
    for_each_part(group, grid, parts, [&](const Weight& w, int64_t part) {
      const int64_t count = w.shape.element_parts();
      const C f = sum_of_parts(w.dots, count), with_grad = sum_of_parts(w.dots + count, count);
      const C c = *w.inner;
      const bool is_scaled = divides(*w.sigma, group.eps);
      const C scale = is_scaled ? 1 / *w.sigma : C(1);
      // <V, D> - f c / sigma
      const C of_outer = ((with_grad - c * f) * scale - f * c * scale) * scale;
      const C of_grad = f * scale * scale;
      for_each_element(w, part, [&](int64_t k, C outer) {
        if (w.g_grad != nullptr)
          store(w.g_grad + k, is_scaled
                                  ? (load(w.v_weight + k) - f * load(w.normalized + k)) * scale
                                  : load(w.v_weight + k));
        if (w.g_weight != nullptr)
          store(w.g_weight + k,
                is_scaled ? -(of_outer * outer + of_grad * load(w.grad + k)) : C(0));
      });
    });
  }
};

#endif

}  // namespace ganlstm::cuda::spectral_norm

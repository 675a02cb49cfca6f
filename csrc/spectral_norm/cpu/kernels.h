// What the passes do with a part of one weight. Each kernel is compiled once for each instruction
// set; the passes themselves (forward.cpp and the others) call them through this table.
//
// An array [A,h,B] is A * h segments of B elements that lie side by side; in segment a * h + i the
// matrix has row i and the columns from a * B on.
#pragma once

#include <utility>

#include "../../common/cpu/kernel_table.h"
#include "../spectral_norm.h"

namespace ganlstm {

// An array as the kernels best take it element by element: with segments of one element its
// transpose has longer ones, and u v^T has the roles of u and v exchanged.
template <typename C>
struct SpectralNormSegments {
  SpectralNormSegments(const SpectralNormShape& s, const C* of_rows, const C* of_columns)
      : shape(s), u(of_rows), v(of_columns) {
    if (shape.inner > 1) return;
    shape = {1, s.outer, s.rows};
    std::swap(u, v);
  }
  int64_t count() const { return shape.outer * shape.rows; }

  SpectralNormShape shape;
  const C *u, *v;
};

template <typename T>
struct SpectralNormKernels {
  using C = Compute<T>;

  // For the rows i in [begin, end): with v, p[i] = sum_j W_ij v_j; then, with q, adds p[i] W_ij to
  // q[j] for all j.
  void (*products)(const SpectralNormShape&, const T* w, int64_t begin, int64_t end, const C* v,
                   C* p, C* q);
  // <a, u v^T> over the segments [begin, end)
  double (*dot_outer)(const SpectralNormShape&, const T* a, int64_t begin, int64_t end, const C* u,
                      const C* v);
  // to = x (y a + z u v^T) in the segments [begin, end)
  void (*add_outer)(const SpectralNormShape&, const T* a, int64_t begin, int64_t end, const C* u,
                    const C* v, C x, C y, C z, T* to);
};

GANLSTM_DECLARE_TABLES(SpectralNormKernels, spectral_norm_kernels)

}  // namespace ganlstm

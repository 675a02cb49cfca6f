// The loops of the passes over a part of one weight, compiled once for each instruction set. The
// passes (forward.cpp and the others) call them through this table.
//
// An array [A,h,B] is A * h segments of B elements that lie side by side; in segment a * h + i the
// matrix has row i and the columns from a * B on.
#pragma once

#include <utility>

#include "../../common/cpu/isa.h"
#include "../spectral_norm.h"

namespace ganlstm {

// An array in the form in which kernels go through it fastest. If its segments have one element,
// that is its transpose, which has longer ones; u and v then change places.
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

  // For the rows i in [begin, end): if v is not null, p[i] = sum_j W_ij v_j; then, if q is not
  // null, q[j] += p[i] W_ij for all j.
  void (*products)(const SpectralNormShape&, const T* w, int64_t begin, int64_t end, const C* v,
                   C* p, C* q);
  // <a, u v^T> over the segments [begin, end)
  double (*dot_outer)(const SpectralNormShape&, const T* a, int64_t begin, int64_t end, const C* u,
                      const C* v);
  // to = x (y a + z u v^T) in the segments [begin, end)
  void (*add_outer)(const SpectralNormShape&, const T* a, int64_t begin, int64_t end, const C* u,
                    const C* v, C x, C y, C z, T* to);
};

template <Isa isa, typename T>
const SpectralNormKernels<T>& spectral_norm_kernels_on();

template <typename T>
const SpectralNormKernels<T>& spectral_norm_kernels() {
  return on_chosen_isa([](auto isa) -> const SpectralNormKernels<T>& {
    return spectral_norm_kernels_on<decltype(isa)::value, T>();
  });
}

}  // namespace ganlstm

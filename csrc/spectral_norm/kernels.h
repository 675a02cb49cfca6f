// What the passes do with a part of one weight. Each kernel is compiled once for each instruction
// set; the passes themselves (forward.cpp and the others) call them through this table.
//
// An array [A,h,B] is A * h segments of B elements that lie side by side; in segment a * h + i the
// matrix has row i and the columns from a * B on.
#pragma once

#include <type_traits>

#include "../common/isa.h"
#include "spectral_norm.h"

namespace ganlstm {

template <typename T>
struct SpectralNormKernels {
  using C = Compute<T>;

  // For the rows i in [begin, end): with v, p[i] = sum_j W_ij v_j; then, with q, adds p[i] W_ij to
  // q[j] for all j.
  void (*products)(const SpectralNormShape&, const T* w, int64_t begin, int64_t end, const C* v,
                   C* p, C* q);
  // to = x a
  void (*scale)(const T* a, int64_t count, C x, T* to);
  // to = x (a + y b)
  void (*add)(const T* a, const T* b, int64_t count, C x, C y, T* to);
  // <a, b>
  double (*dot)(const T* a, const T* b, int64_t count);
  // <a, u v^T> over the segments [begin, end)
  double (*dot_outer)(const SpectralNormShape&, const T* a, int64_t begin, int64_t end, const C* u,
                      const C* v);
  // to = x (y a + z u v^T) in the segments [begin, end)
  void (*add_outer)(const SpectralNormShape&, const T* a, int64_t begin, int64_t end, const C* u,
                    const C* v, C x, C y, C z, T* to);
};

#define GANLSTM_DECLARE_KERNELS(isa)                           \
  namespace isa {                                              \
  extern const SpectralNormKernels<float> kernels_float;       \
  extern const SpectralNormKernels<double> kernels_double;     \
  extern const SpectralNormKernels<BFloat16> kernels_bfloat16; \
  }
GANLSTM_DECLARE_KERNELS(baseline)
#if defined(__x86_64__)
GANLSTM_DECLARE_KERNELS(avx2)
GANLSTM_DECLARE_KERNELS(avx512)
#endif

// Those for the processor at hand.
template <typename T>
const SpectralNormKernels<T>& spectral_norm_kernels() {
#define GANLSTM_KERNELS_OF(isa)                 \
  if constexpr (std::is_same_v<T, float>)       \
    return isa::kernels_float;                  \
  else if constexpr (std::is_same_v<T, double>) \
    return isa::kernels_double;                 \
  else                                          \
    return isa::kernels_bfloat16;
#if defined(__x86_64__)
  if (chosen_isa() >= Isa::avx512) {
    GANLSTM_KERNELS_OF(avx512)
  }
  if (chosen_isa() == Isa::avx2) {
    GANLSTM_KERNELS_OF(avx2)
  }
#endif
  GANLSTM_KERNELS_OF(baseline)
}

}  // namespace ganlstm

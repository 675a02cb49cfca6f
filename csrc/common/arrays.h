// Passes over arrays element by element, bound by memory: each reads what it needs once. Sums are
// made in the dtype's own sum type, in runs, so that their rounding does not grow with the length.
#pragma once

#include <cstdint>

#include "kernel_table.h"

namespace ganlstm {

template <typename T>
struct ArrayKernels {
  using C = Compute<T>;

  // to = x a
  void (*scale)(const T* a, int64_t count, C x, T* to);
  // to = x a + y b
  void (*add)(const T* a, const T* b, int64_t count, C x, C y, T* to);
  // to = b + x (a - b)
  void (*mix)(const T* a, const T* b, int64_t count, C x, T* to);
  // <a, b>
  double (*dot)(const T* a, const T* b, int64_t count);
};

GANLSTM_DECLARE_TABLES(ArrayKernels, array_kernels)

}  // namespace ganlstm

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

// The same, whose results go past the caches: a line that is written is then not read first.
GANLSTM_DECLARE_TABLES(ArrayKernels, streaming_array_kernels)

// For results of so many bytes and more. With what they are made of they fill most of a last-level
// cache, and would not stay there for whoever reads them next.
constexpr int64_t kStreamedBytes = int64_t(8) << 20;

// The kernels for a call whose result has `bytes` in all.
template <typename T>
const ArrayKernels<T>& array_kernels_for(int64_t bytes) {
  return bytes < kStreamedBytes ? array_kernels<T>() : streaming_array_kernels<T>();
}

}  // namespace ganlstm

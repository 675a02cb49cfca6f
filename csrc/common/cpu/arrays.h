// Passes over arrays element by element. Memory bounds them, so each reads its inputs once. A long
// sum is cut into runs, so that its rounding error does not grow with its length.
#pragma once

#include <cstdint>

#include "../bfloat16.h"
#include "isa.h"

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

// The kernels of a set. Those that stream write past the caches: a line that is written is then not
// read first.
template <Isa isa, typename T>
const ArrayKernels<T>& array_kernels_on(bool stream);

// Results of at least this many bytes are streamed: together with their inputs they fill most of a
// last-level cache, and would not stay there until they are read.
constexpr int64_t kStreamedBytes = int64_t(8) << 20;

// The kernels for a call whose result has `bytes` in all.
template <typename T>
const ArrayKernels<T>& array_kernels_for(int64_t bytes) {
  return on_chosen_isa([bytes](auto isa) -> const ArrayKernels<T>& {
    return array_kernels_on<decltype(isa)::value, T>(bytes >= kStreamedBytes);
  });
}

// Those whose results stay in the caches.
template <typename T>
const ArrayKernels<T>& array_kernels() {
  return array_kernels_for<T>(0);
}

}  // namespace ganlstm

// What every CUDA kernel needs: the type it computes in, conversions, and the size of a grid.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

namespace ganlstm::cuda {

// 16-bit tensors are computed in float32.
template <typename T>
struct Compute {
  using type = float;
};
template <>
struct Compute<double> {
  using type = double;
};
template <typename T>
using compute_t = typename Compute<T>::type;

template <typename T>
__device__ __forceinline__ compute_t<T> load(const T* p) {
  return static_cast<compute_t<T>>(*p);
}

template <typename T>
__device__ __forceinline__ void store(T* p, compute_t<T> value) {
  *p = static_cast<T>(value);
}

inline constexpr int kThreads = 256;

// Blocks for a loop that strides by the grid; more elements than the grid holds are looped over.
inline unsigned int blocks_for(int64_t elements, int64_t limit = INT32_MAX) {
  return static_cast<unsigned int>(std::min((elements + kThreads - 1) / kThreads, limit));
}

}  // namespace ganlstm::cuda

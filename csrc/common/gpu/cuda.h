// What every CUDA kernel needs: conversions, the current device, and the size of a grid.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "../numbers.h"

namespace ganlstm::cuda {

inline constexpr int kThreads = 256;

// Blocks for a loop that strides by the grid; more elements than the grid holds are looped over.
inline unsigned int blocks_for(int64_t elements, int64_t limit = INT32_MAX) {
  return static_cast<unsigned int>(std::min((elements + kThreads - 1) / kThreads, limit));
}

inline cudaError_t device_attribute(cudaDeviceAttr attribute, int* value) {
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  return error == cudaSuccess ? cudaDeviceGetAttribute(value, attribute, device) : error;
}

// How many blocks of a kernel the device runs at a time.
template <typename Kernel>
cudaError_t resident_blocks(Kernel kernel, int threads, size_t shared, int64_t* blocks) {
  int multiprocessors = 0, each = 0;
  cudaError_t error = device_attribute(cudaDevAttrMultiProcessorCount, &multiprocessors);
  if (error == cudaSuccess)
    error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, threads, shared);
  *blocks = int64_t(multiprocessors) * each;
  return error;
}

}  // namespace ganlstm::cuda

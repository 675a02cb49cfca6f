// How large a grid to launch on the current device.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

namespace ganlstm::gpu {

inline constexpr int kThreads = 256;

// The number of blocks for a loop that strides by the grid, and so covers any number of elements.
inline unsigned int blocks_for(int64_t elements) {
  return static_cast<unsigned int>(
      std::min((elements + kThreads - 1) / kThreads, int64_t(INT32_MAX)));
}

inline cudaError_t device_attribute(cudaDeviceAttr attribute, int* value) {
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  return error == cudaSuccess ? cudaDeviceGetAttribute(value, attribute, device) : error;
}

// How many blocks of a kernel the GPU runs at a time.
template <typename Kernel>
cudaError_t resident_blocks(Kernel kernel, int threads, size_t shared, int64_t* blocks) {
  int multiprocessors = 0, each = 0;
  cudaError_t error = device_attribute(cudaDevAttrMultiProcessorCount, &multiprocessors);
  if (error == cudaSuccess)
    error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, threads, shared);
  *blocks = int64_t(multiprocessors) * each;
  return error;
}

}  // namespace ganlstm::gpu

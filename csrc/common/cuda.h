// What every CUDA kernel needs: conversions, and the size of a grid.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "numbers.h"

namespace ganlstm::cuda {

inline constexpr int kThreads = 256;

// Blocks for a loop that strides by the grid; more elements than the grid holds are looped over.
inline unsigned int blocks_for(int64_t elements, int64_t limit = INT32_MAX) {
  return static_cast<unsigned int>(std::min((elements + kThreads - 1) / kThreads, limit));
}

}  // namespace ganlstm::cuda

// Whether the kernels of this library run on the current GPU.
#pragma once

#include <cuda_runtime.h>

namespace ganlstm::cuda {

// Versions of CUDA are 13000 for 13.0.
struct Probe {
  int driver;
  int runtime;        // the static one that is linked here
  cudaError_t error;  // of loading a kernel: cudaSuccess, no image for this GPU, ...
};

Probe probe();

}  // namespace ganlstm::cuda

// Whether the kernels of this library run on the current GPU.
#pragma once

#include <cuda_runtime.h>

namespace ganlstm::gpu {

// Versions of CUDA are 13000 for 13.0.
struct Probe {
  int driver;
  int runtime;        // the static one that is linked here
  cudaError_t error;  // of loading a kernel: cudaSuccess, no image for this GPU, ...
};

Probe probe();

// The compute capability (90 for 9.0) that the code which runs on the current GPU was compiled for.
// A GPU for which nothing was compiled runs the code for an older one.
cudaError_t compiled_capability(int* value);

}  // namespace ganlstm::gpu

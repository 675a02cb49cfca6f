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

// The compute capability, 90 for 9.0, of which the code is that this library runs on the current
// GPU: a GPU without code of its own runs that of an older one.
cudaError_t compiled_capability(int* value);

}  // namespace ganlstm::gpu

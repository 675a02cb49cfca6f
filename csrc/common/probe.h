// Whether the kernels of this library run on a GPU.
#pragma once

#include <cuda_runtime.h>

namespace ganlstm::cuda {

struct Probe {
  int driver, runtime;  // versions of CUDA, 13000 for 13.0: of the driver, and of the static runtime
  cudaError_t error;    // of loading a kernel on the device: cudaSuccess, no image for it, ...
};

// Leaves the current device as it was.
Probe probe(int device);

}  // namespace ganlstm::cuda

// Whether the kernels of this library run on a GPU.
#pragma once

#include <cuda_runtime.h>

namespace ganlstm::cuda {

// Versions of CUDA are 13000 for 13.0.
struct Probe {
  int driver;
  int runtime;        // the static one that is linked here
  cudaError_t error;  // of loading a kernel on the device: cudaSuccess, no image for it, ...
};

// Leaves the current device as it was.
Probe probe(int device);

}  // namespace ganlstm::cuda

// Starts passes.h's passes.
#pragma once

#include <cuda_runtime.h>

#include "groups.h"

namespace ganlstm::gpu::spectral_norm {

// On `stream` of the current device; returns the error of the launch. `arrivals`: [1] a zero.
// Weight: Forward, Backward or DoubleBackward of float, double, __half or __nv_bfloat16.
template <typename Weight>
cudaError_t launch(const Group<Weight>& group, unsigned int* arrivals, cudaStream_t stream);

}  // namespace ganlstm::gpu::spectral_norm

// Starts passes.h's passes.
#pragma once

#include <cuda_runtime.h>

#include "groups.h"

namespace ganlstm::gpu::gradient_penalty {

// On `stream` of the current device; returns the error of the launch. Sets group.arrivals, where
// there is one, to zero before, and chooses group.wave. T: float, double, __half or __nv_bfloat16.
template <Pass pass, typename T>
cudaError_t launch(Group<T>& group, cudaStream_t stream);

}  // namespace ganlstm::gpu::gradient_penalty

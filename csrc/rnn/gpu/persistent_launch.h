// Starts persistent_steps.h's walk on a GPU.
#pragma once

#include <cuda_runtime.h>

#include "persistent_plan.h"
#include "steps.h"

namespace ganlstm::gpu::persistent {

// Of the current device, which is `device`.
Limits limits_of(int device);

// On `stream` of the current device, by what plan() gave; returns the error of the launch.
// weight_hh [D,4H,H]. `room`: for a grid plan.teams * (plan.room + 4) bytes of zeros, aligned to
// 16. The dtypes of Args are float, __half and __nv_bfloat16; `tf32` lets products of float be
// rounded.
template <typename Args>
cudaError_t launch(const Args& args, const Plan& plan, const typename Args::T* weight_hh,
                   void* room, bool tf32, cudaStream_t stream);

}  // namespace ganlstm::gpu::persistent

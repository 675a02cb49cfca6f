// Starts cluster_steps.h's walk on a GPU.
#pragma once

#include <cuda_runtime.h>

#include "cluster_steps.h"

namespace ganlstm::cuda {

struct ClusterLimits {
  int capability;  // clusters came with 9
  int shared;      // bytes that a block can have
  int multiprocessors;
};
ClusterLimits cluster_limits(int device);

// On `stream` of the current device, with what cluster::plan() gave; returns the error of the
// launch. weight_hh [D,4H,H]. Args: of steps.h, for float, __half and __nv_bfloat16; `tf32` lets
// products of float be rounded.
template <typename Args>
cudaError_t launch_cluster_steps(const Args& args, const ClusterPlan& plan,
                                 const typename Args::T* weight_hh, bool tf32, cudaStream_t stream);

}  // namespace ganlstm::cuda

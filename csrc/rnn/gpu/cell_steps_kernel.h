// The kernel of cell_steps.h. GANLSTM_INSTANTIATE_CELL_STEPS(Args) in a source compiles it for a
// pass, for every dtype that it takes.
#pragma once

#include "../../common/gpu/launch.h"
#include "cell_steps.h"

namespace ganlstm::gpu {
namespace {

template <typename Args>
__global__ void __launch_bounds__(kThreads) cell_step_kernel(const CellStep<Args> step) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t k = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; k < step.elements();
       k += stride)
    step(k);
}

}  // namespace

template <typename Args>
cudaError_t launch_cell_step(const CellStep<Args>& step, cudaStream_t stream) {
  if (step.elements() == 0) return cudaSuccess;
  cell_step_kernel<<<blocks_for(step.elements()), kThreads, 0, stream>>>(step);
  return cudaGetLastError();
}

}  // namespace ganlstm::gpu

#define GANLSTM_INSTANTIATE_CELL_STEP(Args)                                   \
  namespace ganlstm::gpu {                                                    \
  template cudaError_t launch_cell_step(const CellStep<Args>&, cudaStream_t); \
  }
#define GANLSTM_INSTANTIATE_CELL_STEPS(Args)  \
  GANLSTM_INSTANTIATE_CELL_STEP(Args<float>)  \
  GANLSTM_INSTANTIATE_CELL_STEP(Args<double>) \
  GANLSTM_INSTANTIATE_CELL_STEP(Args<__half>) \
  GANLSTM_INSTANTIATE_CELL_STEP(Args<__nv_bfloat16>)

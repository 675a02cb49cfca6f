#include "../../common/gpu/cuda.h"
#include "cell_steps.h"

namespace ganlstm::cuda {
namespace {

template <typename Args>
__global__ void __launch_bounds__(kThreads) lstm_cell_step_kernel(const CellStep<Args> step) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t k = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; k < step.elements();
       k += stride)
    step(k);
}

}  // namespace

template <typename Args>
cudaError_t launch_cell_step(const CellStep<Args>& step, cudaStream_t stream) {
  if (step.elements() == 0) return cudaSuccess;
  lstm_cell_step_kernel<<<blocks_for(step.elements()), kThreads, 0, stream>>>(step);
  return cudaGetLastError();
}

#define INSTANTIATE(T)                                                                          \
  template cudaError_t launch_cell_step(const CellStep<ForwardSteps<T>>&, cudaStream_t);        \
  template cudaError_t launch_cell_step(const CellStep<BackwardSteps<T>>&, cudaStream_t);       \
  template cudaError_t launch_cell_step(const CellStep<TangentForwardSteps<T>>&, cudaStream_t); \
  template cudaError_t launch_cell_step(const CellStep<TangentBackwardSteps<T>>&, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
#undef INSTANTIATE

}  // namespace ganlstm::cuda

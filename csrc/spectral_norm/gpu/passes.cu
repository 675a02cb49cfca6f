#include <algorithm>

#include "../../common/gpu/launch.h"
#include "launch.h"
#include "passes.h"

namespace ganlstm::gpu::spectral_norm {
namespace {

template <typename Weight>
__global__ void __launch_bounds__(kThreads, 2)
    spectral_norm_kernel(const __grid_constant__ Group<Weight> group, unsigned int* arrivals) {
  run(group, {arrivals, static_cast<int>(gridDim.x)});
}

}  // namespace

template <typename Weight>
cudaError_t launch(const Group<Weight>& group, unsigned int* arrivals, cudaStream_t stream) {
  int64_t most = 0;
  const auto kernel = spectral_norm_kernel<Weight>;
  constexpr size_t kShared = kThreads / 32 * sizeof(double);
  const cudaError_t error = resident_blocks(kernel, kThreads, kShared, &most);
  if (error != cudaSuccess) return error;
  int64_t parts = 1;
  for (int k = 0; k < group.count; ++k) {
    const Shape& s = group.weights[k].shape;
    parts += std::max({s.row_parts(), s.column_parts(), s.element_parts()});
  }
  cudaLaunchAttribute cooperative{};
  cooperative.id = cudaLaunchAttributeCooperative;
  cooperative.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned int>(std::min(most, parts)));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = kShared;
  config.stream = stream;
  config.attrs = &cooperative;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, group, arrivals);
}

#define INSTANTIATE(T)                                                                 \
  template cudaError_t launch(const Group<Forward<T>>&, unsigned int*, cudaStream_t);  \
  template cudaError_t launch(const Group<Backward<T>>&, unsigned int*, cudaStream_t); \
  template cudaError_t launch(const Group<DoubleBackward<T>>&, unsigned int*, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
#undef INSTANTIATE

}  // namespace ganlstm::gpu::spectral_norm

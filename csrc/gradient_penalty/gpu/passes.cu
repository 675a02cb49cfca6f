#include <algorithm>

#include "../../common/gpu/launch.h"
#include "launch.h"
#include "passes.h"

namespace ganlstm::gpu::gradient_penalty {
namespace {

static_assert(sizeof(Group<double>) < 4000, "the arguments of a launch take 4096 bytes");

template <Pass pass, typename T>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 2 : 4)
    gradient_penalty_kernel(const __grid_constant__ Group<T> group) {
  run<pass>(group, {group.arrivals, static_cast<int>(gridDim.x)});
}

}  // namespace

template <Pass pass, typename T>
cudaError_t launch(Group<T>& group, cudaStream_t stream) {
  const auto kernel = gradient_penalty_kernel<pass, T>;
  constexpr size_t kShared = kThreads / 32 * sizeof(double);
  int64_t most = INT32_MAX, units = group.units();
  cudaLaunchAttribute cooperative{};
  cooperative.id = cudaLaunchAttributeCooperative;
  if (group.arrivals != nullptr) {
    int cache = 0;
    cudaError_t error = resident_blocks(kernel, kThreads, kShared, &most);
    if (error == cudaSuccess) error = device_attribute(cudaDevAttrL2CacheSize, &cache);
    if (error == cudaSuccess)
      error = cudaMemsetAsync(group.arrivals, 0, sizeof(*group.arrivals), stream);
    if (error != cudaSuccess) return error;
    // Half of the cache for V and g of a wave.
    const int64_t sample = std::max(group.parts * group.part * int64_t(2 * sizeof(T)), int64_t(1));
    group.wave = std::max(cache / 2 / sample, int64_t(1));
    cooperative.val.cooperative = group.writes && !group.is_whole;
    if (cooperative.val.cooperative) units = std::min(units, group.wave * group.parts);
  }
  // As many for each block.
  most = std::max(most, int64_t(1));
  units = std::max(units, int64_t(1));
  const int64_t each = (units + most - 1) / most, blocks = (units + each - 1) / each;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned int>(blocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = kShared;
  config.stream = stream;
  config.attrs = &cooperative;
  config.numAttrs = cooperative.val.cooperative ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, group);
}

#define INSTANTIATE(T)                                                     \
  template cudaError_t launch<Pass::interpolate>(Group<T>&, cudaStream_t); \
  template cudaError_t launch<Pass::forward>(Group<T>&, cudaStream_t);     \
  template cudaError_t launch<Pass::backward>(Group<T>&, cudaStream_t);    \
  template cudaError_t launch<Pass::double_backward>(Group<T>&, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
#undef INSTANTIATE

}  // namespace ganlstm::gpu::gradient_penalty

// The kernel of persistent_steps.h. GANLSTM_INSTANTIATE_PERSISTENT_STEPS(Args) in a source compiles
// it for a pass, for every dtype that it takes.
#pragma once

#include <type_traits>

#include "persistent_launch.h"
#include "persistent_steps.h"

namespace ganlstm::gpu::persistent {
namespace {

template <typename Args, Precision kPrecision, int kColumns, bool kGrid>
__global__ void __launch_bounds__(8 * kMostUnits, 1)
    persistent_steps_kernel(const __grid_constant__ Args args, const __grid_constant__ Plan plan,
                            const typename Args::T* __restrict__ weight_hh, char* rooms,
                            unsigned int* arrivals) {
#if __CUDA_ARCH__ >= 900
  Block<Args, kPrecision, kColumns, kGrid>(args, plan, rooms, arrivals).run(weight_hh);
#else
  __trap();  // limits_of() keeps it from being launched
#endif
}

template <typename Args, Precision kPrecision, int kColumns, bool kGrid>
cudaError_t launch(const Args& args, const Plan& plan, const typename Args::T* weight_hh,
                   char* room, cudaStream_t stream) {
  const auto kernel = persistent_steps_kernel<Args, kPrecision, kColumns, kGrid>;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(plan.shared));
  if (error == cudaSuccess && !kGrid && plan.blocks > 8)
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute together{};
  if (kGrid) {
    together.id = cudaLaunchAttributeCooperative;
    together.val.cooperative = 1;
  } else {
    together.id = cudaLaunchAttributeClusterDimension;
    together.val.clusterDim.x = plan.blocks;
    together.val.clusterDim.y = together.val.clusterDim.z = 1;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned int>(plan.teams) * plan.blocks);
  config.blockDim = dim3(plan.threads);
  config.dynamicSmemBytes = plan.shared;
  config.stream = stream;
  config.attrs = &together;
  config.numAttrs = 1;
  auto* arrivals = reinterpret_cast<unsigned int*>(room + plan.teams * plan.room);
  return cudaLaunchKernelEx(&config, kernel, args, plan, weight_hh, room, arrivals);
}

template <typename Args, Precision kPrecision, int kColumns>
cudaError_t launch(const Args& args, const Plan& plan, const typename Args::T* weight_hh,
                   char* room, cudaStream_t stream) {
  return plan.grid ? launch<Args, kPrecision, kColumns, true>(args, plan, weight_hh, room, stream)
                   : launch<Args, kPrecision, kColumns, false>(args, plan, weight_hh, room, stream);
}

template <typename Args, Precision kPrecision>
cudaError_t launch(const Args& args, const Plan& plan, const typename Args::T* weight_hh,
                   char* room, cudaStream_t stream) {
  switch (plan.columns) {
    case 1: return launch<Args, kPrecision, 1>(args, plan, weight_hh, room, stream);
    case 2: return launch<Args, kPrecision, 2>(args, plan, weight_hh, room, stream);
    default: return launch<Args, kPrecision, 4>(args, plan, weight_hh, room, stream);
  }
}

}  // namespace

template <typename Args>
cudaError_t launch(const Args& args, const Plan& plan, const typename Args::T* weight_hh,
                   void* room, bool tf32, cudaStream_t stream) {
  auto* bytes = static_cast<char*>(room);
  if constexpr (!std::is_same_v<typename Args::T, float>)
    return launch<Args, Precision::native>(args, plan, weight_hh, bytes, stream);
  else if (tf32)
    return launch<Args, Precision::tf32>(args, plan, weight_hh, bytes, stream);
  else
    return launch<Args, Precision::split>(args, plan, weight_hh, bytes, stream);
}

}  // namespace ganlstm::gpu::persistent

#define GANLSTM_INSTANTIATE_PERSISTENT(Args)                                         \
  namespace ganlstm::gpu::persistent {                                               \
  template cudaError_t launch(const Args&, const Plan&, const Args::T*, void*, bool, \
                              cudaStream_t);                                         \
  }
#define GANLSTM_INSTANTIATE_PERSISTENT_STEPS(Args) \
  GANLSTM_INSTANTIATE_PERSISTENT(Args<float>)      \
  GANLSTM_INSTANTIATE_PERSISTENT(Args<__half>)     \
  GANLSTM_INSTANTIATE_PERSISTENT(Args<__nv_bfloat16>)

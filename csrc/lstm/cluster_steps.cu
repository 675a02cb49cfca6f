#include "../common/cuda.h"
#include "cluster_launch.h"
#include "cluster_steps.h"

namespace ganlstm::cuda {
namespace {

template <typename Args, Precision kPrecision, int kColumns>
__global__ void __launch_bounds__(8 * cluster::kMostUnits, 1)
    lstm_cluster_steps_kernel(const __grid_constant__ Args args,
                              const __grid_constant__ ClusterPlan plan,
                              const typename Args::T* __restrict__ weight_hh) {
#if __CUDA_ARCH__ >= 900
  cluster::Block<Args, kPrecision, kColumns>(args, plan).run(weight_hh);
#endif
}

template <typename Args, Precision kPrecision, int kColumns>
cudaError_t launch(const Args& args, const ClusterPlan& plan, const typename Args::T* weight_hh,
                   cudaStream_t stream) {
  const auto kernel = lstm_cluster_steps_kernel<Args, kPrecision, kColumns>;
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(plan.shared));
  if (error == cudaSuccess && plan.blocks > 8)
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = plan.blocks;
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned int>(plan.tiles * plan.blocks),
                        static_cast<unsigned int>(args.shape.directions));
  config.blockDim = dim3(plan.threads);
  config.dynamicSmemBytes = plan.shared;
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, args, plan, weight_hh);
}

template <typename Args, Precision kPrecision>
cudaError_t launch(const Args& args, const ClusterPlan& plan, const typename Args::T* weight_hh,
                   cudaStream_t stream) {
  switch (plan.columns) {
    case 1: return launch<Args, kPrecision, 1>(args, plan, weight_hh, stream);
    case 2: return launch<Args, kPrecision, 2>(args, plan, weight_hh, stream);
    default: return launch<Args, kPrecision, 4>(args, plan, weight_hh, stream);
  }
}

}  // namespace

ClusterLimits cluster_limits(int device) {
  ClusterLimits limits{};
  cudaDeviceGetAttribute(&limits.capability, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&limits.shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  cudaDeviceGetAttribute(&limits.multiprocessors, cudaDevAttrMultiProcessorCount, device);
  return limits;
}

template <typename Args>
cudaError_t launch_cluster_steps(const Args& args, const ClusterPlan& plan,
                                 const typename Args::T* weight_hh, bool tf32,
                                 cudaStream_t stream) {
  if constexpr (!std::is_same_v<typename Args::T, float>)
    return launch<Args, Precision::native>(args, plan, weight_hh, stream);
  else if (tf32)
    return launch<Args, Precision::tf32>(args, plan, weight_hh, stream);
  else
    return launch<Args, Precision::split>(args, plan, weight_hh, stream);
}

#define INSTANTIATE_PASS(Args)                                                                     \
  template cudaError_t launch_cluster_steps(const Args&, const ClusterPlan&, const Args::T*, bool, \
                                            cudaStream_t);
#define INSTANTIATE(T)                     \
  INSTANTIATE_PASS(ForwardSteps<T>)        \
  INSTANTIATE_PASS(BackwardSteps<T>)       \
  INSTANTIATE_PASS(TangentForwardSteps<T>) \
  INSTANTIATE_PASS(TangentBackwardSteps<T>)
INSTANTIATE(float)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
#undef INSTANTIATE
#undef INSTANTIATE_PASS

}  // namespace ganlstm::cuda

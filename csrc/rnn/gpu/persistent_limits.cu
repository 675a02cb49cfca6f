#include <algorithm>

#include "../../common/gpu/probe.h"
#include "persistent_launch.h"

namespace ganlstm::gpu::persistent {

Limits limits_of(int device) {
  int capability = 0, shared = 0, multiprocessors = 0, compiled = 0;
  cudaDeviceGetAttribute(&capability, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  // A newer GPU also runs what was compiled for an older one, where the walk is empty.
  if (compiled_capability(&compiled) != cudaSuccess) return {};
  return {std::min(capability, compiled / 10), static_cast<size_t>(shared), multiprocessors};
}

}  // namespace ganlstm::gpu::persistent

#include "probe.h"

namespace ganlstm::gpu {
namespace {

__global__ void probe_kernel() {}

}  // namespace

cudaError_t compiled_capability(int* value) {
  cudaFuncAttributes attributes{};
  const cudaError_t error = cudaFuncGetAttributes(&attributes, probe_kernel);
  if (error != cudaSuccess) cudaGetLastError();  // else the next launch reports the error again
  *value = attributes.ptxVersion;
  return error;
}

Probe probe() {
  Probe result{};
  cudaDriverGetVersion(&result.driver);
  cudaRuntimeGetVersion(&result.runtime);
  int capability = 0;
  result.error = compiled_capability(&capability);
  return result;
}

}  // namespace ganlstm::gpu

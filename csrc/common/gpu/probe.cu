#include "probe.h"

namespace ganlstm::cuda {
namespace {

__global__ void probe_kernel() {}

cudaError_t load_kernel() {
  cudaFuncAttributes attributes{};
  const cudaError_t error = cudaFuncGetAttributes(&attributes, probe_kernel);
  cudaGetLastError();  // else the error is reported again by the next launch
  return error;
}

}  // namespace

Probe probe() {
  Probe result{};
  cudaDriverGetVersion(&result.driver);
  cudaRuntimeGetVersion(&result.runtime);
  result.error = load_kernel();
  return result;
}

}  // namespace ganlstm::cuda

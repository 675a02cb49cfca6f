#include "probe.h"

namespace ganlstm::cuda {
namespace {

__global__ void probe_kernel() {}

cudaError_t load_kernel(int device) {
  int before = 0;
  cudaError_t error = cudaGetDevice(&before);
  if (error == cudaSuccess) error = cudaSetDevice(device);
  if (error != cudaSuccess) return error;
  cudaFuncAttributes attributes{};
  error = cudaFuncGetAttributes(&attributes, probe_kernel);
  cudaGetLastError();  // else the error is reported again by the next launch
  const cudaError_t back = cudaSetDevice(before);
  return error == cudaSuccess ? back : error;
}

}  // namespace

Probe probe(int device) {
  Probe result{};
  cudaDriverGetVersion(&result.driver);
  cudaRuntimeGetVersion(&result.runtime);
  result.error = load_kernel(device);
  return result;
}

}  // namespace ganlstm::cuda

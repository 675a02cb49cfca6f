// What the bindings of CUDA kernels share: the current stream of a tensor's device, and the check
// of a launch.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "../check.h"

namespace ganlstm::gpu {

// Makes the tensor's device the current one for as long as it lives.
struct DeviceScope {
  explicit DeviceScope(const Tensor& tensor) : guard(tensor.get_device_index()) {
    void* handle = nullptr;
    check(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &handle) == 0,
          "torch has no current CUDA stream for ", device_name(tensor));
    stream = static_cast<cudaStream_t>(handle);
  }

  torch::stable::accelerator::DeviceGuard guard;
  cudaStream_t stream;
};

// `error` is what the launcher returned.
inline void check_launch(cudaError_t error, const char* op) {
  check(error == cudaSuccess, op, ": the kernel did not start: ", cudaGetErrorString(error));
}

}  // namespace ganlstm::gpu

// Random points between real and fake samples, where a gradient penalty is taken.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace ganlstm::cuda {

// out = weight * real + (1 - weight) * fake, with one weight a sample.
// Starts the kernel on `stream` of the current device and returns cudaGetLastError().
// Empty sizes start nothing. T: float, double, __half, __nv_bfloat16.
//
//   real:   [batch, inner] in,  inner: the number of elements of a sample
//   fake:   [batch, inner] in
//   weight: [batch]        in
//   out:    [batch, inner] out
template <typename T>
cudaError_t interpolate(const T* real, const T* fake, const T* weight, T* out, int64_t batch,
                        int64_t inner, cudaStream_t stream);

}  // namespace ganlstm::cuda

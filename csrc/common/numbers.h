// Array elements on a GPU and the type that a kernel computes in: 16-bit ones in float. The same
// kernels compile for the CPU, where tests run them.
#pragma once

#include "activations.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#else
#include "bfloat16.h"
#endif

namespace ganlstm::cuda {

#if defined(__CUDACC__)
using Half = __half;
using BrainHalf = __nv_bfloat16;
#else
using BrainHalf = BFloat16;
#endif

template <typename T>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
template <typename T>
using compute_t = typename ComputeType<T>::type;

template <typename T>
GANLSTM_HD compute_t<T> load(const T* p) {
#if defined(__CUDACC__)
  return static_cast<compute_t<T>>(*p);
#else
  return widen(*p);
#endif
}

template <typename T>
GANLSTM_HD void store(T* p, compute_t<T> value) {
#if defined(__CUDACC__)
  *p = static_cast<T>(value);
#else
  *p = narrow<T>(value);
#endif
}

}  // namespace ganlstm::cuda

// The elements of a GPU's arrays. The same kernels compile for the CPU, where tests run them.
#pragma once

#include "activations.h"
#include "bfloat16.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace ganlstm::gpu {

#if defined(__CUDACC__)
using Half = __half;
using BrainHalf = __nv_bfloat16;
#else
using BrainHalf = BFloat16;
#endif

template <typename T>
GANLSTM_HD Compute<T> load(const T* p) {
#if defined(__CUDACC__)
  return static_cast<Compute<T>>(*p);
#else
  return widen(*p);
#endif
}

template <typename T>
GANLSTM_HD void store(T* p, Compute<T> value) {
#if defined(__CUDACC__)
  *p = static_cast<T>(value);
#else
  *p = narrow<T>(value);
#endif
}

}  // namespace ganlstm::gpu

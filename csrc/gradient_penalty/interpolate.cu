#include "../common/cuda.h"
#include "interpolate.h"

namespace ganlstm::cuda {
namespace {

// A row of blocks a sample, so that no element needs a division to find its weight.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    interpolate_kernel(const T* __restrict__ real, const T* __restrict__ fake,
                       const T* __restrict__ weight, T* __restrict__ out, int64_t batch,
                       int64_t inner) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t b = blockIdx.y; b < batch; b += gridDim.y) {
    const compute_t<T> w = load(weight + b);
    for (int64_t k = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; k < inner;
         k += stride) {
      const int64_t at = b * inner + k;
      store(out + at, w * load(real + at) + (1 - w) * load(fake + at));
    }
  }
}

}  // namespace

template <typename T>
cudaError_t interpolate(const T* real, const T* fake, const T* weight, T* out, int64_t batch,
                        int64_t inner, cudaStream_t stream) {
  if (batch * inner == 0) return cudaSuccess;
  constexpr int64_t kMaxGridY = 65535;
  const dim3 grid(blocks_for(inner), static_cast<unsigned int>(std::min(batch, kMaxGridY)));
  interpolate_kernel<<<grid, kThreads, 0, stream>>>(real, fake, weight, out, batch, inner);
  return cudaGetLastError();
}

#define INSTANTIATE(T)                                                                    \
  template cudaError_t interpolate<T>(const T*, const T*, const T*, T*, int64_t, int64_t, \
                                      cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
#undef INSTANTIATE

}  // namespace ganlstm::cuda

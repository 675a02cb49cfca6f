#include "../common/cuda.h"
#include "cell.h"
#include "cell_cuda.h"

namespace ganlstm::cuda {
namespace {

template <typename T>
__global__ void __launch_bounds__(kThreads)
    lstm_cell_forward_kernel(const T* __restrict__ z, const T* __restrict__ c_prev,
                             T* __restrict__ h, T* __restrict__ c, T* __restrict__ gates,
                             int64_t batch, int64_t hidden) {
  using V = compute_t<T>;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t k = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; k < batch * hidden;
       k += stride) {
    // Row k / hidden of z begins at 4 * hidden * (k / hidden).
    const int64_t at = k + 3 * hidden * (k / hidden);
    const Gates<V> pre{load(z + at), load(z + at + hidden), load(z + at + 2 * hidden),
                       load(z + at + 3 * hidden)};
    V c_new, h_new;
    const Gates<V> a = cell_forward(pre, load(c_prev + k), c_new, h_new);
    store(gates + at, a.i);
    store(gates + at + hidden, a.f);
    store(gates + at + 2 * hidden, a.g);
    store(gates + at + 3 * hidden, a.o);
    store(c + k, c_new);
    store(h + k, h_new);
  }
}

}  // namespace

template <typename T>
cudaError_t lstm_cell_forward(const T* z, const T* c_prev, T* h, T* c, T* gates, int64_t batch,
                              int64_t hidden, cudaStream_t stream) {
  if (batch * hidden == 0) return cudaSuccess;
  lstm_cell_forward_kernel<<<blocks_for(batch * hidden), kThreads, 0, stream>>>(
      z, c_prev, h, c, gates, batch, hidden);
  return cudaGetLastError();
}

#define INSTANTIATE(T)                                                                        \
  template cudaError_t lstm_cell_forward<T>(const T*, const T*, T*, T*, T*, int64_t, int64_t, \
                                            cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
#undef INSTANTIATE

}  // namespace ganlstm::cuda

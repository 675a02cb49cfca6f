// One time step of the LSTM on a GPU, after the matrix products.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace ganlstm::cuda {

// Starts the kernel on `stream` of the current device and returns cudaGetLastError().
// Empty sizes start nothing. T: float, double, __half, __nv_bfloat16.
//
//   z:      [batch, 4 * hidden] in,  pre-activations in the order i, f, g, o
//   c_prev: [batch, hidden]     in,  cell state of the step before
//   h:      [batch, hidden]     out, hidden state
//   c:      [batch, hidden]     out, cell state
//   gates:  [batch, 4 * hidden] out, activated gates in the order of z
template <typename T>
cudaError_t lstm_cell_forward(const T* z, const T* c_prev, T* h, T* c, T* gates, int64_t batch,
                              int64_t hidden, cudaStream_t stream);

}  // namespace ganlstm::cuda

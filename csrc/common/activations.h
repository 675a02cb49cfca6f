// Gate math of the LSTM, once, for host and device, for scalars and for vectors of scalars.
//
// `d_sigmoid` and `d_tanh` take the activation's *output*, and so do their siblings of second
// order: with s = sigmoid(z), d_sigmoid(s) = s(1-s) is ds/dz and d2_sigmoid(s) = s(1-s)(1-2s) is
// d2s/dz2. Everything but `sigmoid` and `tanh_` is arithmetic only and takes any type that has + -
// *.
#pragma once

#include <cmath>

#if defined(__CUDACC__)
#define GANLSTM_HD __host__ __device__ __forceinline__
#else
#define GANLSTM_HD inline __attribute__((always_inline))
#endif

namespace ganlstm {

template <typename V>
GANLSTM_HD V d_sigmoid(V s) {
  return s - s * s;
}

template <typename V>
GANLSTM_HD V d2_sigmoid(V s) {
  V d = s - s * s;
  return d - (d + d) * s;
}

template <typename V>
GANLSTM_HD V d_tanh(V t) {
  return 1 - t * t;
}

template <typename V>
GANLSTM_HD V d2_tanh(V t) {
  V d = 1 - t * t;
  return -(t + t) * d;
}

// Scalars. Vectors have overloads of these two in simd.h.
GANLSTM_HD float sigmoid(float z) { return 1.0f / (1.0f + expf(-z)); }
GANLSTM_HD double sigmoid(double z) { return 1.0 / (1.0 + exp(-z)); }
GANLSTM_HD float tanh_(float z) { return tanhf(z); }
GANLSTM_HD double tanh_(double z) { return tanh(z); }

}  // namespace ganlstm

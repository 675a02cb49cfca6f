// The activations of gates, once, for the CPU and for a GPU, for scalars and for vectors of
// scalars.
//
// `d_sigmoid` and `d_tanh` take the activation's *output*: with s = sigmoid(z), d_sigmoid(s) =
// s(1-s) is ds/dz. They are arithmetic only and take any type that has + - *.
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
GANLSTM_HD V d_tanh(V t) {
  return 1 - t * t;
}

// Scalars. Vectors have overloads of these two in simd.h.
GANLSTM_HD float sigmoid(float z) { return 1.0f / (1.0f + expf(-z)); }
GANLSTM_HD double sigmoid(double z) { return 1.0 / (1.0 + exp(-z)); }
GANLSTM_HD float tanh_(float z) { return tanhf(z); }
GANLSTM_HD double tanh_(double z) { return tanh(z); }

}  // namespace ganlstm

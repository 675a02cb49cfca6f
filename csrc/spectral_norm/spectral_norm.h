// The contract of the spectral norm's three passes over a list of weights, in float, double or
// bfloat16. For bfloat16 the vectors, sigma and all sums are float.
//
//   pass             on the CPU               on a GPU
//   forward          cpu/forward.cpp          gpu/forward.h
//   backward         cpu/backward.cpp         gpu/backward.h
//   double backward  cpu/double_backward.cpp  gpu/double_backward.h
//   ops              cpu/binding.cpp          gpu/binding.h, gpu/binding.cpp
//
// The structs below are those of the CPU; those of a GPU stand beside its passes. gpu/passes.cu
// compiles them, and cpu/kernels.simd.cpp has the loops of the CPU for each instruction set.
//
// A weight is an array [A,h,B], row-major: `dim`, the outputs, is its second dimension, and what
// lies before and after it has been flattened. As a matrix W [h,w], w = A * B, column a * B + b.
// P is the matrix u v^T and N the normalised weight.
//
//   forward      `iterations` times u = normalize(W v), v = normalize(W^T u); sigma = u^T W v;
//                N = W / sigma
//   backward     D = (G - c P) / sigma with c = <G, N>: the gradient of W, u and v being constants
//   double       for the cotangent V of D, with f = <V, P>:
//                of G: (V - f N) / sigma
//                of W: -((<V, D> - f c / sigma) P + (f / sigma) G) / sigma
//
// normalize(x) is x / max(||x||, eps); if ||x|| is not above 0, the vector keeps its value. If
// |sigma| is not above eps, N = W and D = G, and second derivatives are V and 0.
#pragma once

#include <cmath>
#include <cstdint>

#include "../common/bfloat16.h"
#include "../common/cpu/parallel.h"

namespace ganlstm {

struct SpectralNormShape {
  int64_t outer, rows, inner;  // A, h, B

  int64_t columns() const { return outer * inner; }
  int64_t elements() const { return outer * rows * inner; }
};

// Of one weight.
template <typename T>
struct SpectralNormForward {
  SpectralNormShape shape;
  const T* weight;    // [A,h,B]
  Compute<T>* u;      // [h] in: before the iterations, out: after them
  Compute<T>* v;      // [w] likewise
  Compute<T>* sigma;  // [1] out
  T* normalized;      // [A,h,B] out
};

template <typename T>
struct SpectralNormBackward {
  SpectralNormShape shape;
  const T* grad;        // [A,h,B] G, the cotangent of `normalized`; null: this weight is left out
  const T* normalized;  // [A,h,B] as in the forward; likewise u, v, sigma
  const Compute<T>* u;
  const Compute<T>* v;
  const Compute<T>* sigma;
  Compute<T>* inner;  // [1] out: c, for the double backward
  T* grad_weight;     // [A,h,B] out: D
};

template <typename T>
struct SpectralNormDoubleBackward {
  SpectralNormShape shape;
  const T* v_weight;  // [A,h,B] V, the cotangent of D; null: this weight is left out
  const T* grad;      // [A,h,B] as in the backward; likewise what follows
  const T* normalized;
  const Compute<T>* u;
  const Compute<T>* v;
  const Compute<T>* sigma;
  const Compute<T>* inner;
  T* g_grad;    // [A,h,B] out, or null: not wanted; likewise below
  T* g_weight;  // [A,h,B]
};

// Whether the weight is divided by sigma; otherwise it is divided by the constant 1.
template <typename C>
bool divides(C sigma, C eps) {
  return std::abs(sigma) > eps;
}

// `eps` is the same in all passes. `iterations` 0 takes u and v as they are. The results do not
// depend on the number of threads.
template <typename T>
void spectral_norm_forward(const SpectralNormForward<T>* weights, int64_t count, int64_t iterations,
                           Compute<T> eps, const Parallel&);
template <typename T>
void spectral_norm_backward(const SpectralNormBackward<T>* weights, int64_t count, Compute<T> eps,
                            const Parallel&);
template <typename T>
void spectral_norm_double_backward(const SpectralNormDoubleBackward<T>* weights, int64_t count,
                                   Compute<T> eps, const Parallel&);

}  // namespace ganlstm

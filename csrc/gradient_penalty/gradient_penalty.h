// The contract of the gradient penalty's passes over arrays [B,n], in float, double or bfloat16:
// `interpolate` over one, the others over a list, where each array has its own n. A sample is a row
// of all arrays and has one norm. For bfloat16 the norms and all sums are float or wider.
//
//   pass             on the CPU               on a GPU
//   interpolate      cpu/interpolate.cpp      gpu/interpolate.h
//   forward          cpu/forward.cpp          gpu/forward.h
//   backward         cpu/backward.cpp         gpu/backward.h
//   double backward  cpu/double_backward.cpp  gpu/double_backward.h
//   ops              cpu/binding.cpp          gpu/binding.h, gpu/binding.cpp
//
// The structs below are those of the CPU; those of a GPU are in gpu/groups.h. gpu/passes.cu
// compiles its passes.
//
//   interpolate  a r + (1 - a) f with a = philox_uniform(seed, sample) (philox.h); an absent r or f
//                is zero, which makes this pass its own derivative
//   forward      n_b, the Euclidean norm of sample b's gradient; value = 1/B sum_b e(n_b)^2 with
//                e(n) = n - center, one-sided max(0, n - center)
//   backward     D = s w_b g with the cotangent s of the value and w_b = 2/B e(n_b) / n_b
//   double       for the cotangent V of D, with p_b = <V, g> over sample b:
//                of s: sum_b w_b p_b
//                of g: s (w_b V + c_b p_b g), c_b = w'(n_b) / n_b = 2/B center / n_b^3 where
//                e(n_b) is not held at 0
//
// With a center of 0, w_b = 2/B and c_b = 0, also where the norm is 0. With another, both are 0
// there.
#pragma once

#include <cstdint>

#include "../common/bfloat16.h"
#include "../common/cpu/parallel.h"

namespace ganlstm {

template <typename T>
struct Interpolation {
  int64_t batch, elements;  // B, n
  uint64_t seed;
  const T* real;  // [B,n] or null; likewise fake
  const T* fake;
  T* out;  // [B,n] out
};

template <typename T>
struct PenaltyGradient {
  int64_t elements;  // n
  const T* grad;     // [B,n] g
  const T* v;        // [B,n] V, double backward only; null: it is zero
  T* out;            // [B,n] out: what the pass gives for g; null: not wanted
};

struct PenaltyOptions {
  double center;
  bool one_sided;
};

// The results of all passes do not depend on the number of threads.
template <typename T>
void interpolate(const Interpolation<T>&, const Parallel&);

// norms: [B] out. value: [1] out.
template <typename T>
void penalty_forward(const PenaltyGradient<T>* arrays, int64_t count, int64_t batch,
                     const PenaltyOptions&, Compute<T>* norms, Compute<T>* value, const Parallel&);

// norms: [B] of the forward. s: the value's cotangent.
template <typename T>
void penalty_backward(const PenaltyGradient<T>* arrays, int64_t count, int64_t batch,
                      const PenaltyOptions&, const Compute<T>* norms, Compute<T> s,
                      const Parallel&);

// g_s: [1] out, or null: not wanted.
template <typename T>
void penalty_double_backward(const PenaltyGradient<T>* arrays, int64_t count, int64_t batch,
                             const PenaltyOptions&, const Compute<T>* norms, Compute<T> s,
                             Compute<T>* g_s, const Parallel&);

}  // namespace ganlstm

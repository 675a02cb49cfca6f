// The contract of the LSTM's three passes: one layer over a whole sequence, in one or two
// directions, in float, double or bfloat16. The equations are in lstm_cell.h.
//
//   pass             on the CPU                          on a GPU
//   forward          cpu/lstm_forward.simd.cpp           gpu/lstm_forward.h
//   backward         cpu/lstm_backward.simd.cpp          gpu/lstm_backward.h
//   double backward  cpu/lstm_double_backward.simd.cpp   gpu/lstm_double_backward.h
//   ops              cpu/lstm_binding.cpp                gpu/lstm_binding.h, lstm_binding.cpp
//
// The structs below are those of the CPU. On a GPU ganlstm_fast/ops/lstm/gpu.py makes the products
// that are parallel in time, and the files above have the recurrent steps (gpu/steps.h). A .cu of
// the same name compiles a pass, lstm_cell_steps.cu all passes for impl "cell".
//
// Every array is dense and row-major; T steps, B batch, I input, H hidden, D directions. Gates are
// in the order i, f, g, o. For bfloat16, the gates, the cell states and all sums are float, and so
// is what one pass saves for the next, except dz, which only products read.
//
// Direction 1 reads the sequence backwards. With `lengths`, no pass reads or computes the steps of
// a sequence from its length on: all results are 0 there, and direction 1 starts at the last valid
// step.
//
// With a `window` the forward keeps neither gates nor c for the backward, which computes them
// again, that many steps at a time. The backward walks against each direction; window k is the
// walk's steps from k * window on. Of each window but the last, the forward keeps the c before the
// step at which the window begins in the direction's own order; the last window begins with c0.
#pragma once

#include "layer.h"

namespace ganlstm {

template <typename T>
struct LstmForward {
  LayerShape shape;
  LayerWeights<T> weights[2];
  const T* x;         // [T,B,I] input
  const T* h0;        // [D,B,H] state before the first step
  const T* c0;        // [D,B,H]
  T* y;               // [T,B,D*H] out: h_t
  T* h_last;          // [D,B,H] out: h after the last valid step
  T* c_last;          // [D,B,H] out: c after the last valid step
  int64_t window;     // 0: none
  Compute<T>* gates;  // [T,B,D,4H] out: activated gates, or null; null with a window
  Compute<T>* c;      // [T,B,D,H] out: c_t, or null; with a window [(T-1)/window,D,B,H]
};

template <typename T>
struct LstmBackward {
  LayerShape shape;
  LayerWeights<T> weights[2];
  const T* grad_y;       // [T,B,D*H] cotangent of y, or null
  const T* grad_h_last;  // [D,B,H] cotangent of h_last, or null
  const T* grad_c_last;  // [D,B,H] cotangent of c_last, or null
  const T* x;            // [T,B,I] as in the forward; likewise h0, c0, y, gates, c
  const T* h0;
  const T* c0;
  const T* y;
  int64_t window;
  const Compute<T>* gates;
  const Compute<T>* c;
  T* grad_x;   // [T,B,I] out, or null; likewise below
  T* grad_h0;  // [D,B,H]
  T* grad_c0;  // [D,B,H]
  LayerWeightGrads<T> grad_weights[2];
  T* dz;          // [T,B,D,4H] out: gradient of the pre-activations, or null
  Compute<T>* d;  // [T,B,D,H] out: gradient that reached h_t, or null; for the double backward
};

// The Hessian of the layer applied to a direction v: `v_*` are the cotangents of the backward's
// results, `g_*` the gradients of its arguments.
template <typename T>
struct LstmDoubleBackward {
  LayerShape shape;
  LayerWeights<T> weights[2];
  LayerWeights<T> v_weights[2];  // cotangents of the weights' gradients
  const T* v_x;                  // [T,B,I] or null
  const T* v_h0;                 // [D,B,H] or null
  const T* v_c0;                 // [D,B,H] or null
  const T* grad_c_last;          // [D,B,H] as in the backward, or null
  const T* x;                    // as in the backward; likewise h0, c0, y, gates, c, dz, d
  const T* h0;
  const T* c0;
  const T* y;
  const Compute<T>* gates;
  const Compute<T>* c;
  const T* dz;
  const Compute<T>* d;
  T* g_grad_y;       // [T,B,D*H] out: also the tangent of h_t that the pass itself needs
  T* g_grad_h_last;  // [D,B,H] out, or null; likewise below
  T* g_grad_c_last;  // [D,B,H]
  T* g_x;            // [T,B,I]
  T* g_h0;           // [D,B,H]
  T* g_c0;           // [D,B,H]
  LayerWeightGrads<T> g_weights[2];
};

// Each runs on the widest instruction set that this processor has.
void lstm_forward(const LstmForward<float>&, const Parallel&);
void lstm_forward(const LstmForward<double>&, const Parallel&);
void lstm_forward(const LstmForward<BFloat16>&, const Parallel&);
void lstm_backward(const LstmBackward<float>&, const Parallel&);
void lstm_backward(const LstmBackward<double>&, const Parallel&);
void lstm_backward(const LstmBackward<BFloat16>&, const Parallel&);
void lstm_double_backward(const LstmDoubleBackward<float>&, const Parallel&);
void lstm_double_backward(const LstmDoubleBackward<double>&, const Parallel&);
void lstm_double_backward(const LstmDoubleBackward<BFloat16>&, const Parallel&);

}  // namespace ganlstm

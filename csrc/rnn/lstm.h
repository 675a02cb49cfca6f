// The shape contract of the LSTM's three passes: one layer over a whole sequence, in one or two
// directions, in float, double or bfloat16. Every array is dense and row-major; T steps, B batch,
// I input, H hidden, D directions. Gates are in the order i, f, g, o. For bfloat16, gates, cell
// states and sums are float inside, and so is what one pass saves for the next, except dz, which
// only feeds products.
//
// The equations are in cell.h. Direction 1 reads the sequence backwards. With `lengths`, steps of a
// sequence from its length on are neither read nor computed: everything that is returned is 0
// there, and direction 1 starts at the last valid step.
//
// With a `window` the forward does not keep gates and c for the backward, which computes them
// again, that many steps at a time. Its walk goes against each direction; window k is its steps
// from k * window on, and the forward keeps the c before the first of them in the direction's own
// order. The last window begins with c0.
#pragma once

#include <cstdint>

#include "../common/bfloat16.h"
#include "../common/cpu/parallel.h"

namespace ganlstm {

struct LstmShape {
  int64_t steps, batch, input, hidden, directions;
  const int64_t* lengths;  // [B] in 1..T; null: all T
  const int64_t* order;    // [B] rows by falling length, from order_by_length; null with lengths
};

// Of one direction. A null pointer is an absent bias or, among cotangents, a zero.
template <typename T>
struct LstmWeights {
  const T* ih;    // [4H,I] input weight W
  const T* hh;    // [4H,H] recurrent weight R
  const T* b_ih;  // [4H]
  const T* b_hh;  // [4H]
};

// The same pointers are null in both directions.
template <typename T>
struct LstmWeightGrads {
  T* ih;    // [4H,I] null: not wanted; likewise below
  T* hh;    // [4H,H]
  T* b_ih;  // [4H]
  T* b_hh;  // [4H]
};

template <typename T>
struct LstmForward {
  LstmShape shape;
  LstmWeights<T> weights[2];
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
  LstmShape shape;
  LstmWeights<T> weights[2];
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
  LstmWeightGrads<T> grad_weights[2];
  T* dz;          // [T,B,D,4H] out: gradient of the pre-activations, or null
  Compute<T>* d;  // [T,B,D,H] out: gradient that reached h_t, or null; for the double backward
};

// The Hessian of the layer applied to a direction v: `v_*` are the cotangents of the backward's
// results, `g_*` the gradients of its arguments.
template <typename T>
struct LstmDoubleBackward {
  LstmShape shape;
  LstmWeights<T> weights[2];
  LstmWeights<T> v_weights[2];  // cotangents of the weights' gradients
  const T* v_x;                 // [T,B,I] or null
  const T* v_h0;                // [D,B,H] or null
  const T* v_c0;                // [D,B,H] or null
  const T* grad_c_last;         // [D,B,H] as in the backward, or null
  const T* x;                   // as in the backward; likewise h0, c0, y, gates, c, dz, d
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
  LstmWeightGrads<T> g_weights[2];
};

// `shape.order` for `lengths`: rows by falling length, ties in their order.
void order_by_length(const int64_t* lengths, int64_t batch, int64_t* order);

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

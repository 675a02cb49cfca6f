// The recurrent part of the LSTM's passes on a GPU: what is left of them once every product that is
// parallel in time has been taken out as one large product (ganlstm_fast/ops/lstm/gpu.py).
//
// A call walks `steps` consecutive steps of a sequence of `total`, in one or two directions at
// once. Step k of the walk is, along time, step first + k of the direction's own order, and the
// reverse against it. T: element of the tensors; V = compute_t<T>: what is saved and carried.
//
// Lengths are not checked: they lie on the GPU. A length above `total` counts as `total`, one below
// 1 as an empty sequence.
#pragma once

#include <cstdint>

#include "../../common/numbers.h"

namespace ganlstm::cuda {

struct Steps {
  int64_t steps, first, total, batch, hidden, directions;
  const int64_t* lengths;  // [B] on the device, or null: all `total`
};

// An array over time, [count,B,D,...]: all of the sequence, or only the steps of the call. Then its
// first element is another time in each direction.
template <typename T>
struct Sequence {
  T* data;  // null: absent
  int64_t count;
  int64_t origin[2];  // the time of element 0 in each direction

  GANLSTM_HD T* at(int64_t time, int64_t direction, int64_t step_elements, int64_t offset) const {
    return data + (time - origin[direction]) * step_elements + offset;
  }
  GANLSTM_HD bool has(int64_t time, int64_t direction) const {
    return time >= origin[direction] && time < origin[direction] + count;
  }
};

// Along time.
template <typename T_>
struct ForwardSteps {
  using T = T_;
  using V = compute_t<T>;
  Steps shape;
  Sequence<const V> z;  // [.,B,D,4H] x_t W^T
  const V* bias;        // [D,4H], or null
  T* h;                 // [D,B,H] in: before the first step; out: after the last
  V* c;                 // [D,B,H] likewise
  Sequence<T> y;        // [.,B,D,H] out
  Sequence<V> gates;    // [.,B,D,4H] out, or absent; may be z itself
  Sequence<V> c_all;    // [.,B,D,H] out, or absent
};

// Against time.
template <typename T_>
struct BackwardSteps {
  using T = T_;
  using V = compute_t<T>;
  Steps shape;
  Sequence<const T> grad_y;  // [.,B,D,H], or absent
  const V* c_before;         // [D,B,H] c before the first step of `c_all`
  Sequence<const V> gates;   // [.,B,D,4H]
  Sequence<const V> c_all;   // [.,B,D,H]
  V* n;                      // [D,B,H] in: gradient of h after the last step; out: before the first
  V* e;                      // [D,B,H] likewise of c
  Sequence<T> dz;            // [.,B,D,4H] out
  Sequence<V> d;             // [.,B,D,H] out, or absent
};

// The tangent of the forward, along time.
template <typename T_>
struct TangentForwardSteps {
  using T = T_;
  using V = compute_t<T>;
  Steps shape;
  Sequence<const V> z_;     // [.,B,D,4H] tangent of z without the share of h_{t-1}
  const V* c_before;        // [D,B,H]
  Sequence<const V> gates;  // [.,B,D,4H]
  Sequence<const V> c_all;  // [.,B,D,H]
  T* h_;                    // [D,B,H] in: tangent of h before the first step; out: after the last
  V* c_;                    // [D,B,H] likewise of c
  Sequence<T> y_;           // [.,B,D,H] out
  Sequence<V> gates_;       // [.,B,D,4H] out; may be z_ itself
  Sequence<V> c_all_;       // [.,B,D,H] out
};

// The tangent of the backward, against time.
template <typename T_>
struct TangentBackwardSteps {
  using T = T_;
  using V = compute_t<T>;
  Steps shape;
  Sequence<const V> extra;  // [.,B,D,H] dz times the cotangent of weight_hh's gradient, or absent
  const V* c_before;        // [D,B,H]
  const V* c_before_;       // [D,B,H]
  Sequence<const V> gates;
  Sequence<const V> c_all;
  Sequence<const V> d;       // [.,B,D,H]
  Sequence<const V> gates_;  // [.,B,D,4H] tangents
  Sequence<const V> c_all_;  // [.,B,D,H] tangents
  V* n_;                     // [D,B,H] in and out: tangent of n
  V* e;                      // [D,B,H] in and out
  V* e_;                     // [D,B,H] in and out: its tangent
  Sequence<T> dz_;           // [.,B,D,4H] out: tangents; may be gates_ itself where T is V
};

}  // namespace ganlstm::cuda

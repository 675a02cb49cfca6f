// What the passes of every cell have in common: the sizes of a layer, and its weights with G rows
// for each hidden unit (4 in the LSTM).
#pragma once

#include <cstdint>

#include "../common/bfloat16.h"
#include "../common/cpu/parallel.h"

namespace ganlstm {

struct LayerShape {
  int64_t steps, batch, input, hidden, directions;
  const int64_t* lengths;  // [B] in 1..T; null: all T
  const int64_t*
      order;  // [B] rows by falling length, from order_by_length; null where lengths is null
};

// Of one direction. A null pointer is an absent bias or, among cotangents, a zero.
template <typename T>
struct LayerWeights {
  const T* ih;    // [G*H,I] input weight W
  const T* hh;    // [G*H,H] recurrent weight R
  const T* b_ih;  // [G*H]
  const T* b_hh;  // [G*H]
};

// The same pointers are null in both directions.
template <typename T>
struct LayerWeightGrads {
  T* ih;    // [G*H,I] null: not wanted; likewise below
  T* hh;    // [G*H,H]
  T* b_ih;  // [G*H]
  T* b_hh;  // [G*H]
};

// `shape.order` for `lengths`: rows by falling length, ties in their order.
void order_by_length(const int64_t* lengths, int64_t batch, int64_t* order);

}  // namespace ganlstm

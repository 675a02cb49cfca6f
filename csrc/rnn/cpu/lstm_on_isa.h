// The LSTM's passes compiled for one instruction set: for float and double, and for bfloat16 in the
// set that multiplies them.
#pragma once

#include "../../common/cpu/isa.h"
#include "../lstm.h"

namespace ganlstm {

template <Isa isa, typename T>
void lstm_forward_on(const LstmForward<T>&, const Parallel&);
template <Isa isa, typename T>
void lstm_backward_on(const LstmBackward<T>&, const Parallel&);
template <Isa isa, typename T>
void lstm_double_backward_on(const LstmDoubleBackward<T>&, const Parallel&);

}  // namespace ganlstm

// The LSTM's passes in bfloat16 on the kernels for float, with float copies of the arrays: for
// processors without products in bfloat16. Between the steps of a sequence h is not rounded here.
#pragma once

#include "../lstm.h"

namespace ganlstm::widened {

void lstm_forward(const LstmForward<BFloat16>&, const Parallel&);
void lstm_backward(const LstmBackward<BFloat16>&, const Parallel&);
void lstm_double_backward(const LstmDoubleBackward<BFloat16>&, const Parallel&);

}  // namespace ganlstm::widened

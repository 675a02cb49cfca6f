// The LSTM's passes in bfloat16 for processors that do not multiply bfloat16s: they copy the arrays
// to float and run the kernels for float. Unlike elsewhere, h is not rounded between the steps.
#pragma once

#include "../lstm.h"

namespace ganlstm::widened {

void lstm_forward(const LstmForward<BFloat16>&, const Parallel&);
void lstm_backward(const LstmBackward<BFloat16>&, const Parallel&);
void lstm_double_backward(const LstmDoubleBackward<BFloat16>&, const Parallel&);

}  // namespace ganlstm::widened

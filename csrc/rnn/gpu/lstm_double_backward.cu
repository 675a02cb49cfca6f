#include "instantiate.h"
#include "lstm_double_backward.h"

GANLSTM_INSTANTIATE_STEPS(LstmTangentForwardSteps)
GANLSTM_INSTANTIATE_STEPS(LstmTangentBackwardSteps)

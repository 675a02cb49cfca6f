#include "instantiate.h"
#include "lstm_backward.h"

GANLSTM_INSTANTIATE_STEPS(LstmBackwardSteps)

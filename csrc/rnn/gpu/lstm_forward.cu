#include "instantiate.h"
#include "lstm_forward.h"

GANLSTM_INSTANTIATE_STEPS(LstmForwardSteps)

#include "lstm_forward.h"
#include "persistent_kernel.h"

GANLSTM_INSTANTIATE_PERSISTENT_STEPS(LstmForwardSteps)

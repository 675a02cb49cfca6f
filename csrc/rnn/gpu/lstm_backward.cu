#include "lstm_backward.h"
#include "persistent_kernel.h"

GANLSTM_INSTANTIATE_PERSISTENT_STEPS(LstmBackwardSteps)

// All passes in a source of its own: beside kernels that use shared memory, nvcc reserves some for
// these too.
#include "cell_steps_kernel.h"
#include "lstm_backward.h"
#include "lstm_double_backward.h"
#include "lstm_forward.h"

GANLSTM_INSTANTIATE_CELL_STEPS(LstmForwardSteps)
GANLSTM_INSTANTIATE_CELL_STEPS(LstmBackwardSteps)
GANLSTM_INSTANTIATE_CELL_STEPS(LstmTangentForwardSteps)
GANLSTM_INSTANTIATE_CELL_STEPS(LstmTangentBackwardSteps)

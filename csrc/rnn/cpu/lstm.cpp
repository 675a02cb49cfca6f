// Chooses the instruction set of the LSTM's CPU kernels at run time.
#include "../lstm.h"

#include <algorithm>
#include <numeric>

#include "../../common/cpu/isa.h"
#include "instruction_sets.h"
#include "widened.h"

namespace ganlstm {

GANLSTM_DECLARE(baseline, float)
GANLSTM_DECLARE(baseline, double)
#if defined(__x86_64__)
GANLSTM_DECLARE(avx2, float)
GANLSTM_DECLARE(avx2, double)
GANLSTM_DECLARE(avx512, float)
GANLSTM_DECLARE(avx512, double)
GANLSTM_DECLARE(avx512bf16, BFloat16)
#endif

void order_by_length(const int64_t* lengths, int64_t batch, int64_t* order) {
  std::iota(order, order + batch, int64_t(0));
  std::stable_sort(order, order + batch,
                   [lengths](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
}

#if defined(__x86_64__)
#define GANLSTM_DISPATCH(function, Args)                         \
  void function(const Args& args, const Parallel& parallel) {    \
    switch (chosen_isa()) {                                      \
      case Isa::avx512bf16:                                      \
      case Isa::avx512: return avx512::function(args, parallel); \
      case Isa::avx2: return avx2::function(args, parallel);     \
      default: return baseline::function(args, parallel);        \
    }                                                            \
  }
#define GANLSTM_DISPATCH_BFLOAT16(function, Args)                                     \
  void function(const Args& args, const Parallel& parallel) {                         \
    if (chosen_isa() == Isa::avx512bf16) return avx512bf16::function(args, parallel); \
    widened::function(args, parallel);                                                \
  }
#else
#define GANLSTM_DISPATCH(function, Args) \
  void function(const Args& args, const Parallel& parallel) { baseline::function(args, parallel); }
#define GANLSTM_DISPATCH_BFLOAT16(function, Args) \
  void function(const Args& args, const Parallel& parallel) { widened::function(args, parallel); }
#endif

GANLSTM_DISPATCH(lstm_forward, LstmForward<float>)
GANLSTM_DISPATCH(lstm_forward, LstmForward<double>)
GANLSTM_DISPATCH_BFLOAT16(lstm_forward, LstmForward<BFloat16>)
GANLSTM_DISPATCH(lstm_backward, LstmBackward<float>)
GANLSTM_DISPATCH(lstm_backward, LstmBackward<double>)
GANLSTM_DISPATCH_BFLOAT16(lstm_backward, LstmBackward<BFloat16>)
GANLSTM_DISPATCH(lstm_double_backward, LstmDoubleBackward<float>)
GANLSTM_DISPATCH(lstm_double_backward, LstmDoubleBackward<double>)
GANLSTM_DISPATCH_BFLOAT16(lstm_double_backward, LstmDoubleBackward<BFloat16>)

}  // namespace ganlstm

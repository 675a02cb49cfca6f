// Chooses the instruction set of the LSTM's passes when they run.
#include "../lstm.h"

#include "lstm_on_isa.h"
#include "lstm_widened.h"

namespace ganlstm {

#define GANLSTM_DEFINE(name, Args)                                                           \
  void name(const Args<float>& args, const Parallel& parallel) {                             \
    on_chosen_isa([&](auto isa) { name##_on<decltype(isa)::value>(args, parallel); });       \
  }                                                                                          \
  void name(const Args<double>& args, const Parallel& parallel) {                            \
    on_chosen_isa([&](auto isa) { name##_on<decltype(isa)::value>(args, parallel); });       \
  }                                                                                          \
  void name(const Args<BFloat16>& args, const Parallel& parallel) {                          \
    const bool done =                                                                        \
        on_bfloat16_isa([&](auto isa) { name##_on<decltype(isa)::value>(args, parallel); }); \
    if (!done) widened::name(args, parallel);                                                \
  }
GANLSTM_DEFINE(lstm_forward, LstmForward)
GANLSTM_DEFINE(lstm_backward, LstmBackward)
GANLSTM_DEFINE(lstm_double_backward, LstmDoubleBackward)
#undef GANLSTM_DEFINE

}  // namespace ganlstm

// Chooses the instruction set of the CPU kernels at run time.
#include "lstm.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>

#define GANLSTM_DECLARE(isa)                                                     \
  namespace isa {                                                                \
  void lstm_forward(const LstmForward<float>&, const Parallel&);                 \
  void lstm_forward(const LstmForward<double>&, const Parallel&);                \
  void lstm_backward(const LstmBackward<float>&, const Parallel&);               \
  void lstm_backward(const LstmBackward<double>&, const Parallel&);              \
  void lstm_double_backward(const LstmDoubleBackward<float>&, const Parallel&);  \
  void lstm_double_backward(const LstmDoubleBackward<double>&, const Parallel&); \
  }

namespace ganlstm {

GANLSTM_DECLARE(baseline)
#if defined(__x86_64__)
GANLSTM_DECLARE(avx2)
GANLSTM_DECLARE(avx512)
#endif

namespace {

enum class Isa { baseline, avx2, avx512 };

Isa best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
    return Isa::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
  return Isa::baseline;
}

Isa chosen_isa() {
  static const Isa chosen = [] {
    const char* name = std::getenv("GANLSTM_FAST_CPU_ISA");
    Isa wanted = Isa::avx512;
    if (name != nullptr && std::strcmp(name, "baseline") == 0) wanted = Isa::baseline;
    if (name != nullptr && std::strcmp(name, "avx2") == 0) wanted = Isa::avx2;
    return std::min(wanted, best_isa());
  }();
  return chosen;
}

}  // namespace

const char* cpu_isa() {
  switch (chosen_isa()) {
    case Isa::avx512: return "avx512";
    case Isa::avx2: return "avx2";
    default: return "baseline";
  }
}

void order_by_length(const int64_t* lengths, int64_t batch, int64_t* order) {
  std::iota(order, order + batch, int64_t(0));
  std::stable_sort(order, order + batch,
                   [lengths](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
}

#if defined(__x86_64__)
#define GANLSTM_DISPATCH(function, Args)                         \
  void function(const Args& args, const Parallel& parallel) {    \
    switch (chosen_isa()) {                                      \
      case Isa::avx512: return avx512::function(args, parallel); \
      case Isa::avx2: return avx2::function(args, parallel);     \
      default: return baseline::function(args, parallel);        \
    }                                                            \
  }
#else
#define GANLSTM_DISPATCH(function, Args) \
  void function(const Args& args, const Parallel& parallel) { baseline::function(args, parallel); }
#endif

GANLSTM_DISPATCH(lstm_forward, LstmForward<float>)
GANLSTM_DISPATCH(lstm_forward, LstmForward<double>)
GANLSTM_DISPATCH(lstm_backward, LstmBackward<float>)
GANLSTM_DISPATCH(lstm_backward, LstmBackward<double>)
GANLSTM_DISPATCH(lstm_double_backward, LstmDoubleBackward<float>)
GANLSTM_DISPATCH(lstm_double_backward, LstmDoubleBackward<double>)

}  // namespace ganlstm

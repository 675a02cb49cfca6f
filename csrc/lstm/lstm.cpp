// Chooses the instruction set of the CPU kernels at run time.
#include "lstm.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>

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

namespace {

// Each has what those before it have.
enum class Isa { baseline, avx2, avx512, avx512bf16 };
constexpr const char* kNames[] = {"baseline", "avx2", "avx512", "avx512bf16"};

Isa best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
    return __builtin_cpu_supports("avx512bf16") ? Isa::avx512bf16 : Isa::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
  return Isa::baseline;
}

Isa chosen_isa() {
  static const Isa chosen = [] {
    const char* name = std::getenv("GANLSTM_FAST_CPU_ISA");
    int wanted = int(Isa::avx512bf16);
    for (int k = 0; name != nullptr && k < wanted; ++k)
      if (std::strcmp(name, kNames[k]) == 0) wanted = k;
    return std::min(Isa(wanted), best_isa());
  }();
  return chosen;
}

}  // namespace

const char* cpu_isa() { return kNames[int(chosen_isa())]; }

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

// Chooses the instruction set of the CPU kernels at run time.
#include "isa.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace ganlstm {
namespace {

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

}  // namespace

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

const char* cpu_isa() { return kNames[int(chosen_isa())]; }

}  // namespace ganlstm

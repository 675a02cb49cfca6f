// The instruction set that the CPU kernels run on. Sources named *.simd.cpp are compiled once for
// each set, with GANLSTM_ISA naming it. Which of the results is called is chosen at run time.
//
// A kernel is a function template over the set. A header declares it, and each compilation of its
// source defines it for one set and for the types that this set is compiled for (simd.h):
//
//   template <Isa isa, typename T>
//   void lstm_forward_on(const LstmForward<T>&, const Parallel&);
//
// after which on_chosen_isa calls the one for the processor at hand:
//
//   on_chosen_isa([&](auto isa) { lstm_forward_on<decltype(isa)::value>(args, parallel); });
#pragma once

#include <type_traits>

namespace ganlstm {

// Each has what those before it have. avx512bf16 is avx512 with products of bfloat16s; only kernels
// that make such products are compiled for it, and those only for bfloat16.
enum class Isa { baseline, avx2, avx512, avx512bf16 };

// The best that this processor has. GANLSTM_FAST_CPU_ISA names a lower one, for tests; it is read
// once.
Isa chosen_isa();

// Its name: "baseline", "avx2", "avx512" or "avx512bf16".
const char* cpu_isa();

// Returns f(isa) for the best set up to avx512. `isa` is an integral constant.
template <typename F>
decltype(auto) on_chosen_isa(F&& f) {
#if defined(__x86_64__)
  if (chosen_isa() >= Isa::avx512) return f(std::integral_constant<Isa, Isa::avx512>{});
  if (chosen_isa() == Isa::avx2) return f(std::integral_constant<Isa, Isa::avx2>{});
#endif
  return f(std::integral_constant<Isa, Isa::baseline>{});
}

// Calls f(isa) and returns true where the processor multiplies bfloat16s.
template <typename F>
bool on_bfloat16_isa([[maybe_unused]] F&& f) {
#if defined(__x86_64__)
  if (chosen_isa() == Isa::avx512bf16) {
    f(std::integral_constant<Isa, Isa::avx512bf16>{});
    return true;
  }
#endif
  return false;
}

}  // namespace ganlstm

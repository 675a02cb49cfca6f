// The instruction set that the CPU kernels run on.
#pragma once

namespace ganlstm {

// Each has what those before it have; avx512bf16 is avx512 with products in bfloat16.
enum class Isa { baseline, avx2, avx512, avx512bf16 };

// The best that this processor has. GANLSTM_FAST_CPU_ISA names a lower one, for tests; it is read
// once.
Isa chosen_isa();

// Its name: "baseline", "avx2", "avx512" or "avx512bf16".
const char* cpu_isa();

}  // namespace ganlstm

// The GPU's spectral norm on CPU tensors, emulated, for tests.
// tests/ops/spectral_norm/test_kernels.py compiles and loads it under a namespace of its own.
//
// GANLSTM_TEST_BLOCKS: of the grid (3).
#include <cstdlib>

#include "emulator.h"
// After it.
#include "../common/dispatch.h"
#include "../spectral_norm/gpu/binding.h"
#include "../spectral_norm/gpu/passes.h"

namespace ganlstm::gpu::spectral_norm {
namespace {

struct Emulated {
  static constexpr auto kDevice = kCPU;

  explicit Emulated(const Tensor&) {}

  template <typename Body>
  static void dispatch(ScalarType dtype, const char* name, Body&& body) {
    ganlstm::dispatch<float, double, BFloat16>(dtype, name, body);
  }

  template <typename Weight>
  void launch(const Group<Weight>& group, unsigned int* arrivals) const {
    const char* named = std::getenv("GANLSTM_TEST_BLOCKS");
    const int blocks = named == nullptr ? 3 : std::atoi(named);
    hardware::launch(blocks, blocks, kThreads, 64, [&] { run(group, {arrivals, blocks}); });
  }
};

}  // namespace
}  // namespace ganlstm::gpu::spectral_norm

STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast_emulated, CPU, m) {
  GANLSTM_REGISTER_SPECTRAL_NORM(m, ganlstm::gpu::spectral_norm::Emulated);
}

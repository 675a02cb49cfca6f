// The GPU's gradient penalty on CPU tensors, emulated, for tests.
// tests/ops/gradient_penalty/test_kernels.py compiles and loads it under a namespace of its own.
//
// GANLSTM_TEST_BLOCKS: of the grid (3), where there are as many units.
#include <cstdlib>

#include "emulator.h"
// After it.
#include "../common/dispatch.h"
#include "../gradient_penalty/gpu/binding.h"
#include "../gradient_penalty/gpu/passes.h"

namespace ganlstm::gpu::gradient_penalty {
namespace {

struct Emulated {
  static constexpr auto kDevice = kCPU;

  explicit Emulated(const Tensor&) {}

  template <typename Body>
  static void dispatch(ScalarType dtype, const char* name, Body&& body) {
    ganlstm::dispatch<float, double, BFloat16>(dtype, name, body);
  }

  template <Pass pass, typename T>
  void launch(Group<T>& group) const {
    const char* named = std::getenv("GANLSTM_TEST_BLOCKS");
    const int64_t most = named == nullptr ? 3 : std::atoi(named);
    const int blocks = int(std::clamp(group.units(), int64_t(1), most));
    if (group.arrivals != nullptr) *group.arrivals = 0;
    group.wave = 2;
    hardware::launch(blocks, blocks, kThreads, 64,
                     [&] { run<pass>(group, {group.arrivals, blocks}); });
  }
};

}  // namespace
}  // namespace ganlstm::gpu::gradient_penalty

STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast_emulated, CPU, m) {
  GANLSTM_REGISTER_GRADIENT_PENALTY(m, ganlstm::gpu::gradient_penalty::Emulated);
}

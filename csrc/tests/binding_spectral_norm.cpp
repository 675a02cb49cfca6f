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

namespace ganlstm::cuda::spectral_norm {
namespace {

template <typename T>
void run_pass(const Group<Forward<T>>& group, Grid grid) {
  ForwardPass<T>::run(group, grid);
}
template <typename T>
void run_pass(const Group<Backward<T>>& group, Grid grid) {
  BackwardPass<T>::run(group, grid);
}
template <typename T>
void run_pass(const Group<DoubleBackward<T>>& group, Grid grid) {
  DoubleBackwardPass<T>::run(group, grid);
}

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
    device::launch(blocks, blocks, kThreads, 64, [&] { run_pass(group, {arrivals, blocks}); });
  }
};

}  // namespace
}  // namespace ganlstm::cuda::spectral_norm

STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast_emulated, CPU, m) {
  GANLSTM_REGISTER_SPECTRAL_NORM(m, ganlstm::cuda::spectral_norm::Emulated);
}

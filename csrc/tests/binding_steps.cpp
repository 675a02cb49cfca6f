// The GPU's recurrent steps on CPU tensors, for tests: the code for an element in a plain loop,
// products by PyTorch. Compiled and loaded by tests/test_steps.py.
#include <array>

#include "../common/dispatch.h"
#include "../lstm/steps_binding.h"

namespace ganlstm::cuda {
namespace {

using torch::stable::detail::from;
using torch::stable::detail::to;

Tensor widened(const Tensor& t) {
  std::array<StableIValue, 5> stack{from(t), from(ScalarType::Float), from(false), from(false),
                                    from(std::nullopt)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::to", "dtype", stack.data(), TORCH_ABI_VERSION));
  return to<Tensor>(stack[0]);
}

struct PlainSteps {
  static constexpr auto kDevice = kCPU;

  explicit PlainSteps(const Tensor&) {}

  template <typename Body>
  static void dispatch(ScalarType dtype, const char* name, Body&& body) {
    ganlstm::dispatch<float, double, BFloat16>(dtype, name, body);
  }

  void multiply(const Tensor& out, const Tensor& a, const Tensor& b) const {
    const bool same = a.scalar_type() == out.scalar_type();
    std::array<StableIValue, 3> stack{from(same ? a : widened(a)), from(same ? b : widened(b)),
                                      from(out)};
    STABLE_TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("aten::bmm", "out", stack.data(), TORCH_ABI_VERSION));
    to<Tensor>(stack[0]);
  }

  template <typename Args>
  void cell_step(const CellStep<Args>& step) const {
    for (int64_t k = 0; k < step.elements(); ++k) step(k);
  }

  template <typename Args>
  void persistent(const Args&, const Tensor&, bool) const {
    check(false, "impl: cuda is not here");
  }
};

}  // namespace
}  // namespace ganlstm::cuda

STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast, CPU, m) {
  GANLSTM_REGISTER_STEPS(m, ganlstm::cuda::PlainSteps);
}

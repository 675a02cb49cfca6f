// The LSTM's recurrent steps on a GPU as ops.
#include <array>

#include "../common/cuda_binding.h"
#include "../common/dispatch.h"
#include "steps_binding.h"

namespace ganlstm::cuda {
namespace {

struct GpuSteps {
  static constexpr auto kDevice = kCUDA;

  explicit GpuSteps(const Tensor& on) : scope(on) {}

  template <typename Body>
  static void dispatch(ScalarType dtype, const char* name, Body&& body) {
    ganlstm::dispatch<float, double, __half, __nv_bfloat16>(dtype, name, body);
  }

  // By PyTorch, and so with its handles, workspaces and settings.
  void multiply(const Tensor& out, const Tensor& a, const Tensor& b) const {
    using torch::stable::detail::from;
    using torch::stable::detail::to;
    if (a.scalar_type() == out.scalar_type()) {
      std::array<StableIValue, 3> stack{from(a), from(b), from(out)};
      STABLE_TORCH_ERROR_CODE_CHECK(
          torch_call_dispatcher("aten::bmm", "out", stack.data(), TORCH_ABI_VERSION));
      to<Tensor>(stack[0]);
    } else {
      std::array<StableIValue, 4> stack{from(a), from(b), from(out.scalar_type()), from(out)};
      STABLE_TORCH_ERROR_CODE_CHECK(
          torch_call_dispatcher("aten::bmm", "dtype_out", stack.data(), TORCH_ABI_VERSION));
      to<Tensor>(stack[0]);
    }
  }

  template <typename Args>
  void cell_step(const CellStep<Args>& step) const {
    check_launch(launch_cell_step(step, scope.stream), "lstm steps");
  }

  template <typename Args>
  void persistent(const Args&, const Tensor&, bool) const {
    check(false, "impl: cuda is not built");
  }

  DeviceScope scope;
};

}  // namespace
}  // namespace ganlstm::cuda

STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast, CUDA, m) {
  GANLSTM_REGISTER_STEPS(m, ganlstm::cuda::GpuSteps);
}

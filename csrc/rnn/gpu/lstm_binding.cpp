// The LSTM's recurrent steps on a GPU as ops.
#include "lstm_binding.h"

#include <array>
#include <string>

#include "../../common/dispatch.h"
#include "../../common/gpu/stream.h"
#include "persistent_launch.h"

namespace ganlstm::gpu {
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
  void persistent(const Args& args, const Tensor& weight_hh, bool tf32) const {
    using T = typename Args::T;
    if constexpr (std::is_same_v<T, double>) {
      check(false, "weight_hh: impl cuda takes no torch.float64");
    } else {
      const auto limits = persistent::limits_of(weight_hh.get_device_index());
      const Steps& s = args.shape;
      const persistent::Plan plan = persistent::plan(s.batch, s.hidden, s.directions, sizeof(T),
                                                     Pass<Args>::kExchanged, limits);
      if (limits.capability < 9 || !plan.fits)
        check(false, "impl: cuda ", persistent::why_not(s.hidden, sizeof(T), limits));
      Tensor room = room_of(plan, weight_hh);
      const auto* weights = static_cast<const T*>(weight_hh.const_data_ptr());
      check_launch(
          persistent::launch(args, plan, weights, room.mutable_data_ptr(), tf32, scope.stream),
          "lstm steps");
    }
  }

  DeviceScope scope;
};

std::string why_not_cuda(int64_t device, int64_t hidden, int64_t element) {
  const torch::stable::accelerator::DeviceGuard guard(static_cast<int32_t>(device));
  return persistent::why_not(hidden, int(element), persistent::limits_of(int(device)));
}

}  // namespace
}  // namespace ganlstm::gpu

STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast, CompositeExplicitAutograd, m) {
  m.impl("lstm_why_not_cuda", TORCH_BOX(&ganlstm::gpu::why_not_cuda));
}

STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast, CUDA, m) {
  GANLSTM_REGISTER_LSTM_STEPS(m, ganlstm::gpu::GpuSteps);
}

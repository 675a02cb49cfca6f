// The gradient penalty's ops on a GPU.
#include "binding.h"

#include "../../common/dispatch.h"
#include "../../common/gpu/stream.h"
#include "launch.h"

namespace ganlstm::gpu::gradient_penalty {
namespace {

struct OnGpu {
  static constexpr auto kDevice = kCUDA;

  explicit OnGpu(const Tensor& on) : scope(on) {}

  template <typename Body>
  static void dispatch(ScalarType dtype, const char* name, Body&& body) {
    ganlstm::dispatch<float, double, __half, __nv_bfloat16>(dtype, name, body);
  }

  template <Pass pass, typename T>
  void launch(Group<T>& group) const {
    check_launch(gradient_penalty::launch<pass>(group, scope.stream), "gradient penalty");
  }

  DeviceScope scope;
};

}  // namespace
}  // namespace ganlstm::gpu::gradient_penalty

STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast, CUDA, m) {
  GANLSTM_REGISTER_GRADIENT_PENALTY(m, ganlstm::gpu::gradient_penalty::OnGpu);
}

// The spectral norm's ops on a GPU.
#include "binding.h"

#include "../../common/dispatch.h"
#include "../../common/gpu/stream.h"
#include "launch.h"

namespace ganlstm::gpu::spectral_norm {
namespace {

struct OnGpu {
  static constexpr auto kDevice = kCUDA;

  explicit OnGpu(const Tensor& on) : scope(on) {}

  template <typename Body>
  static void dispatch(ScalarType dtype, const char* name, Body&& body) {
    ganlstm::dispatch<float, double, __half, __nv_bfloat16>(dtype, name, body);
  }

  template <typename Weight>
  void launch(const Group<Weight>& group, unsigned int* arrivals) const {
    check_launch(spectral_norm::launch(group, arrivals, scope.stream), "spectral norm");
  }

  DeviceScope scope;
};

}  // namespace
}  // namespace ganlstm::gpu::spectral_norm

STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast, CUDA, m) {
  GANLSTM_REGISTER_SPECTRAL_NORM(m, ganlstm::gpu::spectral_norm::OnGpu);
}

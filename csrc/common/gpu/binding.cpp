// The probe of a GPU as an op.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <string>
#include <tuple>

#include "probe.h"

namespace ganlstm::gpu {
namespace {

std::tuple<int64_t, int64_t, std::string> probe_gpu(int64_t device) {
  const torch::stable::accelerator::DeviceGuard guard(static_cast<int32_t>(device));
  const Probe found = probe();
  const bool runs = found.error == cudaSuccess;
  return {found.driver, found.runtime, runs ? "" : cudaGetErrorString(found.error)};
}

}  // namespace
}  // namespace ganlstm::gpu

STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast, CompositeExplicitAutograd, m) {
  m.impl("probe_gpu", TORCH_BOX(&ganlstm::gpu::probe_gpu));
}

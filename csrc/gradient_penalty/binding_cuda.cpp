#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "../common/cuda_binding.h"
#include "../common/dispatch.h"
#include "interpolate.h"

namespace {

using ganlstm::check;
using torch::stable::Tensor;

Tensor interpolate(Tensor real, Tensor fake, Tensor weight) {
  ganlstm::check_device(real, "real", ganlstm::kCUDA);
  check(real.dim() > 0, "real: expected shape (batch, ...), got ()");
  ganlstm::check_like(fake, "fake", real, "real");
  ganlstm::check_like(weight, "weight", real, "real");
  bool same_shape = fake.dim() == real.dim();
  for (int64_t k = 0; same_shape && k < real.dim(); ++k) same_shape = fake.size(k) == real.size(k);
  check(same_shape, "fake: expected shape ", ganlstm::shape_text(real), " as real has, got ",
        ganlstm::shape_text(fake));
  const int64_t batch = real.size(0);
  ganlstm::check_shape(weight, "weight", {batch}, "(batch,)");
  real = torch::stable::contiguous(real);
  fake = torch::stable::contiguous(fake);
  weight = torch::stable::contiguous(weight);
  Tensor out = torch::stable::empty_like(real);
  const int64_t inner = batch == 0 ? 0 : real.numel() / batch;
  const ganlstm::cuda::DeviceScope scope(real);
  ganlstm::dispatch<float, double, __half, __nv_bfloat16>(
      real.scalar_type(), "real", [&](auto type) {
        using T = typename decltype(type)::type;
        const auto error = ganlstm::cuda::interpolate(
            static_cast<const T*>(real.const_data_ptr()),
            static_cast<const T*>(fake.const_data_ptr()),
            static_cast<const T*>(weight.const_data_ptr()), static_cast<T*>(out.mutable_data_ptr()),
            batch, inner, scope.stream);
        ganlstm::cuda::check_launch(error, "interpolate");
      });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast, CUDA, m) { m.impl("interpolate", TORCH_BOX(&interpolate)); }

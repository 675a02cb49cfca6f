#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "../common/cuda_binding.h"
#include "../common/dispatch.h"
#include "cell_cuda.h"

namespace {

using ganlstm::check_device;
using ganlstm::check_dim;
using ganlstm::check_like;
using ganlstm::check_shape;
using torch::stable::Tensor;

std::tuple<Tensor, Tensor, Tensor> lstm_cell_forward(Tensor z, Tensor c_prev) {
  check_device(z, "z", ganlstm::kCUDA);
  check_dim(c_prev, "c_prev", 2, "(batch, hidden)");
  const int64_t batch = c_prev.size(0), hidden = c_prev.size(1);
  check_shape(z, "z", {batch, 4 * hidden}, "(batch, 4 * hidden)");
  check_like(c_prev, "c_prev", z, "z");
  z = torch::stable::contiguous(z);
  c_prev = torch::stable::contiguous(c_prev);
  Tensor h = torch::stable::empty_like(c_prev);
  Tensor c = torch::stable::empty_like(c_prev);
  Tensor gates = torch::stable::empty_like(z);
  const ganlstm::cuda::DeviceScope scope(z);
  ganlstm::dispatch<float, double, __half, __nv_bfloat16>(z.scalar_type(), "z", [&](auto type) {
    using T = typename decltype(type)::type;
    const auto error = ganlstm::cuda::lstm_cell_forward(
        static_cast<const T*>(z.const_data_ptr()), static_cast<const T*>(c_prev.const_data_ptr()),
        static_cast<T*>(h.mutable_data_ptr()), static_cast<T*>(c.mutable_data_ptr()),
        static_cast<T*>(gates.mutable_data_ptr()), batch, hidden, scope.stream);
    ganlstm::cuda::check_launch(error, "lstm_cell_forward");
  });
  return {h, c, gates};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ganlstm_fast, CUDA, m) {
  m.impl("lstm_cell_forward", TORCH_BOX(&lstm_cell_forward));
}

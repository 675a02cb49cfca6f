// What every CPU binding needs: PyTorch's threads for the kernels, tensors' data, new tensors.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>

#include "../check.h"
#include "parallel.h"
#include "pool.h"

namespace ganlstm {

using OptionalTensor = std::optional<Tensor>;

inline void check_impl(const std::string& impl) {
  check(impl.empty() || impl == "cpu", "impl: expected cpu for tensors on cpu, got ", impl);
}

inline Parallel torch_threads() {
  return {int64_t(torch::stable::get_num_threads()),
          [](int64_t tasks, void (*task)(int64_t, void*), void* data) {
            torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
              for (int64_t index = begin; index < end; ++index) task(index, data);
            });
          }};
}

template <typename T>
const T* in(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <typename T>
const T* in(const OptionalTensor& t) {
  return t.has_value() ? in<T>(*t) : nullptr;
}
template <typename T>
T* out(const Tensor& t, bool wanted = true) {
  return wanted ? static_cast<T*>(t.mutable_data_ptr()) : nullptr;
}

// Not initialised. Does not go through the dispatcher, which costs more than a small tensor.
inline Tensor empty_strided(int64_t dim, const int64_t* sizes, const int64_t* strides,
                            ScalarType dtype) {
  AtenTensorHandle result;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      dim, sizes, strides, torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)),
      int32_t(kCPU), 0, &result));
  return Tensor(result);
}

// Stands for a result that is not wanted: shape (0,).
inline Tensor absent_tensor(ScalarType dtype) {
  const int64_t size = 0, stride = 1;
  return empty_strided(1, &size, &stride, dtype);
}

// As empty_strided; large tensors come from the pool, because each training step allocates them
// again.
inline Tensor pooled_tensor(int64_t dim, const int64_t* sizes, const int64_t* strides,
                            int64_t count, ScalarType dtype) {
  const size_t element = dtype == ScalarType::Double ? 8 : dtype == ScalarType::Float ? 4 : 2;
  const size_t bytes = size_t(count) * element;
  if (bytes < kPoolBytes) return empty_strided(dim, sizes, strides, dtype);
  return torch::stable::from_blob(pool_take(bytes), {sizes, size_t(dim)}, {strides, size_t(dim)},
                                  torch::stable::Device(kCPU), dtype,
                                  [bytes](void* block) { pool_give(block, bytes); });
}

}  // namespace ganlstm

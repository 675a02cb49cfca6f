// Checks of a binding's arguments. A message names the argument, what was expected and what came:
//
//   check_device(z, "z", kCUDA);
//   check_shape(z, "z", {batch, 4 * hidden}, "(batch, 4 * hidden)");
//   check_like(c_prev, "c_prev", z, "z");
//   check(lengths_ok, "lengths: expected values in 1..", steps);
//
// The Python functions check first and in more detail; these keep a direct call of torch.ops from
// reading outside a tensor.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string>

namespace ganlstm {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline constexpr auto kCPU = torch::headeronly::DeviceType::CPU;
inline constexpr auto kCUDA = torch::headeronly::DeviceType::CUDA;

// Throws what arrives in Python as a RuntimeError.
template <typename... Parts>
void check(bool condition, const Parts&... parts) {
  if (condition) return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

// An op makes dozens of checks at each call, so these turn into text only when a check fails.

// A dtype as Python writes it.
inline const char* dtype_name(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float: return "torch.float32";
    case ScalarType::Double: return "torch.float64";
    case ScalarType::Half: return "torch.float16";
    case ScalarType::BFloat16: return "torch.bfloat16";
    case ScalarType::Long: return "torch.int64";
    case ScalarType::Int: return "torch.int32";
    case ScalarType::Bool: return "torch.bool";
    default: return torch::headeronly::toString(dtype);
  }
}

// The dtype of Compute<T> (bfloat16.h) for tensors of `dtype`.
inline ScalarType compute_dtype(ScalarType dtype) {
  return dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

struct DeviceName {
  const Tensor& tensor;
};
inline DeviceName device_name(const Tensor& tensor) { return {tensor}; }
inline std::ostream& operator<<(std::ostream& out, const DeviceName& name) {
  const auto device = name.tensor.device();
  if (device.type() == kCUDA) return out << "cuda:" << device.index();
  return out << (device.type() == kCPU ? "cpu" : "another");
}

struct ShapeText {
  const Tensor& tensor;
};
inline ShapeText shape_text(const Tensor& tensor) { return {tensor}; }
inline std::ostream& operator<<(std::ostream& out, const ShapeText& text) {
  const int64_t dim = text.tensor.dim();
  out << "(";
  for (int64_t k = 0; k < dim; ++k) out << (k ? ", " : "") << text.tensor.size(k);
  return out << (dim == 1 ? ",)" : ")");
}

struct Sizes {
  std::initializer_list<int64_t> sizes;
};
inline std::ostream& operator<<(std::ostream& out, const Sizes& all) {
  const char* before = "";
  for (int64_t size : all.sizes) {
    out << before << size;
    before = ", ";
  }
  return out;
}

inline void check_dim(const Tensor& tensor, const char* name, int64_t dim, const char* meaning) {
  check(tensor.dim() == dim, name, ": expected shape ", meaning, ", got ", shape_text(tensor));
}

// `meaning` is the shape in words, for the message.
inline void check_shape(const Tensor& tensor, const char* name,
                        std::initializer_list<int64_t> shape, const char* meaning) {
  bool equal = tensor.dim() == static_cast<int64_t>(shape.size());
  int64_t k = 0;
  for (int64_t size : shape) equal = equal && tensor.size(k++) == size;
  check(equal, name, ": expected shape ", meaning, " = (", Sizes{shape}, "), got ",
        shape_text(tensor));
}

inline void check_device(const Tensor& tensor, const char* name,
                         torch::headeronly::DeviceType expected) {
  check(tensor.device().type() == expected, name, ": expected a tensor on ",
        expected == kCPU ? "cpu" : "cuda", ", got one on ", device_name(tensor));
}

// Same dtype and device.
inline void check_like(const Tensor& tensor, const char* name, const Tensor& other,
                       const char* other_name) {
  check(tensor.scalar_type() == other.scalar_type(), name, ": expected ",
        dtype_name(other.scalar_type()), " as ", other_name, " has, got ",
        dtype_name(tensor.scalar_type()));
  check(tensor.device() == other.device(), name, ": expected a tensor on ", device_name(other),
        " as ", other_name, " is, got one on ", device_name(tensor));
}

}  // namespace ganlstm

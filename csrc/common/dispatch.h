// From a tensor's dtype to a C++ type. Usage:
//
//   dispatch<float, double>(x.scalar_type(), "x", [&](auto type) {
//     using scalar_t = typename decltype(type)::type;
//     kernel(static_cast<const scalar_t*>(x.const_data_ptr()), ...);
//   });
//
// A dtype that is not listed raises "x: expected torch.float32 or torch.float64, got torch.int64".
#pragma once

#include "bfloat16.h"
#include "check.h"

#if defined(USE_CUDA)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace ganlstm {

template <typename T>
struct TypeOf {
  using type = T;
};

template <typename T>
struct DtypeOf;
template <>
struct DtypeOf<float> {
  static constexpr ScalarType value = ScalarType::Float;
};
template <>
struct DtypeOf<double> {
  static constexpr ScalarType value = ScalarType::Double;
};
template <>
struct DtypeOf<BFloat16> {
  static constexpr ScalarType value = ScalarType::BFloat16;
};
#if defined(USE_CUDA)
template <>
struct DtypeOf<__half> {
  static constexpr ScalarType value = ScalarType::Half;
};
template <>
struct DtypeOf<__nv_bfloat16> {
  static constexpr ScalarType value = ScalarType::BFloat16;
};
#endif

template <typename... Types, typename Body>
void dispatch(ScalarType dtype, const char* name, Body&& body) {
  bool found = ((dtype == DtypeOf<Types>::value && (body(TypeOf<Types>{}), true)) || ...);
  if (found) return;
  std::string expected;
  size_t k = 0;
  for (std::string known : {dtype_name(DtypeOf<Types>::value)...}) {
    expected += (k == 0 ? "" : k + 1 == sizeof...(Types) ? " or " : ", ") + known;
    ++k;
  }
  check(false, name, ": expected ", expected, ", got ", dtype_name(dtype));
}

}  // namespace ganlstm

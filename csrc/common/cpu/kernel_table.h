// Tables of kernels, a struct template of function pointers for one dtype, of which there is one
// for each instruction set. In a header, and in the source that is compiled for each set:
//
//   GANLSTM_DECLARE_TABLES(ArrayKernels, array_kernels)
//   GANLSTM_DEFINE_TABLES(ArrayKernels, array_kernels, {scale<T>, add<T>})
//
// after which array_kernels<float>() is the one for the processor at hand. No set has products of
// bfloat16s in these: avx512bf16 is avx512.
#pragma once

#include <type_traits>

#include "../bfloat16.h"
#include "isa.h"

#define GANLSTM_DECLARE_TABLES_OF(isa, Table, name)           \
  namespace isa {                                             \
  extern const Table<float> name##_of_float;                  \
  extern const Table<double> name##_of_double;                \
  extern const Table<::ganlstm::BFloat16> name##_of_bfloat16; \
  }

#define GANLSTM_TABLE_OF(isa, name)             \
  if constexpr (std::is_same_v<T, float>)       \
    return isa::name##_of_float;                \
  else if constexpr (std::is_same_v<T, double>) \
    return isa::name##_of_double;               \
  else                                          \
    return isa::name##_of_bfloat16;

#if defined(__x86_64__)
#define GANLSTM_DECLARE_TABLES(Table, name)        \
  GANLSTM_DECLARE_TABLES_OF(baseline, Table, name) \
  GANLSTM_DECLARE_TABLES_OF(avx2, Table, name)     \
  GANLSTM_DECLARE_TABLES_OF(avx512, Table, name)   \
  template <typename T>                            \
  const Table<T>& name() {                         \
    if (chosen_isa() >= Isa::avx512) {             \
      GANLSTM_TABLE_OF(avx512, name)               \
    }                                              \
    if (chosen_isa() == Isa::avx2) {               \
      GANLSTM_TABLE_OF(avx2, name)                 \
    }                                              \
    GANLSTM_TABLE_OF(baseline, name)               \
  }
#else
#define GANLSTM_DECLARE_TABLES(Table, name)        \
  GANLSTM_DECLARE_TABLES_OF(baseline, Table, name) \
  template <typename T>                            \
  const Table<T>& name() {                         \
    GANLSTM_TABLE_OF(baseline, name)               \
  }
#endif

#define GANLSTM_DEFINE_TABLES(Table, name, ...)                      \
  namespace {                                                        \
  template <typename T>                                              \
  constexpr Table<T> name##_table = __VA_ARGS__;                     \
  }                                                                  \
  namespace GANLSTM_ISA {                                            \
  const Table<float> name##_of_float = name##_table<float>;          \
  const Table<double> name##_of_double = name##_table<double>;       \
  const Table<BFloat16> name##_of_bfloat16 = name##_table<BFloat16>; \
  }

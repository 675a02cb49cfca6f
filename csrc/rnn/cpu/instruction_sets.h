// The passes in the namespaces of the instruction sets, each of which is compiled for some types.
#pragma once

#include "../lstm.h"

// GANLSTM_DECLARE(avx2, float) declares the three passes of one set for one type.
#define GANLSTM_DECLARE(isa, T)                                             \
  namespace isa {                                                           \
  void lstm_forward(const LstmForward<T>&, const Parallel&);                \
  void lstm_backward(const LstmBackward<T>&, const Parallel&);              \
  void lstm_double_backward(const LstmDoubleBackward<T>&, const Parallel&); \
  }

// GANLSTM_DEFINE(lstm_forward, LstmForward, run_forward) defines one pass by a template, for the
// types of the set that is being compiled. GANLSTM_BFLOAT16 is the one with products in bfloat16;
// for everything else there is the set below it.
#define GANLSTM_DEFINE_FOR(T, name, Args, run)                                             \
  namespace GANLSTM_ISA {                                                                  \
  void name(const Args<T>& args, const Parallel& parallel) { return run(args, parallel); } \
  }
#if defined(GANLSTM_BFLOAT16)
#define GANLSTM_DEFINE(name, Args, run) GANLSTM_DEFINE_FOR(BFloat16, name, Args, run)
#else
#define GANLSTM_DEFINE(name, Args, run)      \
  GANLSTM_DEFINE_FOR(float, name, Args, run) \
  GANLSTM_DEFINE_FOR(double, name, Args, run)
#endif

// A pass's walk with one product and one kernel for each step: any H, any GPU, any dtype.
#pragma once

#include "steps.h"

#if defined(__CUDACC__) || defined(USE_CUDA)
#include <cuda_runtime.h>
#endif

namespace ganlstm::gpu {

// One unit of one row at step `walked`, the product before it having been taken. Against time there
// is one step more, which only takes the last product.
template <typename Args>
struct CellStep {
  using P = Pass<Args>;
  using T = typename Args::T;
  using V = Compute<T>;
  Args args;
  int64_t walked;
  const V* product;  // [D,B,4H] along time; [D,B,H] against it, not read in the first step
  T* exchanged;      // [D,B,4H] out against time; null along it: the state itself is multiplied

  GANLSTM_HD int64_t elements() const {
    return args.shape.directions * args.shape.batch * args.shape.hidden;
  }

  GANLSTM_HD void operator()(int64_t element) const {
    const Steps& s = args.shape;
    const int64_t unit = element % s.hidden, row = element / s.hidden;
    const Element at(s, row / s.batch, row % s.batch, unit);
    typename P::Carried carried = P::carry(args, at);
    const int64_t index = s.first + (P::kAlongTime ? walked : s.steps - 1 - walked);
    typename P::Slots sums{};
    if constexpr (P::kAlongTime) {
      const V* p = product + row * 4 * s.hidden + unit;
      sums = {p[0], p[s.hidden], p[2 * s.hidden], p[3 * s.hidden]};
    } else {
      if (walked > 0 && at.is_alive(at.time(s, index + 1)))
        P::take(typename P::Slots{product[element], V(0), V(0), V(0)}, carried);
    }
    if (walked < s.steps) {
      const int64_t time = at.time(s, index);
      V values[P::kExchanged];
      typename P::Results results;
      P::run(args, at, time, P::load_operands(args, at, time), sums, carried, values, results);
      P::write(args, at, time, results);
      if constexpr (!P::kAlongTime)
        for (int q = 0; q < 4; ++q) store(exchanged + (row * 4 + q) * s.hidden + unit, values[q]);
    }
    P::keep(args, at, carried);
  }
};

#if defined(__CUDACC__) || defined(USE_CUDA)
// Starts one step on `stream` of the current device and returns cudaGetLastError(). Empty sizes
// start nothing. The dtypes of Args are float, double, __half and __nv_bfloat16.
template <typename Args>
cudaError_t launch_cell_step(const CellStep<Args>& step, cudaStream_t stream);
#endif

}  // namespace ganlstm::gpu

// The gradient penalty's passes on a GPU.
#pragma once

#include "backward.h"
#include "double_backward.h"
#include "forward.h"
#include "interpolate.h"

namespace ganlstm::gpu::gradient_penalty {

#if defined(GANLSTM_GPU)

// A block's part of a pass.
template <Pass pass, typename T>
GANLSTM_GPU void run(const Group<T>& g, const Grid& grid) {
  if constexpr (pass == Pass::interpolate) interpolate(g, grid);
  if constexpr (pass == Pass::forward) forward(g, grid);
  if constexpr (pass == Pass::backward) backward(g, grid);
  if constexpr (pass == Pass::double_backward) double_backward(g, grid);
}

#endif

}  // namespace ganlstm::gpu::gradient_penalty

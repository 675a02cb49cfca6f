// The spectral norm's passes on a GPU, by the type of their weights.
#pragma once

#include "backward.h"
#include "double_backward.h"
#include "forward.h"

namespace ganlstm::gpu::spectral_norm {

#if defined(GANLSTM_GPU)

// A block's part of the pass that a group's weights are of.
template <typename T>
GANLSTM_GPU void run(const Group<Forward<T>>& group, Grid grid) {
  ForwardPass<T>::run(group, grid);
}
template <typename T>
GANLSTM_GPU void run(const Group<Backward<T>>& group, Grid grid) {
  BackwardPass<T>::run(group, grid);
}
template <typename T>
GANLSTM_GPU void run(const Group<DoubleBackward<T>>& group, Grid grid) {
  DoubleBackwardPass<T>::run(group, grid);
}

#endif

}  // namespace ganlstm::gpu::spectral_norm

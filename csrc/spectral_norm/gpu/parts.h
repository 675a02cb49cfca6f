// How the blocks of a grid share a pass over the weights of a group.
#pragma once

#include "../../common/gpu/grid.h"
#include "groups.h"

namespace ganlstm::gpu::spectral_norm {

#if defined(GANLSTM_GPU)

// Calls body(weight, part) for this block's parts. The parts of all weights are numbered in a row
// and dealt to the blocks in turn.
template <typename Weight, typename Parts, typename Body>
GANLSTM_GPU void for_each_part(const Group<Weight>& group, const Grid& grid, Parts&& parts,
                               Body&& body) {
  int64_t next = hardware::block(), begin = 0;
  for (int k = 0; k < group.count; ++k) {
    const Weight& weight = group.weights[k];
    const int64_t end = begin + parts(weight);
    for (; next < end; next += grid.blocks) body(weight, next - begin);
    begin = end;
  }
}

// Reads what another block wrote in an earlier phase.
template <typename C>
GANLSTM_GPU C fresh(const C* p) {
  return hardware::load_of_others(p);
}

// Whether the weight is divided by sigma; otherwise it is divided by the constant 1.
template <typename C>
GANLSTM_GPU bool divides(C sigma, C eps) {
  return (sigma < 0 ? -sigma : sigma) > eps;
}

// Calls body(k, u_i v_j) for the part's elements.
template <typename Weight, typename Body>
GANLSTM_GPU void for_each_element(const Weight& w, int64_t part, Body&& body) {
  const Shape& s = w.shape;
  const int64_t last = (part + 1) * kElementsOfPart;
  const int64_t end = last < s.elements() ? last : s.elements();
#pragma unroll 4
  for (int64_t k = part * kElementsOfPart + hardware::thread(); k < end; k += hardware::threads()) {
    const uint32_t segment = s.by_inner.quotient(uint32_t(k));
    const uint32_t outer = s.by_rows.quotient(segment);
    // Segment outer * h + i begins at column outer * B of row i.
    const int64_t row = segment - outer * s.rows, column = k - (segment - outer) * s.inner;
    body(k, w.u[row] * w.v[column]);
  }
}

template <typename C>
GANLSTM_GPU C sum_of_parts(const C* parts, int64_t count) {
  C sum = 0;
  for (int64_t k = hardware::thread(); k < count; k += hardware::threads()) sum += fresh(parts + k);
  return block_sum(sum);
}

#endif

}  // namespace ganlstm::gpu::spectral_norm

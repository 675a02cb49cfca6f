// The spectral norm's passes over a list of weights on a GPU, as spectral_norm.h has them, each in
// one launch of a cooperative grid. The order of every sum is the same for any number of blocks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../../common/gpu/divisor.h"
#include "../../common/numbers.h"

namespace ganlstm::gpu::spectral_norm {

constexpr int kThreads = 256;
constexpr int kMostWeights = 64;     // of a launch: they travel as its argument
constexpr int kRowsOfPart = 16;      // of W that a block multiplies at a time
constexpr int kColumnsOfPart = 256;  // that a block sums at a time
constexpr int kElementsOfPart = 8192;

struct Shape {
  int64_t outer, rows, inner;  // A, h, B; fewer than 2^31 elements
  Divisor by_inner, by_rows;

  Shape() = default;
  Shape(int64_t outer, int64_t rows, int64_t inner)
      : outer(outer),
        rows(rows),
        inner(inner),
        by_inner(uint32_t(inner)),
        by_rows(uint32_t(rows)) {}

  GANLSTM_HD int64_t columns() const { return outer * inner; }
  GANLSTM_HD int64_t elements() const { return outer * rows * inner; }
  GANLSTM_HD int64_t row_parts() const { return parts(rows, kRowsOfPart); }
  GANLSTM_HD int64_t column_parts() const { return parts(columns(), kColumnsOfPart); }
  GANLSTM_HD int64_t element_parts() const { return parts(elements(), kElementsOfPart); }
  static GANLSTM_HD int64_t parts(int64_t all, int64_t of_part) {
    return (all + of_part - 1) / of_part;
  }
};

// `iterations`: of the forward; 0 takes u and v as they are.
template <typename Weight>
struct Group {
  Weight weights[kMostWeights];
  int count;
  int iterations;
  Compute<typename Weight::Element> eps;
};

}  // namespace ganlstm::gpu::spectral_norm

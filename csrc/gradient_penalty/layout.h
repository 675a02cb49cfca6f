// Checks of lists of tensors [B,...] for the bindings of every device.
#pragma once

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "../common/check.h"

namespace ganlstm {

constexpr int64_t kMostDimensions = 64;

// The number of elements of a sample, after checking that samples lie dense and one after another
// in memory, in whatever order of their dimensions.
inline int64_t check_samples(const Tensor& t, const char* name, int64_t batch) {
  const int64_t dim = t.dim();
  check(dim > 0 && dim <= kMostDimensions && t.size(0) == batch, name, ": expected shape (", batch,
        ", ...), got ", shape_text(t));
  if (t.is_contiguous()) return batch > 0 ? t.numel() / batch : 0;
  std::array<std::pair<int64_t, int64_t>, kMostDimensions> order;  // stride and size
  int64_t kept = 0;
  for (int64_t d = 1; d < dim; ++d)
    if (t.size(d) != 1) order[size_t(kept++)] = {t.stride(d), t.size(d)};
  std::sort(order.begin(), order.begin() + kept);
  int64_t elements = 1;
  bool dense = true;
  for (int64_t k = 0; k < kept; ++k) {
    dense = dense && order[size_t(k)].first == elements;
    elements *= order[size_t(k)].second;
  }
  check(dense && (batch == 1 || t.stride(0) == elements), name,
        ": expected samples that are dense in memory, the batch outermost; call contiguous()");
  return elements;
}

// The same dtype, device, shape and, where they matter, strides.
inline void check_same_layout(const Tensor& t, const char* name, const Tensor& other,
                              const char* other_name) {
  check_like(t, name, other, other_name);
  bool shape = t.dim() == other.dim(), strides = true;
  for (int64_t d = 0; shape && d < t.dim(); ++d) {
    shape = t.size(d) == other.size(d);
    strides = strides && (t.size(d) == 1 || t.stride(d) == other.stride(d));
  }
  check(shape, name, ": expected shape ", shape_text(other), " of ", other_name, ", got ",
        shape_text(t));
  check(strides || t.numel() == 0, name, ": expected the strides of ", other_name);
}

}  // namespace ganlstm

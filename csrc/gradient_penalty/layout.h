// Checks of lists of tensors [B,...] for the bindings of every device.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
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

// The arguments of interpolate, checked.
struct Mixture {
  Mixture(const std::optional<Tensor>& real, const std::optional<Tensor>& fake, const Tensor& seed,
          torch::headeronly::DeviceType device)
      : name(real.has_value() ? "real" : "fake"), like(real.has_value() ? *real : present(fake)) {
    check_device(like, name, device);
    check(like.dim() > 0, name, ": expected shape (batch, ...), got ()");
    batch = like.size(0);
    elements = check_samples(like, name, batch);
    if (real.has_value() && fake.has_value()) check_same_layout(*fake, "fake", like, "real");
    check_device(seed, "seed", device);
    check(seed.scalar_type() == ScalarType::Long && seed.numel() == 1,
          "seed: expected one torch.int64, got ", dtype_name(seed.scalar_type()), " of shape ",
          shape_text(seed));
    check(seed.device() == like.device(), "seed: expected a tensor on ", device_name(like),
          ", got one on ", device_name(seed));
  }

  const char* name;  // of `like`
  const Tensor& like;
  int64_t batch, elements;  // `elements`: of a sample

 private:
  static const Tensor& present(const std::optional<Tensor>& fake) {
    check(fake.has_value(), "real: expected a tensor where fake is absent");
    return *fake;
  }
};

// The gradients of a call, and checks of tensors against them.
class Gradients {
 public:
  Gradients(const std::vector<Tensor>& grads, torch::headeronly::DeviceType device)
      : grads_(grads) {
    check(!grads.empty(), "grads: expected a tensor or more, got none");
    check(grads[0].dim() > 0 && grads[0].size(0) > 0,
          "grads: expected shape (1 or more, ...), got ", shape_text(grads[0]));
    for (const Tensor& grad : grads) {
      check_device(grad, "grads", device);
      check_like(grad, "grads", grads[0], "the first of them");
      elements_.push_back(check_samples(grad, "grads", batch()));
    }
  }

  const Tensor& operator[](size_t k) const { return grads_[k]; }
  size_t count() const { return grads_.size(); }
  int64_t batch() const { return grads_[0].size(0); }
  int64_t elements(size_t k) const { return elements_[k]; }
  ScalarType dtype() const { return grads_[0].scalar_type(); }
  ScalarType sum_dtype() const { return compute_dtype(dtype()); }

  void check_sums(const Tensor& t, const char* name, int64_t size) const {
    check(t.scalar_type() == sum_dtype(), name, ": expected ", dtype_name(sum_dtype()), ", got ",
          dtype_name(t.scalar_type()));
    check(t.device() == grads_[0].device(), name, ": expected a tensor on ", device_name(grads_[0]),
          ", got one on ", device_name(t));
    check(t.numel() == size && t.is_contiguous(), name, ": expected ", size,
          " values, contiguous, got shape ", shape_text(t));
  }
  void check_second(const std::vector<std::optional<Tensor>>& v_grads,
                    const std::vector<bool>& wanted) const {
    check(v_grads.size() == count(), "v_grads: expected ", count(), " as there are grads, got ",
          v_grads.size());
    check(wanted.size() == 2, "wanted: expected 2 values, got ", wanted.size());
    for (size_t k = 0; k < count(); ++k)
      if (v_grads[k].has_value()) check_same_layout(*v_grads[k], "v_grads", grads_[k], "grads");
  }

 private:
  const std::vector<Tensor>& grads_;
  std::vector<int64_t> elements_;
};

}  // namespace ganlstm

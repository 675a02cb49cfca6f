// The penalty as a function of a sample's norm, and its derivatives, once for the CPU and for a
// GPU.
#pragma once

#include "../common/activations.h"

namespace ganlstm {

template <typename C>
struct PenaltyCurve {
  C center;
  bool one_sided;

  // e(n): n - center, one-sided max(0, n - center). NaN stays NaN.
  GANLSTM_HD C excess(C norm) const { return one_sided && norm < center ? C(0) : norm - center; }

  // Whether e(n) counts as constant around n. The norm has no derivative at 0, but its square has,
  // and with a center of 0 only the square is used. At the center itself the one-sided e(n) has the
  // derivative that it has above, as torch's clamp_min does.
  GANLSTM_HD bool is_flat(C norm) const {
    return center != 0 && (norm == 0 || (one_sided && norm < center));
  }

  // e(n) / n.
  GANLSTM_HD C slope(C norm) const {
    if (is_flat(norm)) return 0;
    return center == 0 ? C(1) : (norm - center) / norm;
  }

  // d(e(n) / n)/dn times <v, g>: the factor of the unit vector g / n.
  GANLSTM_HD C bend(C norm, C product) const {
    if (center == 0 || is_flat(norm)) return 0;
    return center / norm * (product / norm);
  }
  // The factor of g, which overflows earlier than that of the unit vector.
  GANLSTM_HD C curvature(C norm, C product) const {
    return norm == 0 ? C(0) : bend(norm, product) / norm;
  }
};

}  // namespace ganlstm

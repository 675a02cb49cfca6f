// Division by a number that is known before a kernel starts: a product and a shift in it (Granlund
// and Montgomery, Division by Invariant Integers using Multiplication, 1994, fig. 4.1).
#pragma once

#include <cstdint>

#include "../activations.h"

namespace ganlstm {

class Divisor {
 public:
  Divisor() = default;
  explicit Divisor(uint32_t divisor) : divisor_(divisor) {
    while (shift_ < 32 && (uint64_t(1) << shift_) < divisor) ++shift_;
    const uint64_t rest = (uint64_t(1) << shift_) - divisor;
    multiplier_ = uint32_t((rest << 32) / divisor + 1);
  }

  // n: below 2^31.
  GANLSTM_HD uint32_t quotient(uint32_t n) const {
    return uint32_t((uint64_t(n) * multiplier_ >> 32) + n) >> shift_;
  }
  GANLSTM_HD uint32_t rest(uint32_t n) const { return n - quotient(n) * divisor_; }

 private:
  uint32_t divisor_ = 1, multiplier_ = 1, shift_ = 0;
};

}  // namespace ganlstm

#include "../layer.h"

#include <algorithm>
#include <numeric>

namespace ganlstm {

void order_by_length(const int64_t* lengths, int64_t batch, int64_t* order) {
  std::iota(order, order + batch, int64_t(0));
  std::stable_sort(order, order + batch,
                   [lengths](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
}

}  // namespace ganlstm

// What the blocks of a grid do together: wait for each other, find out who is the last, and sum.
#pragma once

#include "device.h"

namespace ganlstm::cuda {

#if defined(GANLSTM_DEVICE)

// All blocks of the grid; only those of a cooperative one may wait.
struct Grid {
  unsigned int* arrivals;  // [1] a zero before the launch
  int blocks;
  unsigned int passages = 0;

  GANLSTM_DEVICE void barrier() {
    device::block_barrier();
    passages += blocks;
    if (device::thread() == 0) {
      device::grid_arrive(arrivals);
      device::grid_wait(arrivals, passages);
    }
    device::block_barrier();
  }

  // Once, at the end: true for the block that comes last, which sees what all others have written.
  GANLSTM_DEVICE bool is_last() {
    auto* before = reinterpret_cast<unsigned int*>(device::shared_memory());
    device::block_barrier();
    if (device::thread() == 0) *before = device::grid_arrive_and_count(arrivals);
    device::block_barrier();
    return *before == passages + blocks - 1;
  }
};

// What a block sums in its shared memory.
template <typename C>
GANLSTM_DEVICE C block_sum(C value) {
  C* sums = reinterpret_cast<C*>(device::shared_memory());
  value = device::warp_sum(value);
  device::block_barrier();
  if (device::thread() % 32 == 0) sums[device::thread() / 32] = value;
  device::block_barrier();
  C total = 0;
  for (int warp = 0; warp < device::threads() / 32; ++warp) total += sums[warp];
  return total;
}

#endif

}  // namespace ganlstm::cuda

// How the blocks of a grid wait for each other and find out which is the last, and a block's sum.
#pragma once

#include "hardware.h"

namespace ganlstm::gpu {

#if defined(GANLSTM_GPU)

// All blocks of the grid. Only those of a cooperative grid may call barrier().
struct Grid {
  unsigned int* arrivals;  // [1] a zero before the launch
  int blocks;
  unsigned int passages = 0;

  GANLSTM_GPU void barrier() {
    hardware::block_barrier();
    passages += blocks;
    if (hardware::thread() == 0) {
      hardware::grid_arrive(arrivals);
      hardware::grid_wait(arrivals, passages);
    }
    hardware::block_barrier();
  }

  // Called once, at the end: true in the block that comes last, which sees what all others wrote.
  GANLSTM_GPU bool is_last() {
    auto* before = reinterpret_cast<unsigned int*>(hardware::shared_memory());
    hardware::block_barrier();
    if (hardware::thread() == 0) *before = hardware::grid_arrive_and_count(arrivals);
    hardware::block_barrier();
    return *before == passages + blocks - 1;
  }
};

// What a block sums in its shared memory.
template <typename C>
GANLSTM_GPU C block_sum(C value) {
  C* sums = reinterpret_cast<C*>(hardware::shared_memory());
  value = hardware::warp_sum(value);
  hardware::block_barrier();
  if (hardware::thread() % 32 == 0) sums[hardware::thread() / 32] = value;
  hardware::block_barrier();
  C total = 0;
  for (int warp = 0; warp < hardware::threads() / 32; ++warp) total += sums[warp];
  return total;
}

#endif

}  // namespace ganlstm::gpu

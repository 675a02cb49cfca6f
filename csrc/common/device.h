// What a kernel that spans a thread-block cluster asks of the GPU, by name: sm_90 has it all. Tests
// put an emulation in its place (csrc/tests/emulator.h), in which every thread is a fiber.
#pragma once

#include "numbers.h"

#if defined(__CUDACC__)

#include <cooperative_groups.h>

namespace ganlstm::cuda::device {

#define GANLSTM_DEVICE __device__ __forceinline__

GANLSTM_DEVICE int thread() { return threadIdx.x; }
GANLSTM_DEVICE int threads() { return blockDim.x; }
GANLSTM_DEVICE int block_x() { return blockIdx.x; }
GANLSTM_DEVICE int block_y() { return blockIdx.y; }

// The block's dynamic shared memory.
GANLSTM_DEVICE char* shared_memory() {
  extern __shared__ __align__(16) char memory[];
  return memory;
}

GANLSTM_DEVICE void block_barrier() { __syncthreads(); }

#if __CUDA_ARCH__ >= 900 || !defined(__CUDA_ARCH__)
// All threads of all blocks of the cluster; what they wrote before is seen after.
GANLSTM_DEVICE void cluster_arrive() { cooperative_groups::this_cluster().barrier_arrive(); }
GANLSTM_DEVICE void cluster_wait() { cooperative_groups::this_cluster().barrier_wait(); }
// The same place in the shared memory of another block of the cluster.
template <typename T>
GANLSTM_DEVICE T* of_block(T* shared, int rank) {
  return cooperative_groups::this_cluster().map_shared_rank(shared, rank);
}
#endif

struct Words4 {
  uint32_t x, y, z, w;
};
GANLSTM_DEVICE Words4 load16(const char* from) {
  const uint4 value = *reinterpret_cast<const uint4*>(from);
  return {value.x, value.y, value.z, value.w};
}
GANLSTM_DEVICE void store16(char* to, const Words4& value) {
  *reinterpret_cast<uint4*>(to) = make_uint4(value.x, value.y, value.z, value.w);
}

GANLSTM_DEVICE uint32_t bits_of(float value) { return __float_as_uint(value); }
GANLSTM_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }

// To the nearest number that tensor cores multiply as float32's short form.
GANLSTM_DEVICE float to_tf32(float value) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return __uint_as_float(bits);
}

// A warp's product sum += a b, of 16 x 16 (tf32: 16 x 8) by 8 columns, in the fragments of PTX's
// mma.m16n8.
template <typename T>
GANLSTM_DEVICE void mma(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                        uint32_t b0, uint32_t b1);

#define GANLSTM_MMA(T, shape_and_types)                                                       \
  template <>                                                                                 \
  GANLSTM_DEVICE void mma<T>(float(&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2,           \
                             uint32_t a3, uint32_t b0, uint32_t b1) {                         \
    asm("mma.sync.aligned." shape_and_types                                                   \
        " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                    \
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])                              \
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));                              \
  }
GANLSTM_MMA(float, "m16n8k8.row.col.f32.tf32.tf32.f32")
GANLSTM_MMA(BrainHalf, "m16n8k16.row.col.f32.bf16.bf16.f32")
GANLSTM_MMA(Half, "m16n8k16.row.col.f32.f16.f16.f32")
#undef GANLSTM_MMA

}  // namespace ganlstm::cuda::device

#endif

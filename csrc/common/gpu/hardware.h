// What a kernel that spans several thread blocks asks of the GPU, by name; sm_90 has it all. In
// tests an emulation takes its place (csrc/tests/emulator.h), in which every thread is a fiber.
//
// Three words, in all of csrc:
//   gpu     the code of the kernels of a GPU: the folders gpu/, the namespace gpu. A GPU runs
//           it, or a CPU that emulates one.
//   cuda    NVIDIA's toolkit, what it compiles and what calls it: *.cu, cuda* functions, the object
//           _C_cuda, the implementation "cuda".
//   device  where a tensor lies, as torch counts devices: cpu, cuda:0, cuda:1.
#pragma once

#include "../numbers.h"

#if defined(__CUDACC__)

#include <cooperative_groups.h>

namespace ganlstm::gpu::hardware {

#define GANLSTM_GPU __device__ __forceinline__

GANLSTM_GPU int thread() { return threadIdx.x; }
GANLSTM_GPU int threads() { return blockDim.x; }
GANLSTM_GPU int block() { return blockIdx.x; }

// The block's dynamic shared memory.
GANLSTM_GPU char* shared_memory() {
  extern __shared__ __align__(16) char memory[];
  return memory;
}

GANLSTM_GPU void block_barrier() { __syncthreads(); }

#if __CUDA_ARCH__ >= 900 || !defined(__CUDA_ARCH__)
// All threads of all blocks of the cluster; what they wrote before is seen after. Its
// fence waits for every store to memory, which is too slow for each step.
GANLSTM_GPU void cluster_barrier() { cooperative_groups::this_cluster().sync(); }
#endif

// The blocks of a cooperative grid wait for each other: one thread of each block calls these,
// between barriers of the block. `count` begins at 0 and only grows, so that no block has to reset
// it.
GANLSTM_GPU void grid_arrive(unsigned int* count) {
  asm volatile("fence.acq_rel.gpu;" ::: "memory");
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(count) : "memory");
}
// For a block that need not wait: returns how many had arrived before it.
GANLSTM_GPU unsigned int grid_arrive_and_count(unsigned int* count) {
  unsigned int before;
  asm volatile("fence.acq_rel.gpu;" ::: "memory");
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;"
               : "=r"(before)
               : "l"(count)
               : "memory");
  return before;
}
GANLSTM_GPU void grid_wait(const unsigned int* count, unsigned int expected) {
  unsigned int arrived;
  do {
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(arrived) : "l"(count) : "memory");
  } while (arrived < expected);
}

struct Words4 {
  uint32_t x, y, z, w;
};
GANLSTM_GPU Words4 load16(const char* from) {
  const uint4 value = *reinterpret_cast<const uint4*>(from);
  return {value.x, value.y, value.z, value.w};
}
// What other blocks have written: not from the cache of this multiprocessor.
GANLSTM_GPU Words4 load16_of_others(const char* from) {
  const uint4 value = __ldcg(reinterpret_cast<const uint4*>(from));
  return {value.x, value.y, value.z, value.w};
}
GANLSTM_GPU void store16(char* to, const Words4& value) {
  *reinterpret_cast<uint4*>(to) = make_uint4(value.x, value.y, value.z, value.w);
}
// read16 is for arrays that the kernel does not write, write16 for arrays that it does not read:
// the compiler may reorder the two, and it does not split them.
GANLSTM_GPU Words4 read16(const char* from) {
  const uint4 value = __ldg(reinterpret_cast<const uint4*>(from));
  return {value.x, value.y, value.z, value.w};
}
GANLSTM_GPU void write16(char* to, const Words4& value) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(value.x), "r"(value.y),
               "r"(value.z), "r"(value.w));
}

template <typename C>
GANLSTM_GPU C load_of_others(const C* from) {
  return __ldcg(from);
}

GANLSTM_GPU float square_root(float value) { return sqrtf(value); }
GANLSTM_GPU double square_root(double value) { return sqrt(value); }

// The sum over the warp, for each of its threads.
template <typename C>
GANLSTM_GPU C warp_sum(C value) {
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) value += __shfl_xor_sync(~0u, value, apart);
  return value;
}

GANLSTM_GPU uint32_t bits_of(float value) { return __float_as_uint(value); }
GANLSTM_GPU float float_of(uint32_t bits) { return __uint_as_float(bits); }

// Counts the bytes that other blocks of a cluster send to this block's shared memory. A thread that
// waits for a number of bytes then sees them, without a barrier. Lies in shared memory.
struct alignas(16) Inbox {
  uint64_t state;
};
GANLSTM_GPU uint32_t address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}
#if __CUDA_ARCH__ >= 900 || !defined(__CUDA_ARCH__)
// One thread calls it, before a cluster_barrier().
GANLSTM_GPU void open_inbox(Inbox* inbox) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(address(inbox)) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// One thread calls it for each use of the inbox.
GANLSTM_GPU void expect_bytes(Inbox* inbox, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address(inbox)),
               "r"(bytes)
               : "memory");
}
// Each thread that reads calls it; `parity` is that of the number of uses before this one.
GANLSTM_GPU void wait_for_bytes(Inbox* inbox, uint32_t parity) {
  uint32_t done;
  do {
    asm volatile(
        "{ .reg .pred p;"
        " mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;"
        " selp.u32 %0, 1, 0, p; }"
        : "=r"(done)
        : "r"(address(inbox)), "r"(parity)
        : "memory");
  } while (!done);
}
// Sends to the same place in the block `rank`, and counts in the same inbox there.
GANLSTM_GPU void send16(char* place, const Words4& value, Inbox* inbox, int rank) {
  asm volatile(
      "{ .reg .u32 to, box;"
      " mapa.shared::cluster.u32 to, %0, %2;"
      " mapa.shared::cluster.u32 box, %1, %2;"
      " st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [to], {%3, %4, %5, %6},"
      " [box]; }" ::"r"(address(place)),
      "r"(address(inbox)), "r"(rank), "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w)
      : "memory");
}
#endif

// Rounds to the nearest TF32 number, the short form of float32 that tensor cores multiply.
GANLSTM_GPU float to_tf32(float value) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return __uint_as_float(bits);
}

// A warp's product sum += a b, of 16 x 16 (tf32: 16 x 8) by 8 columns, in the fragments of PTX's
// mma.m16n8.
template <typename T>
GANLSTM_GPU void mma(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                     uint32_t b0, uint32_t b1);

#define GANLSTM_MMA(T, shape_and_types)                                                       \
  template <>                                                                                 \
  GANLSTM_GPU void mma<T>(float(&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, \
                          uint32_t b0, uint32_t b1) {                                         \
    asm("mma.sync.aligned." shape_and_types                                                   \
        " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                    \
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])                              \
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));                              \
  }
GANLSTM_MMA(float, "m16n8k8.row.col.f32.tf32.tf32.f32")
GANLSTM_MMA(BrainHalf, "m16n8k16.row.col.f32.bf16.bf16.f32")
GANLSTM_MMA(Half, "m16n8k16.row.col.f32.f16.f16.f32")
#undef GANLSTM_MMA

}  // namespace ganlstm::gpu::hardware

#endif

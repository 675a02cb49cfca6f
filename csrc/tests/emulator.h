// The GPU of common/gpu/hardware.h on a CPU, for tests: one thread-block cluster at a time, every
// thread of it a fiber. A fiber runs until it waits for others, and who runs next is drawn by
// chance; a warp or a block may fall behind. If every thread waits for another, the launch throws.
// A missing fence does not show here.
//
// GANLSTM_TEST_HELD_BACK: the rank of a block that runs only when no other can.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "../common/numbers.h"

#define GANLSTM_GPU inline

namespace ganlstm::gpu::hardware {

struct Words4 {
  uint32_t x, y, z, w;
};

struct Barrier {
  int arrived = 0;
  int64_t passed = 0;

  // The number of the passage that this arrival belongs to.
  int64_t arrive(int expected) {
    const int64_t mine = passed;
    if (++arrived == expected) {
      arrived = 0;
      ++passed;
    }
    return mine;
  }
};

struct Warp {
  uint32_t a[32][4], b[32][2];
  float* sums[32];
  double values[32];
  Barrier barrier;
};

struct EmulatedBlock {
  std::vector<char> memory;
  std::vector<Warp> warps;
  Barrier barrier;
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  int thread, block;
  bool (*waits)(const void* condition) = nullptr;  // or null, where it does not
  const void* condition;
  bool done = false;
};

struct Cluster {
  std::vector<EmulatedBlock> blocks;
  std::vector<Fiber> fibers;
  Barrier barrier;
  ucontext_t scheduler;
  Fiber* current = nullptr;
  std::function<void()> body;
  std::vector<std::function<void()>> mail;
  int first_block, threads;
};

inline Cluster* running = nullptr;

inline Fiber& fiber() { return *running->current; }
inline EmulatedBlock& own_block() { return running->blocks[size_t(fiber().block)]; }

template <typename Condition>
inline void wait_while(const Condition& condition) {
  if (!condition()) return;
  fiber().condition = &condition;
  fiber().waits = [](const void* c) { return (*static_cast<const Condition*>(c))(); };
  swapcontext(&fiber().context, &running->scheduler);
  fiber().waits = nullptr;
}
inline void wait_for(const Barrier& barrier, int64_t passage) {
  wait_while([&] { return barrier.passed == passage; });
}
// What a warp does together: the lane that arrives last does it for all.
template <typename Work>
inline void together(Warp& warp, const Work& work) {
  if (warp.barrier.arrived == 31) work();
  wait_for(warp.barrier, warp.barrier.arrive(32));
}

inline int thread() { return fiber().thread; }
inline int threads() { return running->threads; }
inline int block() { return running->first_block + fiber().block; }
inline char* shared_memory() { return own_block().memory.data(); }

inline void block_barrier() {
  Barrier& barrier = own_block().barrier;
  wait_for(barrier, barrier.arrive(threads()));
}
inline void cluster_barrier() {
  Barrier& barrier = running->barrier;
  wait_for(barrier, barrier.arrive(int(running->fibers.size())));
}

inline void grid_arrive(unsigned int* count) { ++*count; }
inline unsigned int grid_arrive_and_count(unsigned int* count) { return (*count)++; }
inline void grid_wait(const unsigned int* count, unsigned int expected) {
  wait_while([&] { return *count < expected; });
}

inline Words4 load16(const char* from) {
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0) std::abort();
  Words4 value;
  std::memcpy(&value, from, 16);
  return value;
}
template <typename C>
inline C load_of_others(const C* from) {
  return *from;
}
template <typename C>
inline C square_root(C value) {
  return std::sqrt(value);
}
template <typename C>
inline C warp_sum(C value) {
  const int lane = thread() % 32;
  Warp& warp = own_block().warps[size_t(thread() / 32)];
  warp.values[lane] = value;
  together(warp, [&] {
    for (int apart = 16; apart > 0; apart /= 2) {
      double before[32];
      std::copy(warp.values, warp.values + 32, before);
      for (int k = 0; k < 32; ++k) warp.values[k] = C(before[k]) + C(before[k ^ apart]);
    }
  });
  return C(warp.values[lane]);
}

inline Words4 load16_of_others(const char* from) { return load16(from); }
inline void store16(char* to, const Words4& value) {
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0) std::abort();
  std::memcpy(to, &value, 16);
}
inline Words4 read16(const char* from) { return load16(from); }
inline void write16(char* to, const Words4& value) { store16(to, value); }

struct alignas(16) Inbox {
  int expected;  // arrivals that the phase still waits for
  int missing;   // bytes
  int phase;

  void settle() {
    if (expected != 0 || missing != 0) return;
    expected = 1;
    ++phase;
  }
};
inline void open_inbox(Inbox* inbox) { *inbox = {1, 0, 0}; }
inline void expect_bytes(Inbox* inbox, uint32_t bytes) {
  inbox->missing += int(bytes);
  --inbox->expected;
  inbox->settle();
}
inline void wait_for_bytes(Inbox* inbox, uint32_t parity) {
  wait_while([&] { return uint32_t(inbox->phase % 2) == parity; });
}
// It arrives when it arrives.
inline void send16(char* place, const Words4& value, Inbox* inbox, int rank) {
  char* own = own_block().memory.data();
  char* other = running->blocks[size_t(rank)].memory.data();
  auto* box = reinterpret_cast<Inbox*>(other + (reinterpret_cast<char*>(inbox) - own));
  running->mail.push_back([to = other + (place - own), value, box] {
    store16(to, value);
    box->missing -= 16;
    box->settle();
  });
}

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
// To the nearest, a tie away from 0.
inline float to_tf32(float value) {
  return std::isfinite(value) ? float_of((bits_of(value) + 0x1000) & ~uint32_t(0x1fff)) : value;
}

// The element of a register that is column or row `k` of its pair.
template <typename T>
inline float element(uint32_t word, int k) {
  if constexpr (sizeof(T) == 4) return float_of(word & ~uint32_t(0x1fff));
  T value;
  std::memcpy(&value, reinterpret_cast<const char*>(&word) + 2 * k, 2);
  return load(&value);
}

// What a tensor core leaves of a sum: it cuts off what a float has no room for.
inline float cut_off(double value) {
  const float nearest = float(value);
  return std::abs(double(nearest)) > std::abs(value) ? std::nextafter(nearest, 0.0f) : nearest;
}

// The fragments as the PTX manual has them for mma.m16n8k8 and mma.m16n8k16.
template <typename T>
inline void mma(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                uint32_t b1) {
  const int lane = thread() % 32;
  Warp& warp = own_block().warps[size_t(thread() / 32)];
  const uint32_t words_of_a[4] = {a0, a1, a2, a3}, words_of_b[2] = {b0, b1};
  std::memcpy(warp.a[lane], words_of_a, sizeof(words_of_a));
  std::memcpy(warp.b[lane], words_of_b, sizeof(words_of_b));
  warp.sums[lane] = sum;
  together(warp, [&] {
    constexpr int kPair = 4 / int(sizeof(T)) == 2 ? 2 : 1, kDepth = 8 * kPair;
    double a[16][kDepth], b[8][kDepth];
    for (int of = 0; of < 32; ++of)
      for (int k = 0; k < kDepth; ++k) {
        // The four lanes of a row have a pair of each half of k.
        const int half = k / (kDepth / 2), pair = k % kPair;
        if (k % (kDepth / 2) / kPair != of % 4) continue;
        b[of / 4][k] = element<T>(warp.b[of][half], pair);
        for (int eighth = 0; eighth < 2; ++eighth)
          a[of / 4 + 8 * eighth][k] = element<T>(warp.a[of][eighth + 2 * half], pair);
      }
    for (int of = 0; of < 32; ++of)
      for (int c = 0; c < 4; ++c) {
        const double* row = a[of / 4 + c / 2 * 8];
        const double* column = b[of % 4 * 2 + c % 2];
        double total = 0;
        for (int k = 0; k < kDepth; ++k) total += row[k] * column[k];
        warp.sums[of][c] = cut_off(warp.sums[of][c] + total);
      }
  });
}

inline void start_fiber() {
  running->body();
  fiber().done = true;
  swapcontext(&fiber().context, &running->scheduler);
}

// Runs body() as each thread of a grid of `all` blocks, in clusters, or in teams of a cooperative
// grid that have nothing to do with each other, of `blocks`.
inline void launch(int all, int blocks, int threads, size_t shared,
                   const std::function<void()>& body) {
  constexpr size_t kStack = 128 << 10;
  for (int cluster = 0; cluster < all / blocks; ++cluster) {
    Cluster c;
    c.body = body;
    c.threads = threads;
    c.first_block = cluster * blocks;
    c.blocks.resize(size_t(blocks));
    // A NaN in each word: memory comes as another kernel left it.
    for (EmulatedBlock& block : c.blocks) {
      block.memory.assign(shared, char(0xff));
      block.warps.resize(size_t(threads / 32));
    }
    c.fibers.resize(size_t(blocks) * size_t(threads));
    running = &c;
    for (size_t k = 0; k < c.fibers.size(); ++k) {
      Fiber& fiber = c.fibers[k];
      fiber.thread = int(k) % threads;
      fiber.block = int(k) / threads;
      fiber.stack.reset(new char[kStack]);
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = kStack;
      makecontext(&fiber.context, start_fiber, 0);
    }
    // Each round in another order, and for some rounds without a warp or block as long as others
    // get on without it, so that a missing barrier shows.
    std::vector<Fiber*> order;
    for (Fiber& fiber : c.fibers) order.push_back(&fiber);
    const char* named = std::getenv("GANLSTM_TEST_HELD_BACK");
    const int held_back = named == nullptr ? -1 : std::atoi(named);
    size_t first_asleep = 0, asleep = 0, rounds_asleep = 0;
    for (std::mt19937 random(1); !order.empty();) {
      if (rounds_asleep-- == 0) {
        asleep = random() % 2 == 0 ? 32 : size_t(threads);
        first_asleep = random() % (c.fibers.size() / asleep) * asleep;
        rounds_asleep = random() % 64;
      }
      bool somebody_ran = false;
      std::shuffle(order.begin(), order.end(), random);
      const auto run = [&](bool those_held_back) {
        for (Fiber* fiber : order) {
          const bool is_asleep = size_t(fiber - c.fibers.data()) - first_asleep < asleep;
          if (is_asleep || (fiber->block == held_back) != those_held_back ||
              (fiber->waits != nullptr && fiber->waits(fiber->condition)))
            continue;
          somebody_ran = true;
          c.current = fiber;
          swapcontext(&c.scheduler, &fiber->context);
        }
      };
      run(false);
      const bool nothing_comes = asleep == 0 && c.mail.empty();
      if (!somebody_ran && nothing_comes) run(true);
      if (!somebody_ran && nothing_comes) {
        running = nullptr;
        throw std::runtime_error("emulator: every thread waits for another");
      }
      if (!somebody_ran) asleep = 0;
      std::shuffle(c.mail.begin(), c.mail.end(), random);
      for (size_t left = c.mail.size() / 4; c.mail.size() > left; c.mail.pop_back())
        c.mail.back()();
      order.erase(std::remove_if(order.begin(), order.end(), [](Fiber* f) { return f->done; }),
                  order.end());
    }
    running = nullptr;
  }
}

}  // namespace ganlstm::gpu::hardware

// What this machine can do at most, for ceilings.py. Each function runs for `seconds`; it returns a
// negative number where the processor lacks what is asked for.
//
// Instruction sets are chosen function by function, so that this compiles for any processor.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// What was computed goes here, or the compiler would leave the work out.
std::atomic<uint64_t> g_sink{0};

template <typename V>
inline __attribute__((always_inline)) void keep(const V& value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof(bits));
  g_sink.fetch_add(bits, std::memory_order_relaxed);
}

// On each of `threads` threads: block = prepare(), then block() until `seconds` are over. Returns
// what the blocks returned, summed over all threads, per second.
template <typename Prepare>
double rate(int threads, double seconds, Prepare prepare) {
  std::vector<double> rates(static_cast<size_t>(threads));
  std::atomic<int> waiting{threads};
  auto run = [&](size_t index) {
    auto block = prepare();
    block();
    waiting.fetch_sub(1);
    while (waiting.load() > 0) std::this_thread::yield();
    const auto start = Clock::now();
    double done = 0, elapsed = 0;
    while (elapsed < seconds) {
      done += block();
      elapsed = since(start);
    }
    rates[index] = done / elapsed;
  };
  std::vector<std::thread> others;
  for (size_t i = 1; i < rates.size(); ++i) others.emplace_back(run, i);
  run(0);
  for (auto& other : others) other.join();
  double sum = 0;
  for (double one : rates) sum += one;
  return sum;
}

// A multiply-add takes 4 or 5 cycles and two start in each: ten independent sums keep both units
// busy, and twelve with a factor and an addend still fit the 16 registers of AVX2.
constexpr int kSums = 12;
constexpr int kRepeats = 4096;
volatile float g_factor = 0.999f, g_addend = 1e-3f;  // the compiler must not know them

// Written once, inlined into a function of each instruction set. Returns the multiply-adds.
template <typename V>
inline __attribute__((always_inline)) double multiply_add() {
  const V factor = V{} + g_factor, addend = V{} + g_addend;
  V sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = addend * float(i);
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sums[i] = sums[i] * factor + addend;
  }
  for (int i = 0; i < kSums; ++i) keep(sums[i]);
  return double(kSums) * kRepeats * double(sizeof(V) / sizeof(float));
}

typedef float Vec128 __attribute__((vector_size(16)));
double multiply_add_baseline() { return multiply_add<Vec128>(); }

#if defined(__x86_64__)
typedef float Vec256 __attribute__((vector_size(32)));
typedef float Vec512 __attribute__((vector_size(64)));
__attribute__((target("avx2,fma"))) double multiply_add_avx2() { return multiply_add<Vec256>(); }
__attribute__((target("avx512f,fma"))) double multiply_add_avx512() {
  return multiply_add<Vec512>();
}

__attribute__((target("avx512f,avx512bf16"))) double dot_bf16() {
  const __m512bh one = (__m512bh)_mm512_set1_epi32(int(0x3f803f80u));
  __m512 sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = _mm512_set1_ps(g_addend * float(i));
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], one, one);
  }
  for (int i = 0; i < kSums; ++i) keep(sums[i]);
  return double(kSums) * kRepeats * 32;
}
#endif

}  // namespace

extern "C" {

// float32 multiply-adds per second with "avx512", "avx2", or what every processor has.
double ceiling_multiply_adds(const char* isa, int threads, double seconds) {
  double (*block)() = multiply_add_baseline;
#if defined(__x86_64__)
  if (strcmp(isa, "avx512") == 0) {
    if (!__builtin_cpu_supports("avx512f")) return -1;
    block = multiply_add_avx512;
  } else if (strcmp(isa, "avx2") == 0) {
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return -1;
    block = multiply_add_avx2;
  }
#else
  if (strcmp(isa, "baseline") != 0) return -1;
#endif
  return rate(threads, seconds, [block] { return block; });
}

// Multiply-adds per second of AVX-512's dot product of pairs of bfloat16.
double ceiling_bf16_dot(int threads, double seconds) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bf16")) return rate(threads, seconds, [] { return dot_bf16; });
#endif
  (void)threads, (void)seconds;
  return -1;
}

// Bytes read and written per second by copies that no cache holds.
double ceiling_copy(int threads, double seconds) {
  constexpr size_t kBytes = size_t(64) << 20;
  return rate(threads, seconds, [] {
    return [from = std::vector<char>(kBytes, 1), to = std::vector<char>(kBytes)]() mutable {
      memcpy(to.data(), from.data(), kBytes);
      keep(*reinterpret_cast<const uint64_t*>(to.data()));
      return 2.0 * kBytes;
    };
  });
}

// Seconds that a word takes from one thread to another, by sending it to and fro.
double ceiling_ping_pong(double seconds) {
  if (std::thread::hardware_concurrency() < 2) return -1;
  constexpr int64_t kStop = -1;
  alignas(128) std::atomic<int64_t> ping{0};
  alignas(128) std::atomic<int64_t> pong{0};
  std::thread other([&] {
    for (int64_t expected = 1;; ++expected) {
      int64_t got;
      while ((got = ping.load(std::memory_order_acquire)) < expected)
        if (got == kStop) return;
      pong.store(expected, std::memory_order_release);
    }
  });
  const auto start = Clock::now();
  int64_t trips = 0;
  double elapsed = 0;
  while (elapsed < seconds) {
    for (int i = 0; i < 32; ++i) {
      ping.store(++trips, std::memory_order_release);
      while (pong.load(std::memory_order_acquire) < trips) {
      }
    }
    elapsed = since(start);
  }
  ping.store(kStop, std::memory_order_release);
  other.join();
  return elapsed / double(2 * trips);
}
}

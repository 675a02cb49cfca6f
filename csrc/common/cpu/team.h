// Threads of one parallel region that work in step with each other, for tasks that have to wait.
//
// Before a region has begun, it is not known how many threads it gets, nor whether its tasks run at
// the same time: a pool may run them one after another. A team therefore consists of the tasks that
// join within a short time. A later task finds the team closed and has nothing to do, so a member
// waits only for threads that are running.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ganlstm {
namespace {

class Team {
 public:
  static constexpr int64_t kMost = 64;

  explicit Team(int64_t wanted) : wanted_(wanted < kMost ? wanted : kMost) {}

  // The calling thread's number among the members, or -1 if it came too late. Returns when the team
  // is closed.
  int64_t join() {
    int64_t seen = state_.load(std::memory_order_acquire);
    do {
      if (seen >= kClosed) return -1;
    } while (
        !state_.compare_exchange_weak(seen, close_if_full(seen + 1), std::memory_order_acq_rel));
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    for (int64_t now = state_.load(); now < kClosed; now = state_.load()) {
      pause();
      if (std::chrono::steady_clock::now() > deadline)
        state_.compare_exchange_strong(now, now + kClosed);
    }
    return seen;
  }

  // After join(): how many there are.
  int64_t size() const { return state_.load(std::memory_order_acquire) - kClosed; }

  // Waits until every member has called it with this `turn`; turns rise. What members wrote before
  // can then be read.
  void wait(int64_t member, int64_t turn) {
    const int64_t members = size();
    turns_[member].value.store(turn, std::memory_order_release);
    for (int64_t other = 0; other < members; ++other)
      for (int64_t spins = 0; turns_[other].value.load(std::memory_order_acquire) < turn; ++spins) {
        // The other member's core may be running another process.
        if (spins > kSpins)
          std::this_thread::yield();
        else
          pause();
      }
  }

 private:
  static constexpr int64_t kClosed = int64_t(1) << 32, kSpins = 1 << 14;
  // A sleeping thread of a pool takes this long to wake.
  static constexpr std::chrono::microseconds kPatience{100};

  struct alignas(128) Turn {
    std::atomic<int64_t> value{-1};
  };

  int64_t close_if_full(int64_t members) const {
    return members == wanted_ ? members + kClosed : members;
  }
  static void pause() {
#if defined(__x86_64__)
    _mm_pause();
#endif
  }

  const int64_t wanted_;
  std::atomic<int64_t> state_{0};  // members, and kClosed more once nobody can join
  Turn turns_[kMost];
};

}  // namespace
}  // namespace ganlstm

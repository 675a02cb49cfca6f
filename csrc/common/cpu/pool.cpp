#include "pool.h"

#include <pthread.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

namespace ganlstm {
namespace {

constexpr std::align_val_t kAlign{64};

// Blocks of nearly one size serve each other: sizes are rounded up to an eighth of a power of two.
std::size_t size_class(std::size_t bytes) {
  std::size_t step = 64;
  while (step * 16 < bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

// Large blocks ask for huge pages: fewer faults when they are fresh, fewer misses of the TLB
// always.
constexpr std::align_val_t kHugePage{std::size_t(2) << 20};
bool is_large(std::size_t size) { return size >= 2 * std::size_t(kHugePage); }

void* allocate(std::size_t size) {
  void* block = operator new(size, is_large(size) ? kHugePage : kAlign);
#if defined(__linux__)
  if (is_large(size))
    madvise(block, size / std::size_t(kHugePage) * std::size_t(kHugePage), MADV_HUGEPAGE);
#endif
  return block;
}
void release(void* block, std::size_t size) noexcept {
  operator delete(block, is_large(size) ? kHugePage : kAlign);
}

struct Block {
  void* address;
  std::size_t size;
};

class Pool {
 public:
  Pool() {
    const char* limit = std::getenv("GANLSTM_FAST_CACHE_MIB");
    if (limit != nullptr && *limit != 0)
      limit_ = std::size_t(std::strtoull(limit, nullptr, 10)) << 20;
    const char* poison = std::getenv("GANLSTM_FAST_POISON");
    poison_ = poison != nullptr && std::strcmp(poison, "1") == 0;
    // A child of fork() must not find the lock held by a thread that it does not have.
    pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
                   [] { instance().mutex_.unlock(); });
  }

  // Never destroyed: tensors may be freed after everything else at the end of the process.
  static Pool& instance() {
    static Pool* const pool = new Pool;
    return *pool;
  }

  void* take(std::size_t size) {
    void* block = reuse(size);
    if (block == nullptr) {
      try {
        block = allocate(size);
      } catch (const std::bad_alloc&) {
        empty();
        block = allocate(size);
      }
    }
    if (poison_) std::memset(block, 0xff, size);
    return block;
  }

  void give(void* block, std::size_t size) noexcept {
    std::unique_lock<std::mutex> lock(mutex_);
    if (size > limit_) {
      lock.unlock();
      return release(block, size);
    }
    try {
      unused_.push_back({block, size});
    } catch (const std::bad_alloc&) {
      lock.unlock();
      return release(block, size);
    }
    held_ += size;
    trim(limit_);
  }

  void empty() noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    trim(0);
  }

 private:
  // The one last given back is the likeliest to be in a cache.
  void* reuse(std::size_t size) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (std::size_t k = unused_.size(); k-- > 0;)
      if (unused_[k].size == size) {
        void* block = unused_[k].address;
        unused_.erase(unused_.begin() + std::ptrdiff_t(k));
        held_ -= size;
        return block;
      }
    return nullptr;
  }

  void trim(std::size_t limit) noexcept {
    std::size_t dropped = 0;
    while (held_ > limit) {
      held_ -= unused_[dropped].size;
      release(unused_[dropped].address, unused_[dropped].size);
      ++dropped;
    }
    unused_.erase(unused_.begin(), unused_.begin() + std::ptrdiff_t(dropped));
  }

  std::mutex mutex_;
  std::vector<Block> unused_;  // the longest unused first
  std::size_t held_ = 0;
  std::size_t limit_ = std::size_t(512) << 20;
  bool poison_ = false;
};

}  // namespace

void* pool_take(std::size_t bytes) { return Pool::instance().take(size_class(bytes)); }

void pool_give(void* block, std::size_t bytes) noexcept {
  Pool::instance().give(block, size_class(bytes));
}

void pool_empty() noexcept { Pool::instance().empty(); }

}  // namespace ganlstm

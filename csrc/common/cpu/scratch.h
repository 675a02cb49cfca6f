// Memory for the length of one call, aligned for vectors and not initialised. Large blocks come
// from the pool.
#pragma once

#include <cstdint>
#include <cstring>
#include <new>

#include "pool.h"

namespace ganlstm {
namespace {

template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t count) : data_(nullptr), bytes_(0) { resize(count); }
  ~Scratch() { release(); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() const { return data_; }

  // Drops what was held.
  void resize(int64_t count) {
    release();
    const size_t bytes = count > 0 ? size_t(count) * sizeof(T) : 0;
    if (bytes >= kPoolBytes)
      data_ = static_cast<T*>(pool_take(bytes));
    else if (bytes > 0)
      data_ = static_cast<T*>(operator new(bytes, kAlign));
    bytes_ = bytes;
  }

 private:
  static constexpr std::align_val_t kAlign{64};

  void release() {
    if (bytes_ >= kPoolBytes)
      pool_give(data_, bytes_);
    else if (data_ != nullptr)
      operator delete(data_, kAlign);
    data_ = nullptr;
    bytes_ = 0;
  }

  T* data_;
  size_t bytes_;
};

}  // namespace
}  // namespace ganlstm

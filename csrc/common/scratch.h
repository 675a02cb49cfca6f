// Memory for the length of one call, aligned for vectors. Freed when it goes out of scope.
#pragma once

#include <cstdint>
#include <cstring>
#include <new>

namespace ganlstm {
namespace {

template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : data_(count > 0 ? static_cast<T*>(operator new(size_t(count) * sizeof(T), kAlign))
                        : nullptr) {}
  ~Scratch() {
    if (data_ != nullptr) operator delete(data_, kAlign);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() const { return data_; }
  // Drops what was held.
  void resize(int64_t count) {
    Scratch other(count);
    T* before = data_;
    data_ = other.data_;
    other.data_ = before;
  }

 private:
  static constexpr std::align_val_t kAlign{64};
  T* data_;
};

}  // namespace
}  // namespace ganlstm

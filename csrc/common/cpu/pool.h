// Large blocks of memory that are used again. A fresh one costs a page fault for every 4 KiB, which
// for the LSTM's saved states is as much as computing them; the C library gives large blocks back
// to the system whenever they are freed.
//
// Thread-safe. The pool holds at most GANLSTM_FAST_CACHE_MIB (512 by default) of unused blocks, and
// frees those first that were unused the longest. It never hands out a block that is in use.
#pragma once

#include <cstddef>

namespace ganlstm {

// Smaller blocks do not come from the pool: the C library keeps them itself.
constexpr std::size_t kPoolBytes = std::size_t(1) << 18;

// A block of at least `bytes`, aligned for vectors. Throws std::bad_alloc. With
// GANLSTM_FAST_POISON=1, for tests, it is filled with bytes that make every float a NaN.
void* pool_take(std::size_t bytes);

// Takes back what pool_take(bytes) returned.
void pool_give(void* block, std::size_t bytes) noexcept;

// Frees all unused blocks.
void pool_empty() noexcept;

}  // namespace ganlstm

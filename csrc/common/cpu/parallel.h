// How a kernel runs its tasks on several threads: through a function that the caller brings.
// The PyTorch binding passes PyTorch's own thread pool, so there is never a second one.
#pragma once

#include <cstdint>
#include <type_traits>

namespace ganlstm {

struct Parallel {
  // The number of threads that `run` will use at most.
  int64_t threads;
  // Calls task(index, data) for each index in [0, tasks), in any order, and returns when all ended.
  // Tasks may run one after another on one thread: they must not wait for each other.
  void (*run)(int64_t tasks, void (*task)(int64_t index, void* data), void* data);
};

// for_each_task(parallel, n, f) calls f(index) for each index in [0, n).
template <typename F>
static inline void for_each_task(const Parallel& parallel, int64_t tasks, F&& f) {
  if (tasks == 1 || parallel.threads == 1) {
    for (int64_t index = 0; index < tasks; ++index) f(index);
    return;
  }
  parallel.run(
      tasks,
      [](int64_t index, void* data) { (*static_cast<std::remove_reference_t<F>*>(data))(index); },
      &f);
}

}  // namespace ganlstm

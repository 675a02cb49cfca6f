// The gradient penalty's passes over a list of arrays [B,n] on a GPU, as gradient_penalty.h has
// them, each in one launch for up to kMostArrays arrays.
//
// A warp works on a sample of all arrays, or a block on a larger one; the largest samples are cut
// into parts. This depends on the shapes only, not on the grid, and so does the order of every sum.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "../../common/numbers.h"

namespace ganlstm::gpu::gradient_penalty {

constexpr int kThreads = 256;
constexpr int kSamplesOfBlock = kThreads / 32;  // where each has a warp
constexpr int kMostArrays = 64;                 // of a launch: they travel as its argument
constexpr int64_t kElementsOfWarp = 1024;
constexpr int64_t kElementsOfBlock = 4096;
// The most parts of a sample: larger samples have larger parts, so that adding up their sums stays
// a small part of the work.
constexpr int64_t kMostParts = 256;

enum class Pass { interpolate, forward, backward, double_backward };

template <typename T>
struct Array {
  int64_t elements;  // n
  const T* x;        // [B,n] real, or the gradient
  const T* y;        // [B,n] fake, or V of the double backward; x or y may be null: it is zero
  T* out;            // [B,n] out, or null
  int64_t first_part = 0;
  int phase = 0;  // elements between x, y and out and the multiple of 16 bytes before; -1: differs

  static constexpr int64_t kWide = 16 / sizeof(T);
  void set_phase() {
    phase = -2;
    for (const T* p : {x, y, static_cast<const T*>(out)}) {
      if (p == nullptr) continue;
      const int own = int(reinterpret_cast<uintptr_t>(p) / sizeof(T) % kWide);
      phase = phase == -2 || phase == own ? own : -1;
    }
  }
};

// The arrays of a launch, and what belongs to the samples of all of them.
template <typename T>
struct Group {
  using C = Compute<T>;
  Array<T> arrays[kMostArrays];
  int count;
  int64_t batch;
  bool by_warps;         // a warp a sample
  bool is_whole;         // a sample is not cut into parts
  int64_t part;          // elements of one
  int64_t parts;         // of a sample, here
  int64_t first_part;    // and in earlier launches
  int64_t parts_of_all;  // and in all launches
  int64_t wave;          // samples whose parts are read twice in a row
  const int64_t* seed;   // [1]
  C center;
  bool one_sided;
  bool sums;               // double backward: <V, g> is computed, not left by earlier launches
  bool writes;             // double backward: of g is computed
  C* norms;                // [B] out of the forward
  const C* grad_value;     // [1]
  C* value;                // [1] out: the forward's, or that of grad_value; null: not here
  double* room;            // [units] or [B,parts_of_all]: what the units sum
  unsigned int* arrivals;  // [1], or null: nothing is summed

  // What a warp or the block works on at a time.
  GANLSTM_HD int64_t units() const {
    return by_warps ? (batch + kSamplesOfBlock - 1) / kSamplesOfBlock : batch * parts;
  }
};

// Distributes arrays over as many launches as they need.
template <typename T>
std::vector<Group<T>> groups_of(std::vector<Array<T>> arrays, int64_t batch) {
  int64_t elements = 0;
  for (const Array<T>& a : arrays) elements += a.elements;
  std::vector<Group<T>> groups;
  const int64_t times =
      (elements + kElementsOfBlock * kMostParts - 1) / (kElementsOfBlock * kMostParts);
  const int64_t part = kElementsOfBlock * std::max(int64_t(1), times);
  const bool is_whole = elements <= kElementsOfBlock && arrays.size() <= size_t(kMostArrays);
  int64_t parts = 0;
  for (size_t k = 0; k < arrays.size(); ++k) {
    if (k % kMostArrays == 0) {
      groups.push_back({});
      Group<T>& group = groups.back();
      group.batch = batch;
      group.is_whole = is_whole;
      group.by_warps = is_whole && elements <= kElementsOfWarp;
      group.part = part;
      group.parts = is_whole ? 1 : 0;
      group.first_part = parts;
    }
    Group<T>& group = groups.back();
    Array<T>& a = group.arrays[group.count++] = arrays[k];
    a.set_phase();
    if (is_whole) continue;
    a.first_part = group.parts;
    const int64_t of_array = (a.elements + part - 1) / part;
    group.parts += of_array;
    parts += of_array;
  }
  for (Group<T>& group : groups) group.parts_of_all = is_whole ? 1 : parts;
  return groups;
}

}  // namespace ganlstm::gpu::gradient_penalty

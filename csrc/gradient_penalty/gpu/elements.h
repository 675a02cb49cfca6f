// How the blocks of a grid share the samples of a group, and the threads of a block their elements.
#pragma once

#include <cstring>
#include <type_traits>

#include "../../common/gpu/grid.h"
#include "groups.h"

namespace ganlstm::gpu::gradient_penalty {

#if defined(GANLSTM_GPU)

// N neighbouring elements that a thread reads and writes at once: 16 bytes of them, or one element.
template <typename T, int N>
struct Elements {
  Compute<T> values[N];

  Elements() = default;
  GANLSTM_GPU explicit Elements(const T* from) {
    T narrow[N];
    if constexpr (N == 1) {
      narrow[0] = *from;
    } else {
      const hardware::Words4 words = hardware::read16(reinterpret_cast<const char*>(from));
      memcpy(narrow, &words, sizeof(words));
    }
    for (int i = 0; i < N; ++i) values[i] = load(narrow + i);
  }
  GANLSTM_GPU void put(T* to) const {
    T narrow[N];
    for (int i = 0; i < N; ++i) store(narrow + i, values[i]);
    if constexpr (N == 1) {
      *to = narrow[0];
    } else {
      hardware::Words4 words;
      memcpy(&words, narrow, sizeof(words));
      hardware::write16(reinterpret_cast<char*>(to), words);
    }
  }
  // f(value of this one) for each.
  template <typename F>
  GANLSTM_GPU Elements map(F&& f) const {
    Elements result;
    for (int i = 0; i < N; ++i) result.values[i] = f(values[i]);
    return result;
  }
  template <typename F>
  GANLSTM_GPU Elements map(const Elements& other, F&& f) const {
    Elements result;
    for (int i = 0; i < N; ++i) result.values[i] = f(values[i], other.values[i]);
    return result;
  }
  GANLSTM_GPU Compute<T> dot(const Elements& other) const {
    Compute<T> sum = 0;
    for (int i = 0; i < N; ++i) sum += values[i] * other.values[i];
    return sum;
  }
};

// What a warp or the block works on: a sample of all arrays, or one part of it.
struct Unit {
  int64_t index;   // among the units of the launch
  int64_t sample;  // `batch` for a warp that is left over
  int64_t part;
};

template <typename T>
GANLSTM_GPU int rank(const Group<T>& g) {
  return g.by_warps ? hardware::thread() % 32 : hardware::thread();
}

template <typename T>
GANLSTM_GPU Compute<T> team_sum(const Group<T>& g, Compute<T> value) {
  return g.by_warps ? hardware::warp_sum(value) : block_sum(value);
}

// Calls body(unit) for this block's units of the samples [begin, end). With `by_warps` each warp of
// the block has a unit, and begin and end are not read: the units are those of all samples.
template <typename T, typename Body>
GANLSTM_GPU void for_each_unit(const Group<T>& g, const Grid& grid, int64_t begin, int64_t end,
                               Body&& body) {
  if (g.by_warps) {
    for (int64_t index = hardware::block(); index < g.units(); index += grid.blocks) {
      const int64_t sample = index * kSamplesOfBlock + hardware::thread() / 32;
      body(Unit{index, sample < g.batch ? sample : g.batch, 0});
    }
    return;
  }
  for (int64_t index = begin * g.parts + hardware::block(); index < end * g.parts;
       index += grid.blocks)
    body(Unit{index, index / g.parts, index % g.parts});
}

// Calls body(array, at, width) for this thread's share of the unit's elements: `width` elements
// from `at` on, where `at` counts over all samples of the array.
template <typename T, typename Body>
GANLSTM_GPU void for_each_element(const Group<T>& g, const Unit& unit, Body&& body) {
  constexpr int kWide = int(Array<T>::kWide);
  if (unit.sample == g.batch) return;
  const int threads = g.by_warps ? 32 : hardware::threads();
  int k = 0, last = g.count;
  if (!g.is_whole) {
    while (k + 1 < g.count && g.arrays[k + 1].first_part <= unit.part) ++k;
    last = k + 1;
  }
  for (; k < last; ++k) {
    const Array<T>& a = g.arrays[k];
    const int64_t begin = (unit.part - a.first_part) * g.part, left = a.elements - begin;
    const int64_t first = unit.sample * a.elements + begin;
    const int count = int(left < g.part ? left : g.part);
    const int to_aligned = int(-(a.phase + first) & (kWide - 1));
    const int head = a.phase < 0 || to_aligned > count ? count : to_aligned;
    const int vectors = (count - head) / kWide, singles = count - vectors * kWide;
#pragma unroll 2
    for (int i = rank(g); i < vectors; i += threads)
      body(a, first + head + i * kWide, std::integral_constant<int, kWide>{});
    for (int i = rank(g); i < singles; i += threads)
      body(a, first + (i < head ? i : i + vectors * kWide), std::integral_constant<int, 1>{});
  }
}

#endif

}  // namespace ganlstm::gpu::gradient_penalty

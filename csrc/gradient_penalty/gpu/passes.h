// A block's part of the gradient penalty's passes on a GPU.
#pragma once

#include <cstring>
#include <limits>
#include <type_traits>

#include "../../common/gpu/grid.h"
#include "../philox.h"
#include "../slope.h"
#include "groups.h"

namespace ganlstm::cuda::gradient_penalty {

#if defined(GANLSTM_DEVICE)

// N neighbouring elements, which a thread reads and writes at once: 16 bytes of them, or one.
template <typename T, int N>
struct Elements {
  compute_t<T> values[N];

  Elements() = default;
  GANLSTM_DEVICE explicit Elements(const T* from) {
    T narrow[N];
    if constexpr (N == 1) {
      narrow[0] = *from;
    } else {
      const device::Words4 words = device::read16(reinterpret_cast<const char*>(from));
      memcpy(narrow, &words, sizeof(words));
    }
    for (int i = 0; i < N; ++i) values[i] = load(narrow + i);
  }
  GANLSTM_DEVICE void put(T* to) const {
    T narrow[N];
    for (int i = 0; i < N; ++i) store(narrow + i, values[i]);
    if constexpr (N == 1) {
      *to = narrow[0];
    } else {
      device::Words4 words;
      memcpy(&words, narrow, sizeof(words));
      device::write16(reinterpret_cast<char*>(to), words);
    }
  }
  // f(value of this one) for each.
  template <typename F>
  GANLSTM_DEVICE Elements map(F&& f) const {
    Elements result;
    for (int i = 0; i < N; ++i) result.values[i] = f(values[i]);
    return result;
  }
  template <typename F>
  GANLSTM_DEVICE Elements map(const Elements& other, F&& f) const {
    Elements result;
    for (int i = 0; i < N; ++i) result.values[i] = f(values[i], other.values[i]);
    return result;
  }
  GANLSTM_DEVICE compute_t<T> dot(const Elements& other) const {
    compute_t<T> sum = 0;
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
GANLSTM_DEVICE int rank(const Group<T>& g) {
  return g.by_warps ? device::thread() % 32 : device::thread();
}

template <typename T>
GANLSTM_DEVICE compute_t<T> team_sum(const Group<T>& g, compute_t<T> value) {
  return g.by_warps ? device::warp_sum(value) : block_sum(value);
}

// body(unit) for this block's units of samples [begin, end); with `by_warps`, for each of its
// warps, of all samples.
template <typename T, typename Body>
GANLSTM_DEVICE void for_each_unit(const Group<T>& g, const Grid& grid, int64_t begin, int64_t end,
                                  Body&& body) {
  if (g.by_warps) {
    for (int64_t index = device::block(); index < g.units(); index += grid.blocks) {
      const int64_t sample = index * kSamplesOfBlock + device::thread() / 32;
      body(Unit{index, sample < g.batch ? sample : g.batch, 0});
    }
    return;
  }
  for (int64_t index = begin * g.parts + device::block(); index < end * g.parts;
       index += grid.blocks)
    body(Unit{index, index / g.parts, index % g.parts});
}

// body(array, at, width) for this thread's share of the unit's elements: `width` of them from `at`
// on, over all samples of the array.
template <typename T, typename Body>
GANLSTM_DEVICE void for_each_element(const Group<T>& g, const Unit& unit, Body&& body) {
  constexpr int kWide = int(Array<T>::kWide);
  if (unit.sample == g.batch) return;
  const int threads = g.by_warps ? 32 : device::threads();
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

// The sum of what the parts of a sample have left in the room, for each thread of a warp.
template <typename T>
GANLSTM_DEVICE double sum_of_parts(const Group<T>& g, int64_t sample) {
  double sum = 0;
  for (int64_t k = device::thread() % 32; k < g.parts_of_all; k += 32)
    sum += device::load_of_others(g.room + sample * g.parts_of_all + k);
  return device::warp_sum(sum);
}
template <typename T>
GANLSTM_DEVICE void put_part(const Group<T>& g, const Unit& unit, compute_t<T> sum) {
  if (device::thread() == 0) g.room[unit.sample * g.parts_of_all + g.first_part + unit.part] = sum;
}

// Adds to the value what a whole sample gives; `share` counts in the first thread of the team.
template <typename T>
GANLSTM_DEVICE void put_share(const Group<T>& g, const Unit& unit, compute_t<T> share) {
  if (g.by_warps) share = block_sum(rank(g) == 0 ? share : compute_t<T>(0));
  if (device::thread() == 0) g.room[unit.index] = share;
}

// value = factor * the sum of all shares; of_sample(b, sum of its parts): the share of a sample
// that is not whole.
template <typename T, typename F>
GANLSTM_DEVICE void put_value(const Group<T>& g, Grid& grid, double factor, F&& of_sample) {
  if (!grid.is_last()) return;
  double total = 0;
  if (g.is_whole) {
    for (int64_t k = device::thread(); k < g.units(); k += device::threads())
      total += device::load_of_others(g.room + k);
  } else {
    const int warps = device::threads() / 32;
    for (int64_t b = device::thread() / 32; b < g.batch; b += warps) {
      const double share = of_sample(b, sum_of_parts(g, b));
      if (device::thread() % 32 == 0) total += share;
    }
  }
  total = block_sum(total);
  if (device::thread() == 0) *g.value = compute_t<T>(factor * total);
}

template <typename T>
GANLSTM_DEVICE void interpolate(const Group<T>& g, const Grid& grid) {
  using C = compute_t<T>;
  for_each_unit(g, grid, 0, g.batch, [&](const Unit& unit) {
    const C a = philox_uniform<C>(uint64_t(*g.seed), uint64_t(unit.sample));
    for_each_element(g, unit, [&](const Array<T>& array, int64_t at, auto width) {
      using E = Elements<T, decltype(width)::value>;
      if (array.y == nullptr)
        E(array.x + at).map([&](C real) { return a * real; }).put(array.out + at);
      else if (array.x == nullptr)
        E(array.y + at).map([&](C fake) { return (1 - a) * fake; }).put(array.out + at);
      else
        E(array.x + at)
            .map(E(array.y + at), [&](C real, C fake) { return fake + a * (real - fake); })
            .put(array.out + at);
    });
  });
}

template <typename T>
GANLSTM_DEVICE void forward(const Group<T>& g, Grid grid) {
  using C = compute_t<T>;
  const PenaltyCurve<C> curve{g.center, g.one_sided};
  const auto penalty = [&](C square, C norm) {
    const C excess = curve.excess(norm);
    return curve.center == 0 ? square : excess * excess;
  };
  for_each_unit(g, grid, 0, g.batch, [&](const Unit& unit) {
    C square = 0;
    for_each_element(g, unit, [&](const Array<T>& array, int64_t at, auto width) {
      const Elements<T, decltype(width)::value> grad(array.x + at);
      square += grad.dot(grad);
    });
    square = team_sum(g, square);
    if (!g.is_whole) return put_part(g, unit, square);
    const C norm = device::square_root(square);
    const bool is_there = unit.sample < g.batch;
    if (rank(g) == 0 && is_there) g.norms[unit.sample] = norm;
    put_share(g, unit, is_there ? penalty(square, norm) : C(0));
  });
  if (g.value == nullptr) return;
  put_value(g, grid, 1 / double(g.batch), [&](int64_t sample, double square) {
    const double norm = device::square_root(square);
    g.norms[sample] = C(norm);
    return double(penalty(C(square), C(norm)));
  });
}

template <typename C>
constexpr C kMost = std::numeric_limits<C>::max();

// share * factor, which leaves the range of C only with the share: where the gradient is tiny, its
// zeros would become NaN.
template <typename C>
GANLSTM_DEVICE C scaled(C share, C factor) {
  const auto finite = [](C x) {
    constexpr C most = kMost<C>;
    return x > most ? most : x < -most ? -most : x;
  };
  const C product = share * finite(factor);
  return share - share == 0 ? finite(product) : product;
}

template <typename T>
GANLSTM_DEVICE void backward(const Group<T>& g, const Grid& grid) {
  using C = compute_t<T>;
  const PenaltyCurve<C> curve{g.center, g.one_sided};
  const C share = 2 * *g.grad_value / C(g.batch);
  for_each_unit(g, grid, 0, g.batch, [&](const Unit& unit) {
    if (unit.sample == g.batch) return;
    const C factor = scaled(share, curve.slope(g.norms[unit.sample]));
    for_each_element(g, unit, [&](const Array<T>& array, int64_t at, auto width) {
      using E = Elements<T, decltype(width)::value>;
      E(array.x + at).map([&](C grad) { return factor * grad; }).put(array.out + at);
    });
  });
}

// A whole sample has its result written while the multiprocessor's cache has V and g from the sum.
// Samples that are cut into parts are summed and written in waves that the GPU's cache has room
// for; up to there, too, both are read from memory once.
template <typename T>
GANLSTM_DEVICE void double_backward(const Group<T>& g, Grid grid) {
  using C = compute_t<T>;
  const PenaltyCurve<C> curve{g.center, g.one_sided};
  const C share = 2 * *g.grad_value / C(g.batch);
  const auto product_of = [&](const Unit& unit) {
    C sum = 0;
    for_each_element(g, unit, [&](const Array<T>& array, int64_t at, auto width) {
      using E = Elements<T, decltype(width)::value>;
      if (array.y != nullptr) sum += E(array.y + at).dot(E(array.x + at));
    });
    return team_sum(g, sum);
  };
  const auto write = [&](const Unit& unit, C norm, C product) {
    const C of_v = scaled(share, curve.slope(norm));
    const C of_unit = scaled(share, curve.bend(norm, product));
    const C inverse = scaled(C(1), norm > 0 ? 1 / norm : C(0));
    for_each_element(g, unit, [&](const Array<T>& array, int64_t at, auto width) {
      using E = Elements<T, decltype(width)::value>;
      const E grad(array.x + at);
      const auto along = [&](C x) { return of_unit * (inverse * x); };
      if (array.y == nullptr)
        grad.map(along).put(array.out + at);
      else
        grad.map(E(array.y + at), [&](C x, C v) { return of_v * v + along(x); })
            .put(array.out + at);
    });
  };
  const auto slope_times = [&](C norm, C product) { return scaled(product, curve.slope(norm)); };

  const bool waits = !g.is_whole && g.sums && g.writes;
  const int64_t wave = waits ? g.wave : g.batch;
  for (int64_t begin = 0; begin < g.batch; begin += wave) {
    const int64_t end = begin + wave < g.batch ? begin + wave : g.batch;
    if (!g.is_whole && g.sums)
      for_each_unit(g, grid, begin, end,
                    [&](const Unit& unit) { put_part(g, unit, product_of(unit)); });
    if (waits) grid.barrier();
    if (!g.is_whole && !g.writes) continue;
    for_each_unit(g, grid, begin, end, [&](const Unit& unit) {
      const bool is_there = unit.sample < g.batch;
      const C norm = is_there ? g.norms[unit.sample] : C(0);
      C product = 0;
      if (g.is_whole && g.sums) product = product_of(unit);
      if (!g.is_whole && g.center != 0) product = C(sum_of_parts(g, unit.sample));
      if (g.writes) write(unit, norm, product);
      if (g.is_whole && g.value != nullptr)
        put_share(g, unit, is_there ? slope_times(norm, product) : C(0));
    });
  }
  if (g.value == nullptr) return;
  put_value(g, grid, 2 / double(g.batch), [&](int64_t sample, double product) {
    return double(slope_times(g.norms[sample], C(product)));
  });
}

template <Pass pass, typename T>
GANLSTM_DEVICE void run(const Group<T>& g, const Grid& grid) {
  if constexpr (pass == Pass::interpolate) interpolate(g, grid);
  if constexpr (pass == Pass::forward) forward(g, grid);
  if constexpr (pass == Pass::backward) backward(g, grid);
  if constexpr (pass == Pass::double_backward) double_backward(g, grid);
}

#endif

}  // namespace ganlstm::cuda::gradient_penalty

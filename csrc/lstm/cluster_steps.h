// A pass's walk in one launch: a thread-block cluster takes some rows of the batch in one direction
// through all steps.
//
// A block has the weights of its own hidden units in shared memory for the whole walk. Each step it
// multiplies them with what all blocks exchanged after the step before (h along time, dz against
// it), works on its units, and writes their new values into the shared memory of every block of the
// cluster: one cluster barrier a step. Both products are, for gates q, units u and rows b,
//
//   sums[q][u][b] = sum over k < H of weight[q][u][k] exchanged[q or 0][b][k]
//
// with weight[q][u][k] = R[qH + u][k] along time and R[qH + k][u] against it, where the four sums
// of a unit are then added. Tensor cores make it: a warp takes 16 units of one gate by 8 rows.
//
// The exchanged arrays and the weights lie in groups of 64 bytes along k. The fragments of mma want
// a thread to hold certain k of a group; since any order of k will do, as long as both factors have
// the same, it holds 16 consecutive bytes, and every fragment is one load of 16 bytes.
#pragma once

#include <string>

#include "../common/device.h"
#include "step_elements.h"

namespace ganlstm::cuda {

// Products of float32, whose two factors are rounded for tensor cores, or, exact to float32's own
// rounding, split into two parts of which all products but the smallest are summed.
enum class Precision { native, tf32, split };

struct ClusterPlan {
  int blocks;     // of a cluster
  int units;      // of a block, a multiple of 16
  int columns;    // rows of the batch by 8: 1, 2 or 4
  int groups;     // of 64 bytes along k
  int stride;     // bytes of a row of the exchanged array
  int threads;    // of a block
  int64_t tiles;  // of rows of the batch
  size_t shared;  // bytes of a block
  bool fits;
};

namespace cluster {

// Eight are what every GPU with clusters takes; 16 those known so far.
constexpr int kMostBlocks = 16;
constexpr int kMostUnits = 32;  // of a block: more do not fit its shared memory

inline ClusterPlan sized(int64_t batch, int64_t hidden, int element, int exchanged, int blocks,
                         int columns) {
  ClusterPlan p{};
  p.blocks = blocks;
  p.columns = columns;
  p.units = int((hidden + 16 * blocks - 1) / (16 * blocks)) * 16;
  p.groups = int((hidden * element + 63) / 64);
  // Eight rows' loads then fall into different banks.
  p.stride = p.groups * 64 + (p.groups % 2 == 0 ? 64 : 0);
  p.threads = 8 * p.units;
  p.tiles = (batch + 8 * columns - 1) / (8 * columns);
  p.shared = size_t(4) * p.units * p.groups * 64 + size_t(2) * exchanged * 8 * columns * p.stride +
             size_t(4) * p.units * (8 * columns + 1) * sizeof(float);
  p.fits = p.units <= kMostUnits;
  return p;
}

// The smallest cluster that holds the weights, 16 units a block if that takes no more than 8; and
// the fewest rows a tile for which all clusters run at once.
inline ClusterPlan plan(int64_t batch, int64_t hidden, int64_t directions, int element,
                        int exchanged, int most_blocks, size_t most_shared, int multiprocessors) {
  int blocks = 1;
  while (blocks < 8 && blocks < most_blocks && blocks * 16 < hidden) blocks *= 2;
  const auto fits = [&](int columns) {
    const ClusterPlan p = sized(batch, hidden, element, exchanged, blocks, columns);
    return p.fits && p.shared <= most_shared;
  };
  while (blocks < most_blocks && !fits(1)) blocks *= 2;
  int columns = 1;
  while (columns < 4 && fits(2 * columns) &&
         sized(batch, hidden, element, exchanged, blocks, columns).tiles * blocks * directions >
             multiprocessors)
    columns *= 2;
  ClusterPlan result = sized(batch, hidden, element, exchanged, blocks, columns);
  result.fits = fits(columns);
  return result;
}

// The end of a sentence, or nothing.
inline std::string why_not(const ClusterPlan& plan, int64_t hidden) {
  if (plan.blocks == 0) return "needs thread-block clusters, of compute capability 9.0";
  if (plan.fits) return "";
  return "has no room on chip for weight_hh of " + std::to_string(hidden) + " hidden units";
}

}  // namespace cluster

#if defined(GANLSTM_DEVICE)

namespace cluster {

using device::Words4;

// sum += a b over one group of 64 bytes of k: `low` and `high` are rows r and r + 8 of a.
template <typename T, Precision kPrecision>
GANLSTM_DEVICE void multiply_group(float (&sum)[4], const Words4& low, const Words4& high,
                                   const Words4& b) {
  if constexpr (kPrecision == Precision::split) {
    const auto round = [](uint32_t bits) {
      return device::bits_of(device::to_tf32(device::float_of(bits)));
    };
    const auto rest = [](uint32_t bits, uint32_t rounded) {
      const float difference = device::float_of(bits) - device::float_of(rounded);
      return device::bits_of(device::to_tf32(difference));
    };
    const Words4 l{round(low.x), round(low.y), round(low.z), round(low.w)};
    const Words4 h{round(high.x), round(high.y), round(high.z), round(high.w)};
    const Words4 c{round(b.x), round(b.y), round(b.z), round(b.w)};
    const Words4 l_{rest(low.x, l.x), rest(low.y, l.y), rest(low.z, l.z), rest(low.w, l.w)};
    const Words4 h_{rest(high.x, h.x), rest(high.y, h.y), rest(high.z, h.z), rest(high.w, h.w)};
    const Words4 c_{rest(b.x, c.x), rest(b.y, c.y), rest(b.z, c.z), rest(b.w, c.w)};
    // The small ones first.
    multiply_group<T, Precision::native>(sum, l_, h_, c);
    multiply_group<T, Precision::native>(sum, l, h, c_);
    multiply_group<T, Precision::native>(sum, l, h, c);
  } else {
    device::mma<T>(sum, low.x, high.x, low.y, high.y, b.x, b.y);
    device::mma<T>(sum, low.z, high.z, low.w, high.w, b.z, b.w);
  }
}

// As the product reads it.
template <Precision kPrecision, typename T>
GANLSTM_DEVICE T factor(T value) {
  if constexpr (kPrecision == Precision::tf32)
    return device::to_tf32(value);
  else
    return value;
}

// A block's part of the work.
template <typename Args, Precision kPrecision, int kColumns>
struct Block {
  using P = Pass<Args>;
  using T = typename Args::T;
  using V = compute_t<T>;
  static constexpr int kRows = 8 * kColumns;
  static constexpr int kInGroup = 64 / int(sizeof(T));  // elements
  static constexpr int kSums = kRows + 1;               // row of the sums: other banks

  const Args& args;
  const ClusterPlan& plan;
  const int rank, direction;
  const int64_t first_row;
  char* const weights;    // [4][units/16][groups][2][32 lanes] of 16 bytes
  char* const exchanged;  // [2][kExchanged][kRows] of `stride` bytes
  float* const sums;      // [4][units][kSums]

  GANLSTM_DEVICE Block(const Args& args, const ClusterPlan& plan)
      : args(args),
        plan(plan),
        rank(device::block_x() % plan.blocks),
        direction(device::block_y()),
        first_row(int64_t(device::block_x() / plan.blocks) * kRows),
        weights(device::shared_memory()),
        exchanged(weights + int64_t(4) * plan.units * plan.groups * 64),
        sums(reinterpret_cast<float*>(exchanged + 2 * P::kExchanged * kRows * plan.stride)) {}

  GANLSTM_DEVICE char* exchanged_row(int buffer, int q, int row) const {
    return exchanged + ((buffer * P::kExchanged + q) * kRows + row) * plan.stride;
  }

  // Of weight_hh [D,4H,H], what this block's units need; 0 where there is no unit or no k.
  GANLSTM_DEVICE void load_weights(const T* weight_hh) const {
    const int hidden = int(args.shape.hidden), depth = plan.groups * kInGroup;
    const T* from = weight_hh + int64_t(direction) * 4 * hidden * hidden;
    const int warps = device::threads() / 32, lane = device::thread() % 32;
    // Rows and columns as they lie in memory.
    const int per_gate = P::kAlongTime ? plan.units : depth;
    const int columns = P::kAlongTime ? depth : plan.units;
    for (int row = device::thread() / 32; row < 4 * per_gate; row += warps) {
      const int q = row / per_gate, in_gate = row % per_gate;
      for (int column = lane; column < columns; column += 32) {
        const int u = P::kAlongTime ? in_gate : column, k = P::kAlongTime ? column : in_gate;
        const int unit = rank * plan.units + u;
        T value{};
        if (unit < hidden && k < hidden)
          value = from[P::kAlongTime ? int64_t(q * hidden + unit) * hidden + k
                                     : int64_t(q * hidden + k) * hidden + unit];
        *weight(q, u, k) = factor<kPrecision>(value);
      }
    }
  }

  GANLSTM_DEVICE T* weight(int q, int u, int k) const {
    constexpr int kPart = kInGroup / 4;
    const int tile = (q * plan.units + u) / 16, in_group = k % kInGroup;
    const int fragment = (tile * plan.groups + k / kInGroup) * 2 + u % 16 / 8;
    const int lane = u % 8 * 4 + in_group / kPart;
    return reinterpret_cast<T*>(weights + (fragment * 32 + lane) * 16) + in_group % kPart;
  }

  // Both buffers 0, which the places of units that do not exist keep; along time the first holds
  // the state before the first step.
  GANLSTM_DEVICE void load_exchanged() const {
    char* end = reinterpret_cast<char*>(sums);
    for (char* at = exchanged + device::thread() * 16; at < end; at += device::threads() * 16)
      device::store16(at, {0, 0, 0, 0});
    device::block_barrier();
    if constexpr (P::kAlongTime) {
      const int warps = device::threads() / 32;
      for (int row = device::thread() / 32; row < kRows; row += warps) {
        if (first_row + row >= args.shape.batch) break;
        const T* from =
            P::states(args) + (direction * args.shape.batch + first_row + row) * args.shape.hidden;
        T* to = reinterpret_cast<T*>(exchanged_row(0, 0, row));
        for (int k = device::thread() % 32; k < args.shape.hidden; k += 32)
          to[k] = factor<kPrecision>(from[k]);
      }
    }
  }

  GANLSTM_DEVICE void multiply(int buffer) const {
    const int warp = device::thread() / 32, lane = device::thread() % 32;
    const int q = warp / (plan.units / 16), tile = warp % (plan.units / 16);
    const char* a = weights + (int64_t(warp) * plan.groups * 64 + lane) * 16;
    const char* b[kColumns];
    float sum[kColumns][4] = {};
#pragma unroll
    for (int n = 0; n < kColumns; ++n)
      b[n] = exchanged_row(buffer, P::kExchanged == 4 ? q : 0, 8 * n + lane / 4) + lane % 4 * 16;
#pragma unroll(kColumns == 4 ? 2 : 4)
    for (int group = 0; group < plan.groups; ++group) {
      const Words4 low = device::load16(a + group * 1024);
      const Words4 high = device::load16(a + group * 1024 + 512);
#pragma unroll
      for (int n = 0; n < kColumns; ++n)
        multiply_group<T, kPrecision>(sum[n], low, high, device::load16(b[n] + group * 64));
    }
    float* to = sums + (q * plan.units + tile * 16 + lane / 4) * kSums + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      to[8 * n] = sum[n][0];
      to[8 * n + 1] = sum[n][1];
      to[8 * n + 8 * kSums] = sum[n][2];
      to[8 * n + 8 * kSums + 1] = sum[n][3];
    }
  }

  GANLSTM_DEVICE Gates<V> sums_of(int u, int row) const {
    const float* at = sums + u * kSums + row;
    const int gate = plan.units * kSums;
    return {at[0], at[gate], at[2 * gate], at[3 * gate]};
  }

  // This block's units of a buffer, to every other block.
  GANLSTM_DEVICE void send(int buffer) const {
    const int first = rank * plan.units * int(sizeof(T)), bytes = plan.units * int(sizeof(T));
    const int rest = plan.groups * 64 - first;  // of the row: a last block may have no units
    const int chunks = (rest < 0 ? 0 : rest < bytes ? rest : bytes) / 16;
    const int here = P::kExchanged * kRows * chunks;
    for (int index = device::thread(); index < here * (plan.blocks - 1);
         index += device::threads()) {
      const int other = index / here, at = index % here;
      char* chunk = exchanged_row(buffer, at / chunks / kRows, at / chunks % kRows) + first +
                    at % chunks * 16;
      const int to = (rank + 1 + other) % plan.blocks;
      device::store16(device::of_block(chunk, to), device::load16(chunk));
    }
  }

  GANLSTM_DEVICE void run(const T* weight_hh) const {
    load_weights(weight_hh);
    load_exchanged();
    // A thread has kColumns elements: one unit of rows that lie 8 apart.
    const int u = device::thread() % plan.units, row = device::thread() / plan.units;
    const int64_t unit = rank * plan.units + u;
    const Steps& s = args.shape;
    const auto exists = [&](int n) { return unit < s.hidden && first_row + row + 8 * n < s.batch; };
    const auto index_of = [&](int64_t walked) {
      return s.first + (P::kAlongTime ? walked : s.steps - 1 - walked);
    };
    Element at[kColumns];
    typename P::Carried carried[kColumns];
    typename P::Operands operands[kColumns];
#pragma unroll
    for (int n = 0; n < kColumns; ++n)
      if (exists(n)) {
        at[n] = Element(s, direction, first_row + row + 8 * n, unit);
        carried[n] = P::carry(args, at[n]);
        operands[n] = P::load_operands(args, at[n], at[n].time(s, index_of(0)));
      }
    device::cluster_arrive();
    device::cluster_wait();
    for (int64_t walked = 0; walked < s.steps + !P::kAlongTime; ++walked) {
      const int now = int(walked % 2), next = 1 - now;
      if (P::kAlongTime || walked > 0) multiply(now);
      device::block_barrier();
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
        if (!exists(n)) continue;
        const int64_t index = index_of(walked);
        const Gates<V> product = sums_of(u, row + 8 * n);
        if constexpr (!P::kAlongTime)
          if (walked > 0 && at[n].is_alive(at[n].time(s, index + 1))) P::take(product, carried[n]);
        if (walked == s.steps) continue;
        V values[P::kExchanged];
        P::run(args, at[n], at[n].time(s, index), operands[n], product, carried[n], values);
#pragma unroll
        for (int q = 0; q < P::kExchanged; ++q) {
          T value;
          store(&value, values[q]);
          reinterpret_cast<T*>(exchanged_row(next, q, row + 8 * n))[unit] =
              factor<kPrecision>(value);
        }
        if (walked + 1 < s.steps)
          operands[n] = P::load_operands(args, at[n], at[n].time(s, index_of(walked + 1)));
      }
      device::block_barrier();
      if (walked < s.steps) send(next);
      device::cluster_arrive();
      device::cluster_wait();
    }
#pragma unroll
    for (int n = 0; n < kColumns; ++n)
      if (exists(n)) P::keep(args, at[n], carried[n]);
  }
};

}  // namespace cluster

#endif

}  // namespace ganlstm::cuda

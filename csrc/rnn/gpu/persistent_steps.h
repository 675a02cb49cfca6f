// A pass's walk in one launch: a team of thread blocks takes a tile of the batch in one direction
// through all steps.
//
// A block has the weights of its own hidden units in shared memory for the whole walk. Each step it
// multiplies them with what all blocks exchanged after the step before (h along time, dz against
// it), works on its units, and sends their new values to every block of the team. Both products
// are, for slots q, units u and rows b,
//
//   sums[q][u][b] = sum over k < H of weight[q][u][k] exchanged[q or 0][b][k]
//
// with weight[q][u][k] = R[qH + u][k] along time and R[qH + k][u] against it, where the four sums
// of a unit are then added. Tensor cores make it: a warp takes 16 units of one slot by 8 rows.
//
// The exchanged arrays and the weights lie in groups of 64 bytes along k. The fragments of mma want
// a thread to hold certain k of a group; since any order of k will do, as long as both factors have
// the same, it holds 16 consecutive bytes, and every fragment is one load of 16 bytes.
#pragma once

#include "../../common/gpu/hardware.h"
#include "persistent_plan.h"
#include "steps.h"

namespace ganlstm::gpu::persistent {

// How tensor cores multiply float32: `tf32` rounds both factors. `split` cuts each factor into two
// parts and sums their products except the smallest, which is exact to float32's own rounding.
// `native` is for 16 bits, which need neither.
enum class Precision { native, tf32, split };

#if defined(GANLSTM_GPU)

using hardware::Inbox;
using hardware::Words4;

// sum += a b over one group of 64 bytes of k: `low` and `high` are rows r and r + 8 of a. The two
// halves of the group go to sums of their own: one would wait for the other.
template <typename T, Precision kPrecision>
GANLSTM_GPU void multiply_group(float (&sum)[2][4], const Words4& low, const Words4& high,
                                const Words4& b) {
  if constexpr (kPrecision == Precision::split) {
    const auto round = [](uint32_t bits) {
      return hardware::bits_of(hardware::to_tf32(hardware::float_of(bits)));
    };
    const auto rest = [](uint32_t bits, uint32_t rounded) {
      const float difference = hardware::float_of(bits) - hardware::float_of(rounded);
      return hardware::bits_of(hardware::to_tf32(difference));
    };
    const Words4 l{round(low.x), round(low.y), round(low.z), round(low.w)};
    const Words4 h{round(high.x), round(high.y), round(high.z), round(high.w)};
    const Words4 c{round(b.x), round(b.y), round(b.z), round(b.w)};
    const Words4 l_{rest(low.x, l.x), rest(low.y, l.y), rest(low.z, l.z), rest(low.w, l.w)};
    const Words4 h_{rest(high.x, h.x), rest(high.y, h.y), rest(high.z, h.z), rest(high.w, h.w)};
    const Words4 c_{rest(b.x, c.x), rest(b.y, c.y), rest(b.z, c.z), rest(b.w, c.w)};
    // A tensor core cuts off what a sum has no room for, always towards 0, and the error of a long
    // sum grows with its length. Its own sums are therefore short, the small products first, and
    // are added up by instructions that round.
    float part[2][4] = {};
    multiply_group<T, Precision::native>(part, l_, h_, c);
    multiply_group<T, Precision::native>(part, l, h, c_);
    multiply_group<T, Precision::native>(part, l, h, c);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      sum[0][k] += part[0][k];
      sum[1][k] += part[1][k];
    }
  } else {
    hardware::mma<T>(sum[0], low.x, high.x, low.y, high.y, b.x, b.y);
    hardware::mma<T>(sum[1], low.z, high.z, low.w, high.w, b.z, b.w);
  }
}

// As the product reads it.
template <Precision kPrecision, typename T>
GANLSTM_GPU T factor(T value) {
  if constexpr (kPrecision == Precision::tf32)
    return hardware::to_tf32(value);
  else
    return value;
}

// A block's part of the work.
template <typename Args, Precision kPrecision, int kColumns, bool kGrid>
struct Block {
  using P = Pass<Args>;
  using T = typename Args::T;
  using V = Compute<T>;
  static constexpr int kRows = 8 * kColumns;
  static constexpr int kInGroup = 64 / int(sizeof(T));  // elements
  static constexpr int kSums = kRows + 1;               // row of the sums: other banks
  static constexpr int kBuffers = kGrid ? 1 : 2;
  // Groups of k at a time, as registers allow.
  static constexpr int kUnroll = kPrecision == Precision::split ? 4 / kColumns
                                 : kColumns == 4                ? 2
                                                                : 4;

  const Args& args;
  const Plan& plan;
  const int rank, team;
  char* const weights;    // [4][units/16][groups][2][32 lanes] of 16 bytes
  char* const exchanged;  // [kBuffers][kExchanged][kRows] of `stride` bytes
  Inbox* const inboxes;   // of the two buffers, in a cluster
  float* const sums;      // [4][units][kSums]
  char* const room;       // in a grid, of the team: [2] of `exchanged`
  unsigned int* const arrivals;
  int direction;
  int64_t first_row;
  unsigned int passages = 0;

  GANLSTM_GPU Block(const Args& args, const Plan& plan, char* rooms, unsigned int* arrivals)
      : args(args),
        plan(plan),
        rank(hardware::block() % plan.blocks),
        team(hardware::block() / plan.blocks),
        weights(hardware::shared_memory()),
        exchanged(weights + 4 * plan.units * plan.groups * 64),
        inboxes(
            reinterpret_cast<Inbox*>(exchanged + kBuffers * P::kExchanged * kRows * plan.stride)),
        sums(reinterpret_cast<float*>(inboxes + 2)),
        room(kGrid ? rooms + team * plan.room : nullptr),
        arrivals(kGrid ? arrivals + team : nullptr) {}

  static_assert(sizeof(Inbox) == kInbox);

  GANLSTM_GPU char* exchanged_row(int buffer, int q, int row) const {
    return exchanged + ((buffer % kBuffers * P::kExchanged + q) * kRows + row) * plan.stride;
  }

  // Of weight_hh [D,4H,H], what this block's units need; 0 where there is no unit or no k.
  GANLSTM_GPU void load_weights(const T* weight_hh) const {
    const int hidden = int(args.shape.hidden), depth = plan.groups * kInGroup;
    const T* from = weight_hh + int64_t(direction) * 4 * hidden * hidden;
    const int warps = hardware::threads() / 32, lane = hardware::thread() % 32;
    // Rows and columns as they lie in memory.
    const int per_slot = P::kAlongTime ? plan.units : depth;
    const int columns = P::kAlongTime ? depth : plan.units;
    for (int row = hardware::thread() / 32; row < 4 * per_slot; row += warps) {
      const int q = row / per_slot, in_slot = row % per_slot;
      for (int column = lane; column < columns; column += 32) {
        const int u = P::kAlongTime ? in_slot : column, k = P::kAlongTime ? column : in_slot;
        const int unit = rank * plan.units + u;
        T value{};
        if (unit < hidden && k < hidden)
          value = from[P::kAlongTime ? int64_t(q * hidden + unit) * hidden + k
                                     : int64_t(q * hidden + k) * hidden + unit];
        *weight(q, u, k) = factor<kPrecision>(value);
      }
    }
  }

  GANLSTM_GPU T* weight(int q, int u, int k) const {
    constexpr int kPart = kInGroup / 4;
    const int tile = (q * plan.units + u) / 16, in_group = k % kInGroup;
    const int fragment = (tile * plan.groups + k / kInGroup) * 2 + u % 16 / 8;
    const int lane = u % 8 * 4 + in_group / kPart;
    return reinterpret_cast<T*>(weights + (fragment * 32 + lane) * 16) + in_group % kPart;
  }

  // 0, which the places of units that do not exist keep; along time the first buffer holds the
  // state before the first step.
  GANLSTM_GPU void load_exchanged() const {
    char* end = reinterpret_cast<char*>(inboxes);
    for (char* at = exchanged + hardware::thread() * 16; at < end; at += hardware::threads() * 16)
      hardware::store16(at, {0, 0, 0, 0});
    hardware::block_barrier();
    if constexpr (P::kAlongTime) {
      const int warps = hardware::threads() / 32;
      for (int row = hardware::thread() / 32; row < kRows; row += warps) {
        if (first_row + row >= args.shape.batch) break;
        const T* from =
            P::states(args) + (direction * args.shape.batch + first_row + row) * args.shape.hidden;
        T* to = reinterpret_cast<T*>(exchanged_row(0, 0, row));
        for (int k = hardware::thread() % 32; k < args.shape.hidden; k += 32)
          to[k] = factor<kPrecision>(from[k]);
      }
    }
  }

  GANLSTM_GPU void multiply(int buffer) const {
    const int warp = hardware::thread() / 32, lane = hardware::thread() % 32;
    const int q = warp / (plan.units / 16), tile = warp % (plan.units / 16);
    const char* a = weights + (int64_t(warp) * plan.groups * 64 + lane) * 16;
    const char* b[kColumns];
    float sum[kColumns][2][4] = {};
#pragma unroll
    for (int n = 0; n < kColumns; ++n)
      b[n] = exchanged_row(buffer, P::kExchanged == 4 ? q : 0, 8 * n + lane / 4) + lane % 4 * 16;
#pragma unroll(kUnroll)
    for (int group = 0; group < plan.groups; ++group) {
      const Words4 low = hardware::load16(a + group * 1024);
      const Words4 high = hardware::load16(a + group * 1024 + 512);
#pragma unroll
      for (int n = 0; n < kColumns; ++n)
        multiply_group<T, kPrecision>(sum[n], low, high, hardware::load16(b[n] + group * 64));
    }
    float* to = sums + (q * plan.units + tile * 16 + lane / 4) * kSums + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      to[8 * n] = sum[n][0][0] + sum[n][1][0];
      to[8 * n + 1] = sum[n][0][1] + sum[n][1][1];
      to[8 * n + 8 * kSums] = sum[n][0][2] + sum[n][1][2];
      to[8 * n + 8 * kSums + 1] = sum[n][0][3] + sum[n][1][3];
    }
  }

  GANLSTM_GPU typename P::Slots sums_of(int u, int row) const {
    const float* at = sums + u * kSums + row;
    const int slot = plan.units * kSums;
    return {at[0], at[slot], at[2 * slot], at[3 * slot]};
  }

  // body(offset) for each 16 bytes of this block's units in a buffer.
  template <typename Body>
  GANLSTM_GPU void for_own_chunks(int first, int step, Body&& body) const {
    // 16 or 32 units: a power of two.
    const int shift = (sizeof(T) == 4 ? 2 : 1) + (plan.units == 32);
    const int own = rank * plan.units * int(sizeof(T));
    for (int index = first; index < P::kExchanged * kRows << shift; index += step) {
      const int chunk = own + (index & ((1 << shift) - 1)) * 16;
      // A last block may have fewer units.
      if (chunk < plan.groups * 64) body((index >> shift) * plan.stride + chunk);
    }
  }

  // A block without a unit sends nothing, so no block would wait for it: it could fall behind,
  // receive the next step's values while it waits for this step's, and then wait for ever. It
  // therefore takes no part in the walk; in a cluster it only passes the barriers of begin() and
  // end().
  GANLSTM_GPU bool is_active() const { return rank < plan.active; }
  GANLSTM_GPU void stand_by() const {
    if constexpr (!kGrid) {
      hardware::cluster_barrier();
      hardware::cluster_barrier();
    }
  }

  // Before the walk: all blocks of the team are ready for what the others will send.
  GANLSTM_GPU void begin() {
    if constexpr (kGrid) {
      arrive();
      wait();
    } else {
      if (hardware::thread() == 0)
        for (int buffer = 0; buffer < 2; ++buffer) hardware::open_inbox(inboxes + buffer);
      hardware::cluster_barrier();
    }
  }

  // Sends this block's units of a buffer to every other block. A block that sends the next step's
  // values has received all of this step's, so no block still reads the buffer that it sends to.
  GANLSTM_GPU void send(int buffer) {
    if constexpr (kGrid) {
      char* to = room + buffer * (plan.room / 2);
      for_own_chunks(hardware::thread(), hardware::threads(), [&](int offset) {
        hardware::store16(to + offset, hardware::load16(exchanged + offset));
      });
      arrive();
    } else {
      Inbox* inbox = inboxes + buffer;
      if (hardware::thread() == 0) hardware::expect_bytes(inbox, bytes_of_others());
      char* from = exchanged_row(buffer, 0, 0);
      const int warps = hardware::threads() / 32;
      for (int other = hardware::thread() / 32; other < plan.active - 1; other += warps) {
        const int next = rank + 1 + other, to = next < plan.active ? next : next - plan.active;
        for_own_chunks(hardware::thread() % 32, 32, [&](int offset) {
          hardware::send16(from + offset, hardware::load16(from + offset), inbox, to);
        });
      }
    }
  }
  GANLSTM_GPU int bytes_of_others() const {
    const int units = plan.units * int(sizeof(T)), row = plan.groups * 64;
    const auto up_to = [&](int block) { return block * units < row ? block * units : row; };
    const int own = up_to(rank + 1) - up_to(rank);
    return P::kExchanged * kRows * (up_to(plan.active) - own);
  }

  // What all have sent after step `walked` is there.
  GANLSTM_GPU void receive(int buffer, int64_t walked) {
    if constexpr (kGrid) {
      wait();
      fetch(buffer);
    } else {
      hardware::wait_for_bytes(inboxes + buffer, walked / 2 % 2);
    }
  }

  // No block leaves while another may still send to it.
  GANLSTM_GPU void end() const {
    if constexpr (!kGrid) hardware::cluster_barrier();
  }

  GANLSTM_GPU void arrive() const {
    hardware::block_barrier();
    if (hardware::thread() == 0) hardware::grid_arrive(arrivals);
  }
  GANLSTM_GPU void wait() {
    passages += plan.active;
    if (hardware::thread() == 0) hardware::grid_wait(arrivals, passages);
    hardware::block_barrier();
  }
  GANLSTM_GPU void fetch(int buffer) const {
    const char* from = room + buffer * (plan.room / 2);
    const int bytes = P::kExchanged * kRows * plan.stride;
    for (int at = hardware::thread() * 16; at < bytes; at += hardware::threads() * 16)
      hardware::store16(exchanged + at, hardware::load16_of_others(from + at));
    hardware::block_barrier();
  }

  GANLSTM_GPU void run(const T* weight_hh) {
    if (!is_active()) return stand_by();
    const int items = plan.tiles * int(args.shape.directions);
    for (int item = team; item < items; item += plan.teams) {
      direction = item / plan.tiles;
      first_row = int64_t(item % plan.tiles) * kRows;
      load_weights(weight_hh);
      load_exchanged();
      walk();
    }
  }

  GANLSTM_GPU void walk() {
    // A thread has kColumns elements: one unit of rows that lie 8 apart.
    const int u = hardware::thread() % plan.units, row = hardware::thread() / plan.units;
    const int64_t unit = rank * plan.units + u;
    const Steps& s = args.shape;
    const auto exists = [&](int n) { return unit < s.hidden && first_row + row + 8 * n < s.batch; };
    Element at[kColumns];
    typename P::Carried carried[kColumns];
    typename P::Operands operands[kColumns];
    typename P::Results results[kColumns];
    const auto time = [&](int n, int64_t walked) {
      return at[n].time(s, s.first + (P::kAlongTime ? walked : s.steps - 1 - walked));
    };
#pragma unroll
    for (int n = 0; n < kColumns; ++n)
      if (exists(n)) {
        at[n] = Element(s, direction, first_row + row + 8 * n, unit);
        carried[n] = P::carry(args, at[n]);
        operands[n] = P::load_operands(args, at[n], time(n, 0));
      }
    begin();
    for (int64_t walked = 0; walked < s.steps; ++walked) {
      const int now = int(walked % 2), next = 1 - now;
      if (P::kAlongTime || walked > 0) multiply(now);
      hardware::block_barrier();
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
        if (!exists(n)) continue;
        const typename P::Slots product = sums_of(u, row + 8 * n);
        if constexpr (!P::kAlongTime)
          if (walked > 0 && at[n].is_alive(time(n, walked - 1))) P::take(product, carried[n]);
        V values[P::kExchanged];
        P::run(args, at[n], time(n, walked), operands[n], product, carried[n], values, results[n]);
#pragma unroll
        for (int q = 0; q < P::kExchanged; ++q) {
          T value;
          store(&value, values[q]);
          reinterpret_cast<T*>(exchanged_row(next, q, row + 8 * n))[unit] =
              factor<kPrecision>(value);
        }
      }
      hardware::block_barrier();
      send(next);
      // While it is on its way.
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
        if (!exists(n)) continue;
        P::write(args, at[n], time(n, walked), results[n]);
        if (walked + 1 < s.steps) operands[n] = P::load_operands(args, at[n], time(n, walked + 1));
      }
      receive(next, walked);
    }
    if constexpr (!P::kAlongTime) {
      multiply(int(s.steps % 2));
      hardware::block_barrier();
    }
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      if (!exists(n)) continue;
      if constexpr (!P::kAlongTime)
        if (at[n].is_alive(time(n, s.steps - 1))) P::take(sums_of(u, row + 8 * n), carried[n]);
      P::keep(args, at[n], carried[n]);
    }
    end();
  }
};

#endif

}  // namespace ganlstm::gpu::persistent

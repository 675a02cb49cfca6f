// How persistent_steps.h's walk is spread over a GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace ganlstm::gpu::persistent {

struct Limits {
  int capability;  // major
  size_t shared;   // bytes that a block can have
  int multiprocessors;
};

// The blocks that take a tile of the batch through all steps are a team. What they exchange goes
// through their shared memory where the team is a cluster, or through memory in a cooperative grid.
struct Plan {
  bool grid;      // a cooperative grid; else clusters
  int blocks;     // of a team
  int units;      // of a block, a multiple of 16
  int active;     // blocks of a team that have a unit; the others only stand by
  int columns;    // rows of a tile by 8: 1, 2 or 4
  int groups;     // of 64 bytes along k
  int stride;     // bytes of a row of the exchanged array
  int threads;    // of a block
  int tiles;      // of rows of the batch
  int teams;      // at once: with clusters one for each tile and direction
  size_t shared;  // bytes of a block
  size_t room;    // bytes of memory of a team in a grid
  bool fits;
};

// Eight are what every GPU with clusters takes; 16 those known so far.
constexpr int kMostBlocks = 16;
constexpr size_t kInbox = 16;   // bytes
constexpr int kMostUnits = 32;  // of a block: more do not fit its shared memory

// The sizes that follow from the choices. `exchanged`: values of a unit, 1 (h) or 4 (dz).
inline Plan sized(int64_t batch, int64_t hidden, int64_t directions, int element, int exchanged,
                  bool grid, int blocks, int columns, const Limits& limits) {
  Plan p{};
  p.grid = grid;
  p.blocks = blocks;
  p.columns = columns;
  p.units = int((hidden + 16 * blocks - 1) / (16 * blocks)) * 16;
  p.active = int((hidden + p.units - 1) / p.units);
  p.groups = int((hidden * element + 63) / 64);
  // Eight rows' loads then fall into different banks.
  p.stride = p.groups * 64 + (p.groups % 2 == 0 ? 64 : 0);
  p.threads = 8 * p.units;
  p.tiles = int((batch + 8 * columns - 1) / (8 * columns));
  const size_t exchange = size_t(exchanged) * 8 * columns * p.stride;
  p.shared = size_t(4) * p.units * p.groups * 64 + (grid ? 1 : 2) * exchange +
             size_t(4) * p.units * (8 * columns + 1) * sizeof(float) + 2 * kInbox;
  p.room = grid ? 2 * exchange : 0;
  const int items = p.tiles * int(directions), at_once = limits.multiprocessors / blocks;
  p.teams = !grid ? items : items < at_once ? items : at_once;
  p.fits = p.units <= kMostUnits && p.shared <= limits.shared && p.teams > 0;
  return p;
}

// The smallest cluster that holds the weights, 16 units a block if that takes no more than 8; where
// none does, 16 units a block over the grid. The fewest rows a tile for which all run at once.
inline Plan plan(int64_t batch, int64_t hidden, int64_t directions, int element, int exchanged,
                 const Limits& limits) {
  const auto with = [&](bool grid, int blocks, int columns) {
    return sized(batch, hidden, directions, element, exchanged, grid, blocks, columns, limits);
  };
  bool grid = false;
  int blocks = 1;
  while (blocks < 8 && blocks * 16 < hidden) blocks *= 2;
  while (blocks < kMostBlocks && !with(false, blocks, 1).fits) blocks *= 2;
  if (!with(false, blocks, 1).fits) {
    grid = true;
    blocks = int((hidden + 15) / 16);
  }
  int columns = 1;
  const auto all_at_once = [&](const Plan& p) {
    return int64_t(p.tiles) * directions * blocks <= limits.multiprocessors;
  };
  while (columns < 4 && with(grid, blocks, 2 * columns).fits &&
         !all_at_once(with(grid, blocks, columns)))
    columns *= 2;
  return with(grid, blocks, columns);
}

// Whether a layer fits: checked against time, where more is exchanged than along it, and for one
// row, because a batch of any size fits if one row does.
inline bool fits(int64_t hidden, int element, const Limits& limits) {
  return plan(1, hidden, 1, element, 4, limits).fits;
}

// Why a layer cannot run, as the end of a sentence, or nothing.
inline std::string why_not(int64_t hidden, int element, const Limits& limits) {
  if (limits.capability < 9)
    return "needs thread-block clusters: a GPU of compute capability 9.0 and kernels compiled for "
           "it; use impl='cell'";
  if (fits(hidden, element, limits)) return "";
  int64_t most = 0, too_many = hidden;
  while (too_many - most > 1) {
    const int64_t middle = (most + too_many) / 2;
    (fits(middle, element, limits) ? most : too_many) = middle;
  }
  return "keeps weight_hh on chip, which on this GPU has room for H up to " + std::to_string(most) +
         " in " + std::to_string(8 * element) + " bits, got " + std::to_string(hidden) +
         "; use impl='cell'";
}

}  // namespace ganlstm::gpu::persistent

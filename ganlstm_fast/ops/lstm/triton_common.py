"""What the LSTM's Triton kernels share: where a program's tile lies, and its gate math.

A program owns BLOCK_B rows of the batch in one direction for the whole sequence, and all H hidden
units, padded to BLOCK_H: weight_hh stays on chip.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ganlstm_fast.ops.functions import on_device

# Hidden units up to which weight_hh fits on chip, by bytes of an element.
MOST_HIDDEN = {2: 128, 4: 64}

# One stage: a pipeline's buffers would take the shared memory that weight_hh needs.
OPTIONS = {"num_warps": 8, "num_stages": 1}


def tile(hidden: int) -> dict[str, int]:
    """Constants of a kernel: tl.dot wants powers of two from 16 on."""
    return {"H": hidden, "BLOCK_B": 16, "BLOCK_H": max(16, triton.next_power_of_2(hidden))}


def check_size(state: Tensor) -> None:
    """Offsets within a step have 32 bits."""
    if 4 * state.numel() >= 2**31:
        shape = tuple(state.shape)
        raise RuntimeError(f"h0: expected fewer than 2**29 elements, got shape {shape}")


def launch(kernel: Any, *arguments: Any, state: Tensor, tf32: bool) -> None:
    """Run ``kernel`` on the tensors and sizes ``arguments``; ``state`` (D, B, H) is one of them."""
    check_size(state)
    directions, batch, hidden = state.shape
    constants = tile(hidden)
    if batch == 0:
        return
    with on_device(state):
        kernel[triton.cdiv(batch, constants["BLOCK_B"]), directions](
            *arguments,
            batch,
            D=directions,
            **constants,
            PRECISION="tf32" if tf32 else "ieee",
            **OPTIONS,
        )


def is_part(values: Tensor | None, total: int) -> bool:
    """Whether an array over time has the steps of the call only."""
    return values is not None and values.size(0) != total


@triton.jit
def positions(
    lengths_ptr,
    T,
    B,
    D: tl.constexpr,
    H: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """Where the program's tile lies in [D,B,H], and in [B,D,H] and [B,D,4H] of a step.

    32 bits, half the registers of 64: steps are added to the pointers, which have 64.

    Returns:
        units, which of the tile's elements exist, each row's length, the three offsets.
    """
    direction = tl.program_id(1)
    rows = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    units = tl.arange(0, BLOCK_H)
    mask = (rows < B)[:, None] & (units < H)[None, :]
    if lengths_ptr is None:
        lengths = tl.zeros([BLOCK_B], tl.int64) + T
    else:
        lengths = tl.minimum(tl.load(lengths_ptr + rows, mask=rows < B, other=0), T)
    of_state = ((direction * B + rows) * H)[:, None] + units[None, :]
    of_step = ((rows * D + direction) * H)[:, None] + units[None, :]
    of_gates = ((rows * D + direction) * (4 * H))[:, None] + units[None, :]
    return units, mask, lengths, of_state, of_step, of_gates


@triton.jit
def time_of(step, T, direction):
    """The step-th time in the order of the direction, 64 bits."""
    step = tl.zeros([], tl.int64) + step
    return tl.where(direction == 0, step, T - 1 - step)


@triton.jit
def origin_of(first, steps, T, direction):
    """The time of element 0 of an array that has the call's ``steps`` only, 64 bits."""
    first = tl.zeros([], tl.int64) + first
    return tl.where(direction == 0, first, T - first - steps)


@triton.jit
def if_alive(new, old, alive, lengths_ptr):
    """``new`` where a row's sequence has not ended. Without lengths none has: a row or unit that
    does not exist may then hold anything, since it is not stored and its gates are loaded as 0."""
    return new if lengths_ptr is None else tl.where(alive, new, old)


@triton.jit
def load_matrices(ptr, direction, rows, columns, H: tl.constexpr):
    """Of weight_hh (D,4H,H), the elements (rows, columns) of the four gates of a direction."""
    mask = (rows < H) & (columns < H)
    at = rows * H + columns
    ptr += direction * (4 * H * H)
    w_i = tl.load(ptr + at, mask=mask, other=0.0)
    w_f = tl.load(ptr + H * H + at, mask=mask, other=0.0)
    w_g = tl.load(ptr + 2 * H * H + at, mask=mask, other=0.0)
    w_o = tl.load(ptr + 3 * H * H + at, mask=mask, other=0.0)
    return w_i, w_f, w_g, w_o


@triton.jit
def load(ptr, at, mask):
    return tl.load(ptr + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def load_gates(ptr, at, mask, H: tl.constexpr):
    """i, f, g, o of rows of 4H."""
    i = load(ptr, at, mask)
    f = load(ptr + H, at, mask)
    g = load(ptr + 2 * H, at, mask)
    o = load(ptr + 3 * H, at, mask)
    return i, f, g, o


@triton.jit
def store_gates(ptr, at, mask, i, f, g, o, H: tl.constexpr):
    tl.store(ptr + at, i, mask=mask)
    tl.store(ptr + H + at, f, mask=mask)
    tl.store(ptr + 2 * H + at, g, mask=mask)
    tl.store(ptr + 3 * H + at, o, mask=mask)


@triton.jit
def tanh(x):
    """Right to a few units in the last place, also near 0, where 1 - exp(-2x) cancels."""
    e = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - e) / (1.0 + e)
    s = x * x
    near = x * (1.0 + s * (-0.33333333333 + s * (0.13333333333 + s * -0.05396825397)))
    return tl.where(tl.abs(x) < 0.15, near, tl.where(x < 0.0, -far, far))

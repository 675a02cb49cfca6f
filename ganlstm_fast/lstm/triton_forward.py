"""The LSTM's forward in Triton: the whole time loop in one launch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ganlstm_fast.lstm.projections import by_direction, project
from ganlstm_fast.lstm.triton_common import (
    OPTIONS,
    check_size,
    device_of,
    grid,
    if_alive,
    load_gates,
    load_matrices,
    positions,
    precision,
    store_gates,
    tanh,
    tile,
    time_of,
)


@triton.jit(do_not_specialize=["T", "B"])
def lstm_forward_kernel(
    z_ptr,  # [T,B,D,4H] float32: x W^T + b
    weight_hh_ptr,  # [D,4H,H]
    h0_ptr,  # [D,B,H]
    c0_ptr,  # [D,B,H]
    lengths_ptr,  # [B] int64 or None
    y_ptr,  # [T,B,D,H] out
    h_last_ptr,  # [D,B,H] out
    c_last_ptr,  # [D,B,H] out
    gates_ptr,  # [T,B,D,4H] float32 out, or None
    c_ptr,  # [T,B,D,H] float32 out, or None
    T,
    B,
    D: tl.constexpr,
    H: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_H: tl.constexpr,
    PRECISION: tl.constexpr,
):
    units, mask, lengths, state_at, at, at4 = positions(lengths_ptr, T, B, D, H, BLOCK_B, BLOCK_H)
    direction = tl.program_id(1)
    w_i, w_f, w_g, w_o = load_matrices(weight_hh_ptr, direction, units[None, :], units[:, None], H)
    h = tl.load(h0_ptr + state_at, mask=mask, other=0.0)
    c = tl.load(c0_ptr + state_at, mask=mask, other=0.0).to(tl.float32)
    for step in range(T):
        t = time_of(step, T, direction)
        step_at = t * (B * D * H)
        alive = mask & (t < lengths)[:, None]
        z_i, z_f, z_g, z_o = load_gates(z_ptr + 4 * step_at, at4, alive, H)
        i = tl.sigmoid(tl.dot(h, w_i, acc=z_i, input_precision=PRECISION))
        f = tl.sigmoid(tl.dot(h, w_f, acc=z_f, input_precision=PRECISION))
        g = tanh(tl.dot(h, w_g, acc=z_g, input_precision=PRECISION))
        o = tl.sigmoid(tl.dot(h, w_o, acc=z_o, input_precision=PRECISION))
        c_new = f * c + i * g
        h_new = (o * tanh(c_new)).to(h.dtype)
        c = if_alive(c_new, c, alive, lengths_ptr)
        h = if_alive(h_new, h, alive, lengths_ptr)
        tl.store(y_ptr + step_at + at, if_alive(h, 0.0, alive, lengths_ptr), mask=mask)
        if gates_ptr is not None:
            zero = tl.zeros_like(c)
            store_gates(
                gates_ptr + 4 * step_at,
                at4,
                mask,
                if_alive(i, zero, alive, lengths_ptr),
                if_alive(f, zero, alive, lengths_ptr),
                if_alive(g, zero, alive, lengths_ptr),
                if_alive(o, zero, alive, lengths_ptr),
                H,
            )
            tl.store(c_ptr + step_at + at, if_alive(c, zero, alive, lengths_ptr), mask=mask)
    tl.store(h_last_ptr + state_at, h, mask=mask)
    tl.store(c_last_ptr + state_at, c, mask=mask)


def lstm_forward(
    x: Tensor,
    weights: Sequence[Tensor],
    h0: Tensor,
    c0: Tensor,
    lengths: Tensor | None,
    save: bool,
    window: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The operator ``ganlstm_fast::lstm_forward``, for H up to ``MOST_HIDDEN``; no window."""
    check_size(h0)
    (steps, batch, _), (directions, _, hidden) = x.shape, h0.shape
    lengths = None if lengths is None else lengths.to(x.device)
    z = project(x, by_direction(weights, directions, 0))
    if len(weights) > 2 * directions:
        biases = [by_direction(weights, directions, kind).float() for kind in (2, 3)]
        z += biases[0] + biases[1]
    y = x.new_empty(steps, batch, directions, hidden)
    h_last, c_last = torch.empty_like(h0), torch.empty_like(c0)
    gates = x.new_empty(*(y.shape[:3] if save else ()), 4 * hidden * save, dtype=torch.float32)
    c = x.new_empty(*(y.shape[:3] if save else ()), hidden * save, dtype=torch.float32)
    constants = tile(hidden)
    if batch > 0:
        with device_of(x):
            lstm_forward_kernel[grid(batch, directions, constants)](
                *(z, by_direction(weights, directions, 1), h0, c0, lengths, y, h_last, c_last),
                *(gates, c) if save else (None, None),
                *(steps, batch),
                D=directions,
                **constants,
                PRECISION=precision(x),
                **OPTIONS,
            )
    return y.flatten(2), h_last, c_last, gates, c

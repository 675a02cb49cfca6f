"""The LSTM's forward in Triton: the steps of a call in one launch."""

from __future__ import annotations

import triton
import triton.language as tl

from ganlstm_fast.ops.lstm.operators import ForwardSteps
from ganlstm_fast.ops.lstm.triton_common import (
    if_alive,
    is_part,
    launch,
    load_gates,
    load_matrices,
    origin_of,
    positions,
    store_gates,
    tanh,
    time_of,
)


@triton.jit(do_not_specialize=["first", "steps", "T", "B"])
def lstm_forward_kernel(
    z_ptr,  # [steps,B,D,4H] float32: x W^T
    bias_ptr,  # [D,4H] float32, or None
    weight_hh_ptr,  # [D,4H,H]
    lengths_ptr,  # [B] int64 or None
    h_ptr,  # [D,B,H] in: before the first step; out: after the last
    c_ptr,  # [D,B,H] float32, likewise
    y_ptr,  # [T,B,D,H] out, or [steps,B,D,H]
    gates_ptr,  # [steps,B,D,4H] float32 out, or None; may be z_ptr
    c_all_ptr,  # [steps,B,D,H] float32 out, or None
    y_is_part: tl.constexpr,
    first,
    steps,
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
    h = tl.load(h_ptr + state_at, mask=mask, other=0.0)
    c = tl.load(c_ptr + state_at, mask=mask, other=0.0)
    origin = origin_of(first, steps, T, direction)
    for step in range(steps):
        t = time_of(first + step, T, direction)
        step_at = (t - origin) * (B * D * H)
        y_at = step_at if y_is_part else t * (B * D * H)
        alive = mask & (t < lengths)[:, None]
        z_i, z_f, z_g, z_o = load_gates(z_ptr + 4 * step_at, at4, alive, H)
        if bias_ptr is not None:
            b_i, b_f, b_g, b_o = load_gates(
                bias_ptr + direction * (4 * H), units[None, :], units[None, :] < H, H
            )
            z_i, z_f, z_g, z_o = z_i + b_i, z_f + b_f, z_g + b_g, z_o + b_o
        i = tl.sigmoid(tl.dot(h, w_i, acc=z_i, input_precision=PRECISION))
        f = tl.sigmoid(tl.dot(h, w_f, acc=z_f, input_precision=PRECISION))
        g = tanh(tl.dot(h, w_g, acc=z_g, input_precision=PRECISION))
        o = tl.sigmoid(tl.dot(h, w_o, acc=z_o, input_precision=PRECISION))
        c_new = f * c + i * g
        h_new = (o * tanh(c_new)).to(h.dtype)
        c = if_alive(c_new, c, alive, lengths_ptr)
        h = if_alive(h_new, h, alive, lengths_ptr)
        tl.store(y_ptr + y_at + at, if_alive(h, 0.0, alive, lengths_ptr), mask=mask)
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
            tl.store(c_all_ptr + step_at + at, if_alive(c, zero, alive, lengths_ptr), mask=mask)
    tl.store(h_ptr + state_at, h, mask=mask)
    tl.store(c_ptr + state_at, c, mask=mask)


def lstm_forward_steps(a: ForwardSteps) -> None:
    """As the operator of this name, for H up to ``MOST_HIDDEN``."""
    launch(
        lstm_forward_kernel,
        a.z,
        a.bias,
        a.weight_hh,
        a.lengths,
        a.h,
        a.c,
        a.y,
        a.gates,
        a.c_all,
        is_part(a.y, a.total),
        a.first,
        a.z.size(0),
        a.total,
        state=a.h,
        tf32=a.tf32,
    )

"""The LSTM's backward in Triton: dz of the steps of a call in one launch."""

from __future__ import annotations

import triton
import triton.language as tl

from ganlstm_fast.ops.lstm.operators import BackwardSteps
from ganlstm_fast.ops.lstm.triton_common import (
    if_alive,
    is_part,
    launch,
    load,
    load_gates,
    load_matrices,
    origin_of,
    positions,
    store_gates,
    tanh,
    time_of,
)


@triton.jit(do_not_specialize=["first", "steps", "T", "B"])
def lstm_backward_kernel(
    grad_y_ptr,  # [T,B,D,H] or None
    weight_hh_ptr,  # [D,4H,H]
    lengths_ptr,  # [B] int64 or None
    c_before_ptr,  # [D,B,H] float32: c before the first step of c_all_ptr
    gates_ptr,  # [T,B,D,4H] float32, or [steps,B,D,4H]
    c_all_ptr,  # [T,B,D,H] float32, or [steps,B,D,H]
    n_ptr,  # [D,B,H] float32 in: gradient of h after the last step; out: before the first
    e_ptr,  # [D,B,H] float32, likewise of c
    dz_ptr,  # [steps,B,D,4H] out
    d_ptr,  # [steps,B,D,H] float32 out, or None
    saved_is_part: tl.constexpr,
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
    w_i, w_f, w_g, w_o = load_matrices(weight_hh_ptr, direction, units[:, None], units[None, :], H)
    initial = tl.load(c_before_ptr + state_at, mask=mask, other=0.0)
    n = tl.load(n_ptr + state_at, mask=mask, other=0.0)
    e = tl.load(e_ptr + state_at, mask=mask, other=0.0)
    kind = dz_ptr.dtype.element_ty
    back = 2 * direction - 1  # to the step before
    origin = origin_of(first, steps, T, direction)
    saved_origin = origin if saved_is_part else origin * 0
    saved_count = steps if saved_is_part else T
    for step in range(steps):
        t = time_of(first + steps - 1 - step, T, direction)
        step_at = (t - origin) * (B * D * H)
        saved_at = (t - saved_origin) * (B * D * H)
        alive = mask & (t < lengths)[:, None]
        before = t + back - saved_origin
        has_before = (before >= 0) & (before < saved_count) & (t + back < lengths)[:, None]
        i, f, g, o = load_gates(gates_ptr + 4 * saved_at, at4, alive, H)
        tau = tanh(tl.load(c_all_ptr + saved_at + at, mask=alive, other=0.0))
        c_before = load(c_all_ptr + before * (B * D * H), at, mask & has_before)
        c_before = tl.where(has_before, c_before, initial)
        d = n
        if grad_y_ptr is not None:
            d += tl.load(grad_y_ptr + t * (B * D * H) + at, mask=alive, other=0.0).to(tl.float32)
        dc = e + d * o * (1.0 - tau * tau)
        zero = tl.zeros_like(d)
        dz_i = if_alive(dc * g * i * (1.0 - i), zero, alive, lengths_ptr).to(kind)
        dz_f = if_alive(dc * c_before * f * (1.0 - f), zero, alive, lengths_ptr).to(kind)
        dz_g = if_alive(dc * i * (1.0 - g * g), zero, alive, lengths_ptr).to(kind)
        dz_o = if_alive(d * tau * o * (1.0 - o), zero, alive, lengths_ptr).to(kind)
        store_gates(dz_ptr + 4 * step_at, at4, mask, dz_i, dz_f, dz_g, dz_o, H)
        if d_ptr is not None:
            tl.store(d_ptr + step_at + at, if_alive(d, zero, alive, lengths_ptr), mask=mask)
        e = if_alive(dc * f, e, alive, lengths_ptr)
        product = tl.dot(dz_i, w_i, input_precision=PRECISION)
        product = tl.dot(dz_f, w_f, acc=product, input_precision=PRECISION)
        product = tl.dot(dz_g, w_g, acc=product, input_precision=PRECISION)
        product = tl.dot(dz_o, w_o, acc=product, input_precision=PRECISION)
        n = if_alive(product, n, alive, lengths_ptr)
    tl.store(n_ptr + state_at, n, mask=mask)
    tl.store(e_ptr + state_at, e, mask=mask)


def lstm_backward_steps(a: BackwardSteps) -> None:
    """As the operator of this name, for H up to ``MOST_HIDDEN``."""
    launch(
        lstm_backward_kernel,
        a.grad_y,
        a.weight_hh,
        a.lengths,
        a.c_before,
        a.gates,
        a.c_all,
        a.n,
        a.e,
        a.dz,
        a.d,
        is_part(a.gates, a.total),
        a.first,
        a.dz.size(0),
        a.total,
        state=a.n,
        tf32=a.tf32,
    )

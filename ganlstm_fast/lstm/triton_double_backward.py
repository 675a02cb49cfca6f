"""The LSTM's double backward in Triton: the tangent of the forward in a launch along time, the
tangent of the backward in one against it, and what is parallel in time around them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ganlstm_fast.lstm import projections
from ganlstm_fast.lstm.projections import by_direction
from ganlstm_fast.lstm.triton_backward import WeightGradients, input_gradient
from ganlstm_fast.lstm.triton_common import (
    OPTIONS,
    check_size,
    device_of,
    grid,
    if_alive,
    load,
    load_matrices,
    positions,
    precision,
    tanh,
    tile,
    time_of,
)


@triton.jit(do_not_specialize=["T", "B"])
def lstm_tangent_forward_kernel(
    z_ptr,  # [T,B,D,4H] float32: the tangent of z without that of h_{t-1}
    weight_hh_ptr,  # [D,4H,H]
    v_h0_ptr,  # [D,B,H] or None
    v_c0_ptr,  # [D,B,H] or None
    c0_ptr,  # [D,B,H]
    lengths_ptr,  # [B] int64 or None
    gates_ptr,  # [T,B,D,4H] float32
    c_ptr,  # [T,B,D,H] float32
    gates_out_ptr,  # [T,B,D,4H] float32 out: tangents
    c_out_ptr,  # [T,B,D,H] float32 out: tangents
    h_out_ptr,  # [T,B,D,H] out: tangents, the gradient of grad_y
    h_last_ptr,  # [D,B,H] out
    c_last_ptr,  # [D,B,H] out
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
    c_before = tl.load(c0_ptr + state_at, mask=mask, other=0.0).to(tl.float32)
    h_ = tl.zeros([BLOCK_B, BLOCK_H], h_out_ptr.dtype.element_ty)
    c_ = tl.zeros([BLOCK_B, BLOCK_H], tl.float32)
    if v_h0_ptr is not None:
        h_ += tl.load(v_h0_ptr + state_at, mask=mask, other=0.0)
    if v_c0_ptr is not None:
        c_ += tl.load(v_c0_ptr + state_at, mask=mask, other=0.0).to(tl.float32)
    for step in range(T):
        t = time_of(step, T, direction)
        step_at = t * (B * D * H)
        alive = mask & (t < lengths)[:, None]
        # Gate by gate, so that few tiles are alive at a time.
        f = load(gates_ptr + 4 * step_at + H, at4, alive)
        f_ = f * (1.0 - f) * tl.dot(h_, w_f, load(z_ptr + 4 * step_at + H, at4, alive), PRECISION)
        tl.store(gates_out_ptr + 4 * step_at + H + at4, f_, mask=alive)
        c_new = f_ * c_before + f * c_
        i = load(gates_ptr + 4 * step_at, at4, alive)
        g = load(gates_ptr + 4 * step_at + 2 * H, at4, alive)
        i_ = i * (1.0 - i) * tl.dot(h_, w_i, load(z_ptr + 4 * step_at, at4, alive), PRECISION)
        tl.store(gates_out_ptr + 4 * step_at + at4, i_, mask=alive)
        g_ = (1.0 - g * g) * tl.dot(
            h_, w_g, load(z_ptr + 4 * step_at + 2 * H, at4, alive), PRECISION
        )
        tl.store(gates_out_ptr + 4 * step_at + 2 * H + at4, g_, mask=alive)
        c_new += i_ * g + i * g_
        o = load(gates_ptr + 4 * step_at + 3 * H, at4, alive)
        o_ = (
            o
            * (1.0 - o)
            * tl.dot(h_, w_o, load(z_ptr + 4 * step_at + 3 * H, at4, alive), PRECISION)
        )
        tl.store(gates_out_ptr + 4 * step_at + 3 * H + at4, o_, mask=alive)
        c = load(c_ptr + step_at, at, alive)
        tau = tanh(c)
        h_new = (o_ * tau + o * (1.0 - tau * tau) * c_new).to(h_.dtype)
        c_ = if_alive(c_new, c_, alive, lengths_ptr)
        h_ = if_alive(h_new, h_, alive, lengths_ptr)
        c_before = if_alive(c, c_before, alive, lengths_ptr)
        tl.store(c_out_ptr + step_at + at, c_, mask=alive)
        tl.store(h_out_ptr + step_at + at, if_alive(h_, 0.0, alive, lengths_ptr), mask=mask)
    tl.store(h_last_ptr + state_at, h_, mask=mask)
    tl.store(c_last_ptr + state_at, c_, mask=mask)


@triton.jit(do_not_specialize=["T", "B"])
def lstm_tangent_backward_kernel(
    extra_ptr,  # [T,B,D,H] float32: dz times the cotangent of weight_hh's gradient, or None
    grad_c_last_ptr,  # [D,B,H] or None
    weight_hh_ptr,  # [D,4H,H]
    c0_ptr,  # [D,B,H]
    v_c0_ptr,  # [D,B,H] or None
    lengths_ptr,  # [B] int64 or None
    gates_ptr,  # [T,B,D,4H] float32
    c_ptr,  # [T,B,D,H] float32
    d_ptr,  # [T,B,D,H] float32
    gates__ptr,  # [T,B,D,4H] float32: tangents
    c__ptr,  # [T,B,D,H] float32: tangents
    dz_ptr,  # [T,B,D,4H] out: tangents
    g_h0_ptr,  # [D,B,H] out
    g_c0_ptr,  # [D,B,H] out
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
    zero = tl.zeros([BLOCK_B, BLOCK_H], tl.float32)
    c0 = tl.load(c0_ptr + state_at, mask=mask, other=0.0).to(tl.float32)
    c0_, e, e_, d_ = zero, zero, zero, zero
    if v_c0_ptr is not None:
        c0_ += tl.load(v_c0_ptr + state_at, mask=mask, other=0.0).to(tl.float32)
    if grad_c_last_ptr is not None:
        e += tl.load(grad_c_last_ptr + state_at, mask=mask, other=0.0).to(tl.float32)
    back = (2 * direction - 1) * (B * D * H)  # to the step before
    for step in range(T):
        t = time_of(T - 1 - step, T, direction)
        step_at = t * (B * D * H)
        alive = mask & (t < lengths)[:, None]
        first = tl.where(direction == 0, t == 0, t == lengths - 1)[:, None]
        later = alive & (first == 0)
        # Gate by gate, so that few tiles are alive at a time.
        product = zero
        if extra_ptr is not None:
            product += load(extra_ptr + step_at, at, alive)
        o = load(gates_ptr + 4 * step_at + 3 * H, at4, alive)
        o_ = load(gates__ptr + 4 * step_at + 3 * H, at4, alive)
        d = load(d_ptr + step_at, at, alive)
        tau = tanh(load(c_ptr + step_at, at, alive))
        q = 1.0 - tau * tau
        tau_ = q * load(c__ptr + step_at, at, alive)
        dc = e + d * o * q
        dc_ = e_ + d_ * o * q + d * (o_ * q - 2.0 * o * tau * tau_)
        dz = (d_ * tau + d * tau_) * o * (1.0 - o) + d * tau * (1.0 - 2.0 * o) * o_
        dz = if_alive(dz, zero, alive, lengths_ptr).to(dz_ptr.dtype.element_ty)
        tl.store(dz_ptr + 4 * step_at + 3 * H + at4, dz, mask=mask)
        product = tl.dot(dz, w_o, product, PRECISION)
        f = load(gates_ptr + 4 * step_at + H, at4, alive)
        f_ = load(gates__ptr + 4 * step_at + H, at4, alive)
        c_before = tl.where(first, c0, load(c_ptr + step_at + back, at, later))
        c_before_ = tl.where(first, c0_, load(c__ptr + step_at + back, at, later))
        dz = (dc_ * c_before + dc * c_before_) * f * (1.0 - f)
        dz += dc * c_before * (1.0 - 2.0 * f) * f_
        dz = if_alive(dz, zero, alive, lengths_ptr).to(dz_ptr.dtype.element_ty)
        tl.store(dz_ptr + 4 * step_at + H + at4, dz, mask=mask)
        product = tl.dot(dz, w_f, product, PRECISION)
        e = if_alive(dc * f, e, alive, lengths_ptr)
        e_ = if_alive(dc_ * f + dc * f_, e_, alive, lengths_ptr)
        i = load(gates_ptr + 4 * step_at, at4, alive)
        i_ = load(gates__ptr + 4 * step_at, at4, alive)
        g = load(gates_ptr + 4 * step_at + 2 * H, at4, alive)
        g_ = load(gates__ptr + 4 * step_at + 2 * H, at4, alive)
        dz = (dc_ * g + dc * g_) * i * (1.0 - i) + dc * g * (1.0 - 2.0 * i) * i_
        dz = if_alive(dz, zero, alive, lengths_ptr).to(dz_ptr.dtype.element_ty)
        tl.store(dz_ptr + 4 * step_at + at4, dz, mask=mask)
        product = tl.dot(dz, w_i, product, PRECISION)
        dz = (dc_ * i + dc * i_) * (1.0 - g * g) - 2.0 * dc * i * g * g_
        dz = if_alive(dz, zero, alive, lengths_ptr).to(dz_ptr.dtype.element_ty)
        tl.store(dz_ptr + 4 * step_at + 2 * H + at4, dz, mask=mask)
        product = tl.dot(dz, w_g, product, PRECISION)
        d_ = if_alive(product, d_, alive, lengths_ptr)
    tl.store(g_h0_ptr + state_at, d_, mask=mask)
    tl.store(g_c0_ptr + state_at, e_, mask=mask)


def lstm_double_backward(
    v_x: Tensor | None,
    v_h0: Tensor | None,
    v_c0: Tensor | None,
    v_weights: Sequence[Tensor | None],
    grad_c_last: Tensor | None,
    x: Tensor,
    weights: Sequence[Tensor],
    h0: Tensor,
    c0: Tensor,
    lengths: Tensor | None,
    y: Tensor,
    gates: Tensor,
    c: Tensor,
    dz: Tensor,
    d: Tensor,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    """The operator ``ganlstm_fast::lstm_double_backward``."""
    check_size(h0)
    directions, batch, hidden = h0.shape
    steps, per_direction = x.size(0), len(weights) // directions
    lengths = None if lengths is None else lengths.to(x.device)
    weight_hh = by_direction(weights, directions, 1)
    came = [
        any(v is not None for v in v_weights[kind::per_direction]) for kind in range(per_direction)
    ]
    filled = [
        torch.zeros_like(w) if v is None else v for v, w in zip(v_weights, weights, strict=True)
    ]

    z_ = torch.zeros(gates.shape, dtype=torch.float32, device=x.device)
    if v_x is not None:
        z_ += projections.project(v_x, by_direction(weights, directions, 0))
    if came[0]:
        z_ += projections.project(x, by_direction(filled, directions, 0))
    extra = None
    if came[1]:
        v_hh = by_direction(filled, directions, 1)
        before = projections.before(y.view(c.shape), h0, lengths)
        z_ += projections.project_states(before, v_hh.transpose(1, 2))
        extra = projections.project_states(dz, v_hh).float().contiguous()
    for kind in range(2, per_direction):
        if came[kind]:
            z_ += by_direction(filled, directions, kind).float()

    gates_, c_ = torch.empty_like(gates), torch.empty_like(c)
    h_, dz_ = y.new_empty(c.shape), torch.empty_like(dz)
    h_last_, c_last_, g_h0, g_c0 = (torch.empty_like(h0) for _ in range(4))
    constants = tile(hidden) | {"D": directions, "PRECISION": precision(x)} | OPTIONS
    if batch > 0:
        programs = grid(batch, directions, constants)
        with device_of(x):
            lstm_tangent_forward_kernel[programs](
                *(z_, weight_hh, v_h0, v_c0, c0, lengths, gates, c),
                *(gates_, c_, h_, h_last_, c_last_, steps, batch),
                **constants,
            )
            lstm_tangent_backward_kernel[programs](
                *(extra, grad_c_last, weight_hh, c0, v_c0, lengths, gates, c, d),
                *(gates_, c_, dz_, g_h0, g_c0, steps, batch),
                **constants,
            )
    absent = x.new_empty(0)
    g_x = absent
    if wanted[3]:
        g_x = input_gradient(dz_, weights, x)
        if came[0]:
            g_x = g_x + input_gradient(dz, filled, x)
        g_x = g_x.to(x.dtype)
    of_weights = WeightGradients(weights, directions, wanted[6:], x.dtype)
    of_weights.add(dz_, y, h0, x, lengths, with_bias=True)
    of_weights.add(dz, h_, v_h0, v_x, lengths, with_bias=False)
    return (
        h_.flatten(2) if wanted[0] else absent,
        h_last_ if wanted[1] else absent,
        c_last_ if wanted[2] else absent,
        g_x,
        g_h0 if wanted[4] else absent,
        g_c0 if wanted[5] else absent,
        of_weights.results(),
    )

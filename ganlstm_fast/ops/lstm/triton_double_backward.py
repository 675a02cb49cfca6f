"""The LSTM's double backward in Triton: the tangent of the forward in a launch along time, the
tangent of the backward in one against it."""

from __future__ import annotations

import triton
import triton.language as tl

from ganlstm_fast.ops.lstm.operators import TangentBackwardSteps, TangentForwardSteps
from ganlstm_fast.ops.lstm.triton_common import (
    if_alive,
    launch,
    load,
    load_matrices,
    positions,
    tanh,
    time_of,
)


@triton.jit(do_not_specialize=["T", "B"])
def lstm_tangent_forward_kernel(
    z_ptr,  # [T,B,D,4H] float32: the tangent of z without that of h_{t-1}
    weight_hh_ptr,  # [D,4H,H]
    lengths_ptr,  # [B] int64 or None
    c0_ptr,  # [D,B,H] float32
    gates_ptr,  # [T,B,D,4H] float32
    c_ptr,  # [T,B,D,H] float32
    h__ptr,  # [D,B,H] in and out: the state's tangent before the first and after the last step
    c__ptr,  # [D,B,H] float32, likewise
    h_out_ptr,  # [T,B,D,H] out: tangents, the gradient of grad_y
    gates_out_ptr,  # [T,B,D,4H] float32 out: tangents; may be z_ptr
    c_out_ptr,  # [T,B,D,H] float32 out: tangents
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
    c_before = tl.load(c0_ptr + state_at, mask=mask, other=0.0)
    h_ = tl.load(h__ptr + state_at, mask=mask, other=0.0)
    c_ = tl.load(c__ptr + state_at, mask=mask, other=0.0)
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
    tl.store(h__ptr + state_at, h_, mask=mask)
    tl.store(c__ptr + state_at, c_, mask=mask)


@triton.jit(do_not_specialize=["T", "B"])
def lstm_tangent_backward_kernel(
    extra_ptr,  # [T,B,D,H] float32: dz times the cotangent of weight_hh's gradient, or None
    weight_hh_ptr,  # [D,4H,H]
    lengths_ptr,  # [B] int64 or None
    c0_ptr,  # [D,B,H] float32
    c0__ptr,  # [D,B,H] float32: its tangent
    gates_ptr,  # [T,B,D,4H] float32
    c_ptr,  # [T,B,D,H] float32
    d_ptr,  # [T,B,D,H] float32
    gates__ptr,  # [T,B,D,4H] float32: tangents
    c__ptr,  # [T,B,D,H] float32: tangents
    d__ptr,  # [D,B,H] float32 in and out: the tangent of what reaches h from the step after
    e_ptr,  # [D,B,H] float32 in and out: what reaches c from the step after
    e__ptr,  # [D,B,H] float32 in and out: its tangent
    dz_ptr,  # [T,B,D,4H] out: tangents; may be gates__ptr
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
    c0 = tl.load(c0_ptr + state_at, mask=mask, other=0.0)
    c0_ = tl.load(c0__ptr + state_at, mask=mask, other=0.0)
    d_ = tl.load(d__ptr + state_at, mask=mask, other=0.0)
    e = tl.load(e_ptr + state_at, mask=mask, other=0.0)
    e_ = tl.load(e__ptr + state_at, mask=mask, other=0.0)
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
    tl.store(d__ptr + state_at, d_, mask=mask)
    tl.store(e_ptr + state_at, e, mask=mask)
    tl.store(e__ptr + state_at, e_, mask=mask)


def lstm_tangent_forward_steps(a: TangentForwardSteps) -> None:
    """As the operator of this name, for H up to ``MOST_HIDDEN``."""
    launch(
        lstm_tangent_forward_kernel,
        a.z_,
        a.weight_hh,
        a.lengths,
        a.c_before,
        a.gates,
        a.c_all,
        a.h_,
        a.c_,
        a.y_,
        a.gates_,
        a.c_all_,
        a.z_.size(0),
        state=a.h_,
        tf32=a.tf32,
    )


def lstm_tangent_backward_steps(a: TangentBackwardSteps) -> None:
    """As the operator of this name, for H up to ``MOST_HIDDEN``."""
    launch(
        lstm_tangent_backward_kernel,
        a.extra,
        a.weight_hh,
        a.lengths,
        a.c_before,
        a.c_before_,
        a.gates,
        a.c_all,
        a.d,
        a.gates_,
        a.c_all_,
        a.n_,
        a.e,
        a.e_,
        a.dz_,
        a.dz_.size(0),
        state=a.n_,
        tf32=a.tf32,
    )

"""The LSTM's backward in Triton: dz of all steps in one launch, then what is parallel in time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ganlstm_fast.lstm import projections
from ganlstm_fast.lstm.projections import by_direction
from ganlstm_fast.lstm.triton_common import (
    OPTIONS,
    check_size,
    device_of,
    grid,
    if_alive,
    load,
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
def lstm_backward_kernel(
    grad_y_ptr,  # [T,B,D,H] or None
    grad_h_last_ptr,  # [D,B,H] or None
    grad_c_last_ptr,  # [D,B,H] or None
    weight_hh_ptr,  # [D,4H,H]
    c0_ptr,  # [D,B,H]
    lengths_ptr,  # [B] int64 or None
    gates_ptr,  # [T,B,D,4H] float32
    c_ptr,  # [T,B,D,H] float32
    dz_ptr,  # [T,B,D,4H] out
    d_ptr,  # [T,B,D,H] float32 out, or None
    grad_h0_ptr,  # [D,B,H] out
    grad_c0_ptr,  # [D,B,H] out
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
    c0 = tl.load(c0_ptr + state_at, mask=mask, other=0.0).to(tl.float32)
    e = tl.zeros([BLOCK_B, BLOCK_H], tl.float32)
    n = tl.zeros([BLOCK_B, BLOCK_H], tl.float32)
    if grad_c_last_ptr is not None:
        e += tl.load(grad_c_last_ptr + state_at, mask=mask, other=0.0).to(tl.float32)
    if grad_h_last_ptr is not None:
        n += tl.load(grad_h_last_ptr + state_at, mask=mask, other=0.0).to(tl.float32)
    kind = dz_ptr.dtype.element_ty
    back = (2 * direction - 1) * (B * D * H)  # to the step before
    for step in range(T):
        t = time_of(T - 1 - step, T, direction)
        step_at = t * (B * D * H)
        alive = mask & (t < lengths)[:, None]
        first = tl.where(direction == 0, t == 0, t == lengths - 1)[:, None]
        i, f, g, o = load_gates(gates_ptr + 4 * step_at, at4, alive, H)
        tau = tanh(tl.load(c_ptr + step_at + at, mask=alive, other=0.0))
        c_before = load(c_ptr + step_at + back, at, alive & (first == 0))
        c_before = tl.where(first, c0, c_before)
        d = n
        if grad_y_ptr is not None:
            d += tl.load(grad_y_ptr + step_at + at, mask=alive, other=0.0).to(tl.float32)
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
    tl.store(grad_h0_ptr + state_at, n, mask=mask)
    tl.store(grad_c0_ptr + state_at, e, mask=mask)


def lstm_backward(
    grad_y: Tensor | None,
    grad_h_last: Tensor | None,
    grad_c_last: Tensor | None,
    x: Tensor,
    weights: Sequence[Tensor],
    h0: Tensor,
    c0: Tensor,
    lengths: Tensor | None,
    y: Tensor,
    gates: Tensor,
    c: Tensor,
    wanted: Sequence[bool],
    save: bool,
    window: int = 0,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor], Tensor, Tensor]:
    """The operator ``ganlstm_fast::lstm_backward``; no window."""
    check_size(h0)
    (steps, batch, _), (directions, _, hidden) = x.shape, h0.shape
    lengths = None if lengths is None else lengths.to(x.device)
    dz = x.new_empty(gates.shape)
    d = torch.empty_like(c)
    grad_h0, grad_c0 = torch.empty_like(h0), torch.empty_like(c0)
    constants = tile(hidden)
    if batch > 0:
        with device_of(x):
            lstm_backward_kernel[grid(batch, directions, constants)](
                *(grad_y, grad_h_last, grad_c_last),
                *(by_direction(weights, directions, 1), c0, lengths),
                *(gates, c, dz, d if save else None, grad_h0, grad_c0, steps, batch),
                D=directions,
                **constants,
                PRECISION=precision(x),
                **OPTIONS,
            )
    grad_x = input_gradient(dz, weights, x) if wanted[0] else None
    of_weights = WeightGradients(weights, directions, wanted[3:], x.dtype)
    of_weights.add(dz, y, h0, x, lengths, with_bias=True)
    absent = x.new_empty(0)
    return (
        absent if grad_x is None else grad_x.to(x.dtype),
        grad_h0 if wanted[1] else absent,
        grad_c0 if wanted[2] else absent,
        of_weights.results(),
        dz if save else absent,
        d if save else c.new_empty(0),
    )


def input_gradient(dz: Tensor, weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """dz (T, B, D, 4H) times weight_ih, summed over the directions: (T, B, I)."""
    directions = dz.size(2)
    product = projections.multiply(
        dz.flatten(0, 1).flatten(1), by_direction(weights, directions, 0).flatten(0, 1)
    )
    return product.view(x.shape)


class WeightGradients:
    """Sums over all steps of dz^T [h_{t-1} | x_t | 1]; ``wanted``: weight_ih, weight_hh, bias."""

    def __init__(
        self,
        weights: Sequence[Tensor],
        directions: int,
        wanted: Sequence[bool],
        dtype: torch.dtype,
    ) -> None:
        self.per_direction = len(weights) // directions
        kinds = [wanted[0], wanted[1], wanted[2], wanted[2]][: self.per_direction]
        self.wanted = kinds * directions
        self.directions, self.dtype, self.like = directions, dtype, weights[0]
        self.sums: list[Tensor | None] = [None] * len(weights)

    def add(
        self,
        dz: Tensor,
        states: Tensor,
        initial: Tensor | None,
        x: Tensor | None,
        lengths: Tensor | None,
        with_bias: bool,
    ) -> None:
        """states (T, B, D*H) and ``initial`` (D, B, H) of h, x (T, B, I): None stands for zeros."""
        hidden = dz.size(3) // 4
        states = states.view(*dz.shape[:3], hidden)
        if any(self.wanted[1 :: self.per_direction]):
            states = projections.before(states, initial, lengths)
        x = None if x is None else projections.valid_inputs(x, lengths)
        for direction in range(self.directions):
            own, first = dz[:, :, direction], direction * self.per_direction
            if self.wanted[first] and x is not None:
                self._add(first, projections.outer(own, x))
            if self.wanted[first + 1]:
                self._add(first + 1, projections.outer(own, states[:, :, direction]))
            if with_bias and self.per_direction == 4 and self.wanted[first + 2]:
                self._add(first + 2, own.sum((0, 1), dtype=torch.float32))

    def _add(self, index: int, value: Tensor) -> None:
        before = self.sums[index]
        self.sums[index] = value if before is None else before + value

    def results(self) -> list[Tensor]:
        return [
            self._result(index) if wanted else self.like.new_empty(0)
            for index, wanted in enumerate(self.wanted)
        ]

    def _result(self, index: int) -> Tensor:
        # bias_ih and bias_hh have the same gradient, in tensors of their own.
        is_second_bias = index % self.per_direction == 3
        return self.sums[index - is_second_bias].to(self.dtype, copy=is_second_bias)

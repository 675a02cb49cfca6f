"""The LSTM's operators on a GPU: the recurrent steps of an implementation, with the products that
are parallel in time around them.

The implementations of the steps are "triton" and "cuda", each of which walks in one launch, and
"cell", with a product and a kernel a step. What one saves another can read.

Memory: the pre-activations become the saved gates in place, and a backward that is not itself
recorded makes dz for some steps at a time.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ganlstm_fast.ops import backends
from ganlstm_fast.ops.lstm import fit, projections
from ganlstm_fast.ops.lstm.projections import allows_tf32, by_direction, precision_of_lstm

_ops = torch.ops.ganlstm_fast

# Elements of the buffers that are made for some steps at a time: 64 MiB in float32.
PART = 2**24

MODULES = {
    "lstm_forward_steps": "triton_forward",
    "lstm_backward_steps": "triton_backward",
    "lstm_tangent_forward_steps": "triton_double_backward",
    "lstm_tangent_backward_steps": "triton_double_backward",
}


def _steps(name: str, impl: str) -> Callable[..., None]:
    """The operator ``name``, or its namesake in Triton."""
    if impl == "triton":
        module = importlib.import_module(f"ganlstm_fast.ops.lstm.{MODULES[name]}")
        return getattr(module, name)
    return partial(getattr(_ops, name), impl=impl)


def _saved_dtype(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype.itemsize == 2 else x.dtype


def _parts(total: int, size: int) -> list[tuple[int, int]]:
    """(first, steps) of each part."""
    return [(first, min(size, total - first)) for first in range(0, total, size)]


def _part_size(x: Tensor, h0: Tensor) -> int:
    return max(1, PART // max(1, 4 * h0.numel()))


class _Layer:
    """One call's sizes and weights."""

    def __init__(
        self,
        x: Tensor,
        weights: Sequence[Tensor],
        h0: Tensor,
        lengths: Tensor | None,
        impl: str,
    ) -> None:
        self.x, self.weights, self.impl = x, weights, impl
        self.total = x.size(0)
        self.directions, self.batch, self.hidden = h0.shape
        self.lengths = None if lengths is None else lengths.to(x.device)
        self.saved = _saved_dtype(x)
        self.tf32 = allows_tf32(x)
        self.weight_hh = by_direction(weights, self.directions, 1)
        self.has_bias = len(weights) > 2 * self.directions

    def steps(self, name: str, *arguments: Any) -> None:
        _steps(name, self.impl)(*arguments, tf32=self.tf32)

    def bias(self) -> Tensor | None:
        if not self.has_bias:
            return None
        first, second = (by_direction(self.weights, self.directions, kind) for kind in (2, 3))
        return first.to(self.saved) + second.to(self.saved)

    def empty(self, steps: int, gates: int, dtype: torch.dtype) -> Tensor:
        sizes = (steps, self.batch, self.directions, gates * self.hidden)
        return self.x.new_empty(sizes, dtype=dtype)

    def carried(self, state: Tensor | None) -> Tensor:
        """A copy that the steps may change, of a state or, None, of zeros."""
        if state is None:
            return self.x.new_zeros(self.directions, self.batch, self.hidden, dtype=self.saved)
        return state.to(self.saved, copy=True)

    def project(self, first: int, steps: int) -> Tensor:
        weight_ih = by_direction(self.weights, self.directions, 0)
        return projections.project(self.x, weight_ih, self.saved, first, steps)


def lstm_forward(
    x: Tensor,
    weights: Sequence[Tensor],
    h0: Tensor,
    c0: Tensor,
    lengths: Tensor | None,
    save: bool,
    window: int = 0,
    impl: str = "",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The operator ``ganlstm_fast::lstm_forward``."""
    layer = _Layer(x, weights, h0, lengths, impl or _default(x, h0))
    total, bias = layer.total, layer.bias()
    keeps_all = save and window == 0
    y = layer.empty(total, 1, x.dtype)
    h, c = h0.clone(), layer.carried(c0)
    c_all, windows, gates = None, [], x.new_empty(0, dtype=layer.saved)
    if keeps_all:
        c_all, size = layer.empty(total, 1, layer.saved), total
    else:
        size = window if save else _part_size(x, h0)
    with precision_of_lstm(x):
        for first, steps in _parts(total, size):
            if save and first > 0:
                windows.append(c.clone())
            z = layer.project(first, steps)
            gates = z if keeps_all else gates
            layer.steps(
                "lstm_forward_steps",
                *(z, bias, layer.weight_hh, layer.lengths, first, total, h, c, y),
                *((z, c_all) if keeps_all else (None, None)),
            )
    if c_all is None and save:
        c_all = torch.stack(windows) if windows else c.new_empty(0, *c.shape)
    elif c_all is None:
        c_all = c.new_empty(0)
    return y.flatten(2), h, c.to(x.dtype), gates, c_all


def _window_gates(
    layer: _Layer, y: Tensor, h0: Tensor, c_before: Tensor, first: int, steps: int
) -> tuple[Tensor, Tensor]:
    """Gates and c of the steps from ``first`` on, computed again; y (T, B, D, H)."""
    h = h0.clone()
    if first > 0:
        h[0] = y[first - 1, :, 0]
    if first > 0 and layer.directions == 2:
        before = layer.total - first
        h[1] = y[before, :, 1]
        if layer.lengths is not None:  # a row whose last valid step is before that has not begun
            h[1] = torch.where((before < layer.lengths)[:, None], h[1], h0[1])
    z = layer.project(first, steps)
    c_all = layer.empty(steps, 1, layer.saved)
    layer.steps(
        "lstm_forward_steps",
        *(z, layer.bias(), layer.weight_hh, layer.lengths, first, layer.total, h),
        *(c_before.clone(), layer.empty(steps, 1, y.dtype), z, c_all),
    )
    return z, c_all


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
    impl: str = "",
) -> tuple[Tensor, Tensor, Tensor, list[Tensor], Tensor, Tensor]:
    """The operator ``ganlstm_fast::lstm_backward``."""
    layer = _Layer(x, weights, h0, lengths, impl or _default(x, h0))
    if window > 0 and save:
        *_, gates, c = lstm_forward(x, weights, h0, c0, lengths, True, 0, layer.impl)
        window = 0
    total, directions = layer.total, layer.directions
    states = (total, layer.batch, directions, layer.hidden)
    y = y.view(states)
    grad_y = None if grad_y is None else grad_y.view(states)
    n, e = layer.carried(grad_h_last), layer.carried(grad_c_last)
    start = c0.to(layer.saved)
    size = total if save else window or _part_size(x, h0)
    of_x = projections.InputGradient(weights, directions, x) if wanted[0] else None
    of_weights = projections.WeightGradients(weights, directions, wanted[3:], total)
    d = layer.empty(total, 1, layer.saved) if save else None
    dz = x.new_empty(0)
    with precision_of_lstm(x):
        for first, steps in reversed(_parts(total, size)):
            c_before = c[first // window - 1] if window > 0 and first > 0 else start
            part = gates, c
            if window > 0:
                part = _window_gates(layer, y, h0, c_before, first, steps)
            if dz.size(0) != steps:
                dz = layer.empty(steps, 4, x.dtype)
            layer.steps(
                "lstm_backward_steps",
                *(grad_y, layer.weight_hh, layer.lengths, first, total, c_before, *part),
                *(n, e, dz, d),
            )
            if of_x is not None:
                of_x.add(dz, first)
            of_weights.add(dz, y, h0, x, layer.lengths, True, first)
    absent = x.new_empty(0)
    return (
        absent if of_x is None else of_x.result,
        n.to(x.dtype) if wanted[1] else absent,
        e.to(x.dtype) if wanted[2] else absent,
        of_weights.results(),
        dz if save else absent,
        absent.to(layer.saved) if d is None else d,
    )


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
    impl: str = "",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    """The operator ``ganlstm_fast::lstm_double_backward``."""
    layer = _Layer(x, weights, h0, lengths, impl or _default(x, h0))
    directions = layer.directions
    per_direction = len(weights) // directions
    came = [
        any(v is not None for v in v_weights[kind::per_direction]) for kind in range(per_direction)
    ]
    filled = [
        torch.zeros_like(w) if v is None else v for v, w in zip(v_weights, weights, strict=True)
    ]
    states = y.view(c.shape)
    h_last_ = torch.zeros_like(h0) if v_h0 is None else v_h0.clone()
    c_last_, n_ = layer.carried(v_c0), layer.carried(None)
    e, e_ = layer.carried(grad_c_last), layer.carried(None)
    start, start_ = c0.to(layer.saved), layer.carried(v_c0)
    h_, c_ = torch.empty_like(states), torch.empty_like(c)
    g_x = absent = x.new_empty(0)
    of_weights = projections.WeightGradients(weights, directions, wanted[6:], layer.total)
    with precision_of_lstm(x):
        z_, extra = _tangent_of_z(layer, v_x, filled, came, states, h0, dz)
        layer.steps(
            "lstm_tangent_forward_steps",
            *(z_, layer.weight_hh, layer.lengths, start, gates, c),
            *(h_last_, c_last_, h_, z_, c_),
        )
        gates_ = z_
        dz_ = gates_ if x.dtype == layer.saved else torch.empty_like(dz)
        layer.steps(
            "lstm_tangent_backward_steps",
            *(extra, layer.weight_hh, layer.lengths, start, start_, gates, c, d),
            *(gates_, c_, n_, e, e_, dz_),
        )
        if wanted[3]:
            of_x = projections.InputGradient(weights, directions, x)
            of_x.add(dz_)
            if came[0]:
                of_x.weight = by_direction(filled, directions, 0)
                of_x.add(dz, to_itself=True)
            g_x = of_x.result
        of_weights.add(dz_, states, h0, x, layer.lengths, with_bias=True)
        of_weights.add(dz, h_, v_h0, v_x, layer.lengths, with_bias=False)
    return (
        h_.flatten(2) if wanted[0] else absent,
        h_last_ if wanted[1] else absent,
        c_last_.to(x.dtype) if wanted[2] else absent,
        g_x,
        n_.to(x.dtype) if wanted[4] else absent,
        e_.to(x.dtype) if wanted[5] else absent,
        of_weights.results(),
    )


def _tangent_of_z(
    layer: _Layer,
    v_x: Tensor | None,
    v_weights: Sequence[Tensor],
    came: Sequence[bool],
    y: Tensor,
    h0: Tensor,
    dz: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """The tangent of z without the share of h_{t-1}'s, and dz times the cotangent of weight_hh."""
    directions, dtype = layer.directions, layer.saved
    z_, extra = layer.empty(layer.total, 4, dtype).zero_() if v_x is None else None, None
    if v_x is not None:
        z_ = projections.project(v_x, by_direction(layer.weights, directions, 0), dtype)
    if came[0]:
        z_ += projections.project(layer.x, by_direction(v_weights, directions, 0), dtype)
    if came[1]:
        v_hh = by_direction(v_weights, directions, 1)
        before = projections.before(y, h0, layer.lengths)
        z_ += projections.project_states(before, v_hh.transpose(1, 2), dtype)
        extra = projections.project_states(dz, v_hh, dtype)
    for kind in range(2, len(came)):
        if came[kind]:
            z_ += by_direction(v_weights, directions, kind).to(dtype)
    return z_, extra


def _default(x: Tensor, h0: Tensor) -> str:
    """For a call of an operator that names no implementation."""
    is_served = "triton" in backends.serving("lstm", x.device, x.dtype)
    return "triton" if is_served and fit.why_not("triton", x, h0.size(2)) is None else "cell"

"""The LSTM's operators on a GPU: the recurrent steps of an implementation, with the products that
are parallel in time around them.

"triton" and "cuda" walk through all steps in one launch; "cell" has a product and a kernel for each
step. Each can read what another one has saved.

Memory: the pre-activations become the saved gates in place, and a backward that is not itself
recorded makes dz for some steps at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from ganlstm_fast.ops import backends
from ganlstm_fast.ops.lstm import fit, operators, projections
from ganlstm_fast.ops.lstm.operators import (
    BackwardArguments,
    BackwardSteps,
    DoubleBackwardArguments,
    ForwardArguments,
    ForwardSteps,
    TangentBackwardSteps,
    TangentForwardSteps,
    Wanted,
    WantedAgain,
    saved_dtype,
)
from ganlstm_fast.ops.lstm.projections import allows_tf32, by_direction, precision_of_lstm
from ganlstm_fast.ops.registry import Operator

Steps = TypeVar("Steps", ForwardSteps, BackwardSteps, TangentForwardSteps, TangentBackwardSteps)

# Elements of a buffer that holds some of the steps at a time: 64 MiB in float32.
PART = 2**24


def _walk(operator: Operator[Steps, None], a: Steps) -> None:
    """Run the steps of a pass by ``a.impl``, in place."""
    if a.impl == "triton":
        operator.triton(a)
    else:
        operator(a)


def _parts(total: int, size: int) -> list[tuple[int, int]]:
    """(first, steps) of each part."""
    return [(first, min(size, total - first)) for first in range(0, total, size)]


def _part_size(x: Tensor, h0: Tensor) -> int:
    return max(1, PART // max(1, 4 * h0.numel()))


class _Layer:
    """The sizes and weights of a call."""

    def __init__(self, a: ForwardArguments | BackwardArguments | DoubleBackwardArguments) -> None:
        self.x, self.weights = a.x, a.weights
        self.impl = a.impl or _default(a.x, a.h0)
        self.total = a.x.size(0)
        self.directions, self.batch, self.hidden = a.h0.shape
        self.lengths = None if a.lengths is None else a.lengths.to(a.x.device)
        self.saved = saved_dtype(a.x)
        self.tf32 = allows_tf32(a.x)
        self.weight_hh = by_direction(a.weights, self.directions, 1)
        self.has_bias = len(a.weights) > 2 * self.directions

    @cached_property
    def bias(self) -> Tensor | None:
        if not self.has_bias:
            return None
        first, second = (by_direction(self.weights, self.directions, kind) for kind in (2, 3))
        return first.to(self.saved) + second.to(self.saved)

    def empty(self, steps: int, gates: int, dtype: torch.dtype) -> Tensor:
        sizes = (steps, self.batch, self.directions, gates * self.hidden)
        return self.x.new_empty(sizes, dtype=dtype)

    def carried(self, state: Tensor | None) -> Tensor:
        """A copy of a state, or zeros for None. The steps change it in place."""
        if state is None:
            return self.x.new_zeros(self.directions, self.batch, self.hidden, dtype=self.saved)
        return state.to(self.saved, copy=True)

    def project(self, first: int, steps: int) -> Tensor:
        weight_ih = by_direction(self.weights, self.directions, 0)
        return projections.project(self.x, weight_ih, self.saved, first, steps)

    def walk_forward(
        self,
        z: Tensor,
        first: int,
        h: Tensor,
        c: Tensor,
        y: Tensor,
        gates: Tensor | None,
        c_all: Tensor | None,
    ) -> None:
        """The steps from ``first`` on of the forward, in place."""
        walk = ForwardSteps(
            z=z,
            bias=self.bias,
            weight_hh=self.weight_hh,
            lengths=self.lengths,
            first=first,
            total=self.total,
            h=h,
            c=c,
            y=y,
            gates=gates,
            c_all=c_all,
            tf32=self.tf32,
            impl=self.impl,
        )
        _walk(operators.lstm_forward_steps, walk)


@operators.lstm_forward.on_gpu
def lstm_forward(a: ForwardArguments) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The operator ``ganlstm_fast::lstm_forward``."""
    layer = _Layer(a)
    keeps_all = a.save and a.window == 0
    y = layer.empty(layer.total, 1, a.x.dtype)
    h, c = a.h0.clone(), layer.carried(a.c0)
    c_all, windows, gates = None, [], a.x.new_empty(0, dtype=layer.saved)
    if keeps_all:
        c_all, size = layer.empty(layer.total, 1, layer.saved), layer.total
    else:
        size = a.window if a.save else _part_size(a.x, a.h0)
    with precision_of_lstm(a.x):
        for first, steps in _parts(layer.total, size):
            if a.save and first > 0:
                windows.append(c.clone())
            z = layer.project(first, steps)
            gates = z if keeps_all else gates
            layer.walk_forward(z, first, h, c, y, z if keeps_all else None, c_all)
    if c_all is None and a.save:
        c_all = torch.stack(windows) if windows else c.new_empty(0, *c.shape)
    elif c_all is None:
        c_all = c.new_empty(0)
    return y.flatten(2), h, c.to(a.x.dtype), gates, c_all


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
    y_again = layer.empty(steps, 1, y.dtype)
    layer.walk_forward(z, first, h, c_before.clone(), y_again, z, c_all)
    return z, c_all


@operators.lstm_backward.on_gpu
def lstm_backward(
    a: BackwardArguments,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor], Tensor, Tensor]:
    """The operator ``ganlstm_fast::lstm_backward``."""
    layer, x, save, window = _Layer(a), a.x, a.save, a.window
    gates, c = a.gates, a.c
    if window > 0 and save:
        forward = ForwardArguments(x, a.weights, a.h0, a.c0, a.lengths, save=True, impl=layer.impl)
        _, _, _, gates, c = lstm_forward(forward)
        window = 0
    total, directions, wanted = layer.total, layer.directions, Wanted(*a.wanted)
    states = (total, layer.batch, directions, layer.hidden)
    y = a.y.view(states)
    grad_y = None if a.grad_y is None else a.grad_y.view(states)
    n, e = layer.carried(a.grad_h_last), layer.carried(a.grad_c_last)
    start = a.c0.to(layer.saved)
    size = total if save else window or _part_size(x, a.h0)
    of_x = projections.InputGradient(a.weights, directions, x) if wanted.x else None
    of_weights = projections.WeightGradients(
        a.weights, directions, (wanted.weight_ih, wanted.weight_hh, wanted.bias), total
    )
    d = layer.empty(total, 1, layer.saved) if save else None
    dz = x.new_empty(0)
    with precision_of_lstm(x):
        for first, steps in reversed(_parts(total, size)):
            c_before = c[first // window - 1] if window > 0 and first > 0 else start
            part_gates, part_c = gates, c
            if window > 0:
                part_gates, part_c = _window_gates(layer, y, a.h0, c_before, first, steps)
            if dz.size(0) != steps:
                dz = layer.empty(steps, 4, x.dtype)
            walk = BackwardSteps(
                grad_y=grad_y,
                weight_hh=layer.weight_hh,
                lengths=layer.lengths,
                first=first,
                total=total,
                c_before=c_before,
                gates=part_gates,
                c_all=part_c,
                n=n,
                e=e,
                dz=dz,
                d=d,
                tf32=layer.tf32,
                impl=layer.impl,
            )
            _walk(operators.lstm_backward_steps, walk)
            if of_x is not None:
                of_x.add(dz, first)
            of_weights.add(dz, y, a.h0, x, layer.lengths, True, first)
    absent = x.new_empty(0)
    return (
        absent if of_x is None else of_x.result,
        n.to(x.dtype) if wanted.h0 else absent,
        e.to(x.dtype) if wanted.c0 else absent,
        of_weights.results(),
        dz if save else absent,
        absent.to(layer.saved) if d is None else d,
    )


@operators.lstm_double_backward.on_gpu
def lstm_double_backward(
    a: DoubleBackwardArguments,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    """The operator ``ganlstm_fast::lstm_double_backward``."""
    layer, x, weights, wanted = _Layer(a), a.x, a.weights, WantedAgain(*a.wanted)
    directions = layer.directions
    per_direction = len(weights) // directions
    came = [
        any(v is not None for v in a.v_weights[kind::per_direction])
        for kind in range(per_direction)
    ]
    filled = [
        torch.zeros_like(w) if v is None else v for v, w in zip(a.v_weights, weights, strict=True)
    ]
    states = a.y.view(a.c.shape)
    h_last_ = torch.zeros_like(a.h0) if a.v_h0 is None else a.v_h0.clone()
    c_last_, n_ = layer.carried(a.v_c0), layer.carried(None)
    e, e_ = layer.carried(a.grad_c_last), layer.carried(None)
    start, start_ = a.c0.to(layer.saved), layer.carried(a.v_c0)
    h_, c_ = torch.empty_like(states), torch.empty_like(a.c)
    g_x = absent = x.new_empty(0)
    of_weights = projections.WeightGradients(
        weights, directions, (wanted.weight_ih, wanted.weight_hh, wanted.bias), layer.total
    )
    with precision_of_lstm(x):
        z_, extra = _tangent_of_z(layer, a.v_x, filled, came, states, a.h0, a.dz)
        # z_ becomes the tangent of the gates in place.
        forward = TangentForwardSteps(
            z_=z_,
            weight_hh=layer.weight_hh,
            lengths=layer.lengths,
            c_before=start,
            gates=a.gates,
            c_all=a.c,
            h_=h_last_,
            c_=c_last_,
            y_=h_,
            gates_=z_,
            c_all_=c_,
            tf32=layer.tf32,
            impl=layer.impl,
        )
        _walk(operators.lstm_tangent_forward_steps, forward)
        dz_ = z_ if x.dtype == layer.saved else torch.empty_like(a.dz)
        backward = TangentBackwardSteps(
            extra=extra,
            weight_hh=layer.weight_hh,
            lengths=layer.lengths,
            c_before=start,
            c_before_=start_,
            gates=a.gates,
            c_all=a.c,
            d=a.d,
            gates_=z_,
            c_all_=c_,
            n_=n_,
            e=e,
            e_=e_,
            dz_=dz_,
            tf32=layer.tf32,
            impl=layer.impl,
        )
        _walk(operators.lstm_tangent_backward_steps, backward)
        if wanted.x:
            of_x = projections.InputGradient(weights, directions, x)
            of_x.add(dz_)
            if came[0]:
                of_x.weight = by_direction(filled, directions, 0)
                of_x.add(a.dz, to_itself=True)
            g_x = of_x.result
        of_weights.add(dz_, states, a.h0, x, layer.lengths, with_bias=True)
        of_weights.add(a.dz, h_, a.v_h0, a.v_x, layer.lengths, with_bias=False)
    return (
        h_.flatten(2) if wanted.grad_y else absent,
        h_last_ if wanted.grad_h_last else absent,
        c_last_.to(x.dtype) if wanted.grad_c_last else absent,
        g_x,
        n_.to(x.dtype) if wanted.h0 else absent,
        e_.to(x.dtype) if wanted.c0 else absent,
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
    """The tangent of z without the term of h_{t-1}'s tangent; dz times weight_hh's cotangent."""
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
    """The implementation for a call of the operator that names none."""
    is_served = "triton" in backends.serving("lstm", x.device, x.dtype)
    return "triton" if is_served and fit.why_not("triton", x, h0.size(2)) is None else "cell"

"""The LSTM's operators: arguments, and results for tensors without data.

The contract of each, with shapes, is in ``ganlstm_fast.ops.schemas``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ganlstm_fast.ops.registry import operator


class ForwardArguments(NamedTuple):
    x: Tensor
    weights: Sequence[Tensor]
    h0: Tensor
    c0: Tensor
    lengths: Tensor | None
    save: bool
    window: int = 0
    impl: str = ""


class Wanted(NamedTuple):
    """Which gradients a backward is asked for; those of both directions come together."""

    x: bool
    h0: bool
    c0: bool
    weight_ih: bool
    weight_hh: bool
    bias: bool


class BackwardArguments(NamedTuple):
    grad_y: Tensor | None
    grad_h_last: Tensor | None
    grad_c_last: Tensor | None
    x: Tensor
    weights: Sequence[Tensor]
    h0: Tensor
    c0: Tensor
    lengths: Tensor | None
    y: Tensor
    gates: Tensor
    c: Tensor
    wanted: Sequence[bool]  # as Wanted
    save: bool
    window: int = 0
    impl: str = ""


class WantedAgain(NamedTuple):
    """Which gradients a double backward is asked for."""

    grad_y: bool
    grad_h_last: bool
    grad_c_last: bool
    x: bool
    h0: bool
    c0: bool
    weight_ih: bool
    weight_hh: bool
    bias: bool


class DoubleBackwardArguments(NamedTuple):
    v_x: Tensor | None
    v_h0: Tensor | None
    v_c0: Tensor | None
    v_weights: Sequence[Tensor | None]
    grad_c_last: Tensor | None
    x: Tensor
    weights: Sequence[Tensor]
    h0: Tensor
    c0: Tensor
    lengths: Tensor | None
    y: Tensor
    gates: Tensor
    c: Tensor
    dz: Tensor
    d: Tensor
    wanted: Sequence[bool]  # as WantedAgain
    impl: str = ""


class ForwardSteps(NamedTuple):
    z: Tensor
    bias: Tensor | None
    weight_hh: Tensor
    lengths: Tensor | None
    first: int
    total: int
    h: Tensor
    c: Tensor
    y: Tensor
    gates: Tensor | None
    c_all: Tensor | None
    tf32: bool
    impl: str


class BackwardSteps(NamedTuple):
    grad_y: Tensor | None
    weight_hh: Tensor
    lengths: Tensor | None
    first: int
    total: int
    c_before: Tensor
    gates: Tensor
    c_all: Tensor
    n: Tensor
    e: Tensor
    dz: Tensor
    d: Tensor | None
    tf32: bool
    impl: str


class TangentForwardSteps(NamedTuple):
    z_: Tensor
    weight_hh: Tensor
    lengths: Tensor | None
    c_before: Tensor
    gates: Tensor
    c_all: Tensor
    h_: Tensor
    c_: Tensor
    y_: Tensor
    gates_: Tensor
    c_all_: Tensor
    tf32: bool
    impl: str


class TangentBackwardSteps(NamedTuple):
    extra: Tensor | None
    weight_hh: Tensor
    lengths: Tensor | None
    c_before: Tensor
    c_before_: Tensor
    gates: Tensor
    c_all: Tensor
    d: Tensor
    gates_: Tensor
    c_all_: Tensor
    n_: Tensor
    e: Tensor
    e_: Tensor
    dz_: Tensor
    tf32: bool
    impl: str


def saved_dtype(x: Tensor) -> torch.dtype:
    """The dtype of gates and states that one pass saves for the next."""
    return torch.float32 if x.dtype.itemsize == 2 else x.dtype


def _steps_like(x: Tensor, h0: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """gates, in a dtype, and c of all steps; dz and d have the same shapes."""
    directions, batch, hidden = h0.shape
    states = (x.size(0), batch, directions)
    c = x.new_empty(*states, hidden, dtype=saved_dtype(x))
    return x.new_empty(*states, 4 * hidden, dtype=dtype), c


def _wanted_like(tensors: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor]:
    return [t.new_empty(t.shape if want else (0,)) for t, want in zip(tensors, wanted, strict=True)]


def _weights_like(
    a: BackwardArguments | DoubleBackwardArguments, wanted: Wanted | WantedAgain
) -> list[Tensor]:
    directions = a.h0.size(0)
    kinds = (wanted.weight_ih, wanted.weight_hh, wanted.bias, wanted.bias)
    return _wanted_like(a.weights, kinds[: len(a.weights) // directions] * directions)


@operator(ForwardArguments)
def lstm_forward(a: ForwardArguments) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    directions, batch, hidden = a.h0.shape
    gates, c = _steps_like(a.x, a.h0, saved_dtype(a.x))
    if a.window > 0:
        c = c.new_empty((a.x.size(0) - 1) // a.window, *a.h0.shape)
    gates, c = _wanted_like((gates, c), (a.save and a.window == 0, a.save))
    y = a.x.new_empty(a.x.size(0), batch, directions * hidden)
    return y, a.h0.new_empty(a.h0.shape), a.c0.new_empty(a.c0.shape), gates, c


@operator(BackwardArguments)
def lstm_backward(
    a: BackwardArguments,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor], Tensor, Tensor]:
    wanted = Wanted(*a.wanted)
    inputs = (wanted.x, wanted.h0, wanted.c0)
    grad_x, grad_h0, grad_c0 = _wanted_like((a.x, a.h0, a.c0), inputs)
    dz, d = _wanted_like(_steps_like(a.x, a.h0, a.x.dtype), (a.save, a.save))
    return grad_x, grad_h0, grad_c0, _weights_like(a, wanted), dz, d


@operator(DoubleBackwardArguments)
def lstm_double_backward(a: DoubleBackwardArguments) -> tuple[Any, ...]:
    wanted = WantedAgain(*a.wanted)
    cotangents = (wanted.grad_y, wanted.grad_h_last, wanted.grad_c_last)
    inputs = (wanted.x, wanted.h0, wanted.c0)
    like = (a.y, a.h0, a.c0, a.x, a.h0, a.c0)
    return *_wanted_like(like, (*cotangents, *inputs)), _weights_like(a, wanted)


_TRITON = "ganlstm_fast.ops.lstm.triton_{}".format


@operator(ForwardSteps, triton=_TRITON("forward"))
def lstm_forward_steps(a: ForwardSteps) -> None:
    """In place."""


@operator(BackwardSteps, triton=_TRITON("backward"))
def lstm_backward_steps(a: BackwardSteps) -> None:
    """In place."""


@operator(TangentForwardSteps, triton=_TRITON("double_backward"))
def lstm_tangent_forward_steps(a: TangentForwardSteps) -> None:
    """In place."""


@operator(TangentBackwardSteps, triton=_TRITON("double_backward"))
def lstm_tangent_backward_steps(a: TangentBackwardSteps) -> None:
    """In place."""

"""The gradient penalty's operators: arguments, and results for tensors without data.

The contract of each, with shapes, is in ``ganlstm_fast.ops.schemas``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ganlstm_fast.ops.registry import operator


class InterpolateArguments(NamedTuple):
    real: Tensor | None
    fake: Tensor | None
    seed: Tensor
    impl: str = ""


class ForwardArguments(NamedTuple):
    grads: Sequence[Tensor]
    center: float
    one_sided: bool
    impl: str = ""


class BackwardArguments(NamedTuple):
    grad_value: Tensor
    grads: Sequence[Tensor]
    norms: Tensor
    center: float
    one_sided: bool
    impl: str = ""


class Wanted(NamedTuple):
    """Which gradients a double backward is asked for; those of the grads come together."""

    grad_value: bool
    grads: bool


class DoubleBackwardArguments(NamedTuple):
    v_grads: Sequence[Tensor | None]
    grad_value: Tensor
    grads: Sequence[Tensor]
    norms: Tensor
    center: float
    one_sided: bool
    wanted: Sequence[bool]  # as Wanted
    impl: str = ""


_GPU = ("cuda", "triton")
_TRITON = "ganlstm_fast.ops.gradient_penalty.triton_{}".format


@operator(InterpolateArguments, triton=_TRITON("forward"), overloads=_GPU)
def interpolate(a: InterpolateArguments) -> Tensor:
    return torch.empty_like(a.fake if a.real is None else a.real)  # type: ignore[arg-type]


@operator(ForwardArguments, triton=_TRITON("forward"), overloads=_GPU)
def penalty_forward(a: ForwardArguments) -> tuple[Tensor, Tensor]:
    first = a.grads[0]
    wide = torch.promote_types(first.dtype, torch.float32)
    return first.new_empty((), dtype=wide), first.new_empty(len(first), dtype=wide)


@operator(BackwardArguments, triton=_TRITON("backward"), overloads=_GPU)
def penalty_backward(a: BackwardArguments) -> list[Tensor]:
    return [torch.empty_like(grad) for grad in a.grads]


@operator(DoubleBackwardArguments, triton=_TRITON("double_backward"), overloads=_GPU)
def penalty_double_backward(a: DoubleBackwardArguments) -> tuple[Tensor, list[Tensor]]:
    wanted = Wanted(*a.wanted)
    # A result that is left out has the dtype of the gradients.
    g_value = torch.empty_like(a.grad_value) if wanted.grad_value else a.grads[0].new_empty(0)
    return g_value, [torch.empty_like(g) if wanted.grads else g.new_empty(0) for g in a.grads]

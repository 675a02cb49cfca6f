"""The spectral norm's operators: arguments, and results for tensors without data.

The contract of each, with shapes, is in ``ganlstm_fast.ops.schemas``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ganlstm_fast.ops.registry import operator


class ForwardArguments(NamedTuple):
    weights: Sequence[Tensor]
    u: Sequence[Tensor]
    v: Sequence[Tensor]
    dims: Sequence[int]
    n_power_iterations: int
    eps: float
    training: bool
    impl: str = ""


class UpdateArguments(NamedTuple):
    weights: Sequence[Tensor]
    u: Sequence[Tensor]
    v: Sequence[Tensor]
    dims: Sequence[int]
    n_power_iterations: int
    eps: float
    impl: str = ""


class BackwardArguments(NamedTuple):
    grads: Sequence[Tensor | None]
    normalized: Sequence[Tensor]
    vectors: Tensor
    dims: Sequence[int]
    eps: float
    impl: str = ""


class Wanted(NamedTuple):
    """Which gradients a double backward is asked for; those of all weights come together."""

    grads: bool
    weights: bool


class DoubleBackwardArguments(NamedTuple):
    v_weights: Sequence[Tensor | None]
    grads: Sequence[Tensor | None]
    normalized: Sequence[Tensor]
    vectors: Tensor
    inner: Tensor
    dims: Sequence[int]
    eps: float
    wanted: Sequence[bool]  # as Wanted
    impl: str = ""


def _outputs_like(a: ForwardArguments | UpdateArguments) -> tuple[list[Tensor], Tensor]:
    first = a.weights[0]
    size = sum(t.numel() + 1 for t in a.u) + sum(t.numel() for t in a.v)
    vectors = first.new_empty(size, dtype=torch.promote_types(first.dtype, torch.float32))
    return [w.new_empty(w.shape) for w in a.weights], vectors


def _empty_like(weights: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor]:
    return [w.new_empty(w.shape if want else (0,)) for w, want in zip(weights, wanted, strict=True)]


_GPU = ("cuda", "triton")
_TRITON = "ganlstm_fast.ops.spectral_norm.triton_{}".format


@operator(ForwardArguments, triton=_TRITON("forward"), overloads=_GPU)
def spectral_norm_forward(a: ForwardArguments) -> tuple[list[Tensor], Tensor]:
    return _outputs_like(a)


@operator(UpdateArguments, triton=_TRITON("forward"), overloads=_GPU)
def spectral_norm_forward_(a: UpdateArguments) -> tuple[list[Tensor], Tensor]:
    return _outputs_like(a)


@operator(BackwardArguments, triton=_TRITON("backward"), overloads=_GPU)
def spectral_norm_backward(a: BackwardArguments) -> tuple[list[Tensor], Tensor]:
    grad_weights = _empty_like(a.normalized, [grad is not None for grad in a.grads])
    return grad_weights, a.vectors.new_empty(len(a.normalized))


@operator(DoubleBackwardArguments, triton=_TRITON("double_backward"), overloads=_GPU)
def spectral_norm_double_backward(
    a: DoubleBackwardArguments,
) -> tuple[list[Tensor], list[Tensor]]:
    pairs = zip(a.v_weights, a.grads, strict=True)
    used = [v is not None and grad is not None for v, grad in pairs]
    g_grads, g_weights = (_empty_like(a.normalized, [u and w for u in used]) for w in a.wanted)
    return g_grads, g_weights

"""The autograd Functions of the gradient penalty.

``interpolate`` is linear in its samples and its own derivative, to any order. The penalty has three
orders, the last of which raises; they are laid out like those of the LSTM
(``ganlstm_fast.ops.lstm.autograd``), which says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ganlstm_fast.ops.functions import (
    Function,
    added,
    are_tensors,
    records,
    refuse_unless_linear,
    wanted_inputs,
)
from ganlstm_fast.ops.gradient_penalty import triton_ops  # noqa: F401  (defines operators)
from ganlstm_fast.ops.operators import Operators, register

THIRD_ORDER = (
    "ganlstm_fast: the fused penalty is differentiable twice, and a third derivative was asked "
    'for; use impl="reference", which is differentiable to any order'
)


def dense(tensor: Tensor) -> Tensor:
    """``tensor``, or a copy of it, with samples that are dense in memory."""
    if tensor.is_contiguous() or is_channels_last(tensor):
        return tensor
    return tensor.contiguous()


def is_channels_last(tensor: Tensor) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if tensor.dim() not in formats:
        return False
    return tensor.is_contiguous(memory_format=formats[tensor.dim()])


def dense_like(tensor: Tensor | None, other: Tensor) -> Tensor | None:
    """``tensor``, or a copy of it, with the strides of ``other``, which is dense."""
    if tensor is None or tensor.stride() == other.stride():
        return tensor
    if other.is_contiguous():
        return tensor.contiguous()
    return tensor.contiguous(
        memory_format=torch.channels_last if other.dim() == 4 else torch.channels_last_3d
    )


class InterpolateFunction(Function):
    """(kernels, real, fake, seed) -> points; real or fake may be None, which counts as zero."""

    @staticmethod
    def forward(
        kernels: Operators, real: Tensor | None, fake: Tensor | None, seed: Tensor
    ) -> Tensor:
        return kernels.interpolate(real, fake, seed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.kernels, *samples, seed = inputs
        ctx.present = [sample is not None for sample in samples]
        ctx.save_for_backward(seed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor | None, None]:
        (seed,) = ctx.saved_tensors
        _, wants_real, wants_fake, _ = wanted_inputs(ctx, [False, *ctx.present, True], 3)
        grad = dense(grad)
        of_real = _interpolate(ctx.kernels, grad, None, seed) if wants_real else None
        of_fake = _interpolate(ctx.kernels, None, grad, seed) if wants_fake else None
        return None, of_real, of_fake, None


def _interpolate(
    kernels: Operators, real: Tensor | None, fake: Tensor | None, seed: Tensor
) -> Tensor:
    if records(real, fake):
        return InterpolateFunction.apply(kernels, real, fake, seed)
    return kernels.interpolate(real, fake, seed)


def interpolate(real: Tensor, fake: Tensor, seed: Tensor, impl: str) -> Tensor:
    """The operator (see bindings.cpp) of an implementation, for tensors of any layout."""
    if not (real.is_contiguous() and fake.is_contiguous()):
        real = dense(real)
        fake = dense_like(fake, real)
    if torch.compiler.is_compiling():
        return KERNELS[impl].traced_interpolate(real, fake, seed)
    return _interpolate(KERNELS[impl], real, fake, seed)


class PenaltyFunction(Function):
    """(kernels, center, one_sided, *grads) -> value, norms."""

    @staticmethod
    def forward(
        kernels: Operators, center: float, one_sided: bool, *grads: Tensor
    ) -> tuple[Tensor, Tensor]:
        return kernels.penalty_forward(grads, center, one_sided)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.kernels, ctx.center, ctx.one_sided, *grads = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*grads, output[1])

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        *grads, norms = ctx.saved_tensors
        if grad_value is None:
            return (None,) * (3 + len(grads))
        options = (ctx.center, ctx.one_sided)
        if torch.is_grad_enabled():
            results = PenaltyBackwardFunction.apply(
                ctx.kernels, *options, norms, grad_value, *grads
            )
        else:
            results = ctx.kernels.penalty_backward(grad_value, grads, norms, *options)
        needs = ctx.needs_input_grad[3:]
        return None, None, None, *(r if n else None for r, n in zip(results, needs, strict=True))


class PenaltyBackwardFunction(Function):
    """(kernels, center, one_sided, norms, grad_value, *grads) -> the value's gradient for each."""

    @staticmethod
    def forward(
        kernels: Operators,
        center: float,
        one_sided: bool,
        norms: Tensor,
        grad_value: Tensor,
        *grads: Tensor,
    ) -> tuple[Tensor, ...]:
        return tuple(kernels.penalty_backward(grad_value, grads, norms, center, one_sided))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.kernels, ctx.center, ctx.one_sided, *tensors = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *v_grads: Tensor | None) -> tuple[Tensor | None, ...]:
        norms, grad_value, *grads = ctx.saved_tensors
        needs = wanted_inputs(ctx, [False] * 3 + [True] * (2 + len(grads)), 5)[4:]
        wanted = [needs[0], any(needs[1:])]
        if not any(wanted) or all(v is None for v in v_grads):
            return (None,) * (5 + len(grads))
        v_grads = [dense_like(v, g) for v, g in zip(v_grads, grads, strict=True)]
        apply = PenaltyDoubleBackwardFunction.forward
        if torch.is_grad_enabled():
            apply = PenaltyDoubleBackwardFunction.apply
        options = (ctx.kernels, ctx.center, ctx.one_sided, wanted, norms, grad_value)
        results = apply(*options, *v_grads, *grads)
        return *(None,) * 4, *(r if n else None for r, n in zip(results, needs, strict=True))


class PenaltyDoubleBackwardFunction(Function):
    """Second-order gradients as a node of the graph, so that a third order meets an error.

    (kernels, center, one_sided, wanted, norms, grad_value, *v_grads, *grads)
    -> g_grad_value, *g_grads.
    """

    @staticmethod
    def forward(
        kernels: Operators,
        center: float,
        one_sided: bool,
        wanted: list[bool],
        norms: Tensor,
        grad_value: Tensor,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        count = len(tensors) // 2
        options = (norms, center, one_sided, wanted)
        g_grad_value, g_grads = kernels.penalty_double_backward(
            tensors[:count], grad_value, tensors[count:], *options
        )
        return g_grad_value, *g_grads

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.kernels, ctx.center, ctx.one_sided, _, norms, grad_value, *tensors = inputs
        ctx.are_tensors = are_tensors(inputs)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(norms, grad_value, *tensors[len(tensors) // 2 :])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        norms, grad_value, *grads = ctx.saved_tensors
        count = len(grads)
        linear = range(6, 6 + count)
        needs = refuse_unless_linear(ctx, ctx.are_tensors, linear, THIRD_ORDER)[6 : 6 + count]
        w_value, *w_grads = cotangents
        found: Sequence[Tensor | None] = [None] * count
        options = (ctx.kernels, ctx.center, ctx.one_sided)
        if w_value is not None:
            found = PenaltyBackwardFunction.apply(*options, norms, w_value, *grads)
        if any(w is not None for w in w_grads):
            w_grads = [dense_like(w, g) for w, g in zip(w_grads, grads, strict=True)]
            outputs = PenaltyDoubleBackwardFunction.apply(
                *options, [False, True], norms, grad_value, *w_grads, *grads
            )
            found = [added(a, b) for a, b in zip(found, outputs[1:], strict=True)]
        found = [f if need else None for f, need in zip(found, needs, strict=True)]
        return *(None,) * 6, *found, *(None,) * count


def _penalty(
    kernels: Operators, grads: Sequence[Tensor], center: float, one_sided: bool
) -> tuple[Tensor, Tensor]:
    if records(*grads):
        return PenaltyFunction.apply(kernels, center, one_sided, *grads)
    return kernels.penalty_forward(grads, center, one_sided)


def penalty(grads: Sequence[Tensor], center: float, one_sided: bool, impl: str) -> Tensor:
    """The operator's value by an implementation, for tensors of any layout."""
    grads = [dense(grad) for grad in grads]
    if torch.compiler.is_compiling():
        return KERNELS[impl].traced_penalty_forward(grads, center, one_sided)[0]
    return _penalty(KERNELS[impl], grads, center, one_sided)[0]


def _interpolate_fake(real: Tensor | None, fake: Tensor | None, seed: Tensor) -> Tensor:
    return torch.empty_like(fake if real is None else real)


def _penalty_fake(grads: list[Tensor], center: float, one_sided: bool) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(grads[0].dtype, torch.float32)
    return grads[0].new_empty((), dtype=wide), grads[0].new_empty(len(grads[0]), dtype=wide)


# The first is kept for the life of the process.
_library, KERNELS = register(
    ("interpolate", "penalty_forward", "penalty_backward", "penalty_double_backward"),
    {
        "interpolate": (_interpolate, _interpolate_fake),
        "penalty_forward": (_penalty, _penalty_fake),
    },
)

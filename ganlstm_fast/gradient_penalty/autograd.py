"""The autograd Functions of the gradient penalty.

``interpolate`` is linear in its samples and its own derivative, to any order. The penalty has three
orders, the last of which raises; they are laid out like those of the LSTM
(``ganlstm_fast.lstm.autograd``), which says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ganlstm_fast import backends
from ganlstm_fast.functions import Function, records, wanted_inputs

_ops = torch.ops.ganlstm_fast

THIRD_ORDER = (
    "ganlstm_fast: the fused penalty is differentiable twice, and a third derivative was asked "
    'for; use impl="reference", which is differentiable to any order'
)


def _kernel(name: str, *arguments: Any) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return getattr(_ops, name).default(*arguments)


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
    """(real, fake, seed) -> points; real or fake may be None, which counts as zero."""

    @staticmethod
    def forward(real: Tensor | None, fake: Tensor | None, seed: Tensor) -> Tensor:
        return _kernel("interpolate", real, fake, seed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.present = [sample is not None for sample in inputs[:2]]
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (seed,) = ctx.saved_tensors
        wants_real, wants_fake, _ = wanted_inputs(ctx, [*ctx.present, True], 2)
        grad = dense(grad)
        return (
            _interpolate_autograd(grad, None, seed) if wants_real else None,
            _interpolate_autograd(None, grad, seed) if wants_fake else None,
            None,
        )


def interpolate(real: Tensor, fake: Tensor, seed: Tensor) -> Tensor:
    """The operator (see bindings.cpp), for tensors of any layout."""
    if not (real.is_contiguous() and fake.is_contiguous()):
        real = dense(real)
        fake = dense_like(fake, real)
    if torch.compiler.is_compiling():
        return _ops.interpolate(real, fake, seed)
    return _interpolate_autograd(real, fake, seed)


class PenaltyFunction(Function):
    """(center, one_sided, *grads) -> value, norms."""

    @staticmethod
    def forward(center: float, one_sided: bool, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return _kernel("penalty_forward", grads, center, one_sided)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.center, ctx.one_sided, *grads = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*grads, output[1])

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        *grads, norms = ctx.saved_tensors
        if grad_value is None:
            return (None,) * (2 + len(grads))
        options = (ctx.center, ctx.one_sided)
        if torch.is_grad_enabled():
            results = PenaltyBackwardFunction.apply(*options, norms, grad_value, *grads)
        else:
            results = _kernel("penalty_backward", grad_value, grads, norms, *options)
        needs = ctx.needs_input_grad[2:]
        return None, None, *(r if n else None for r, n in zip(results, needs, strict=True))


class PenaltyBackwardFunction(Function):
    """(center, one_sided, norms, grad_value, *grads) -> the value's gradient for each."""

    @staticmethod
    def forward(
        center: float, one_sided: bool, norms: Tensor, grad_value: Tensor, *grads: Tensor
    ) -> tuple[Tensor, ...]:
        return tuple(_kernel("penalty_backward", grad_value, grads, norms, center, one_sided))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.center, ctx.one_sided, *tensors = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *v_grads: Tensor | None) -> tuple[Tensor | None, ...]:
        norms, grad_value, *grads = ctx.saved_tensors
        needs = wanted_inputs(ctx, [False, False] + [True] * (2 + len(grads)), 4)[3:]
        wanted = [needs[0], any(needs[1:])]
        if not any(wanted) or all(v is None for v in v_grads):
            return (None,) * (4 + len(grads))
        v_grads = [dense_like(v, g) for v, g in zip(v_grads, grads, strict=True)]
        apply = PenaltyDoubleBackwardFunction.forward
        if torch.is_grad_enabled():
            apply = PenaltyDoubleBackwardFunction.apply
        options = (ctx.center, ctx.one_sided, wanted, norms, grad_value)
        results = apply(*options, *v_grads, *grads)
        return None, None, None, *(r if n else None for r, n in zip(results, needs, strict=True))


class PenaltyDoubleBackwardFunction(Function):
    """Second-order gradients as a node of the graph, so that a third order meets an error.

    (center, one_sided, wanted, norms, grad_value, *v_grads, *grads) -> g_grad_value, *g_grads.
    """

    @staticmethod
    def forward(
        center: float,
        one_sided: bool,
        wanted: list[bool],
        norms: Tensor,
        grad_value: Tensor,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        count = len(tensors) // 2
        g_grad_value, g_grads = _kernel(
            "penalty_double_backward",
            *(tensors[:count], grad_value, tensors[count:], norms, center, one_sided, wanted),
        )
        return g_grad_value, *g_grads

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Tensor | None) -> None:
        raise RuntimeError(THIRD_ORDER)


def penalty(grads: Sequence[Tensor], center: float, one_sided: bool) -> Tensor:
    """The operator's value, for tensors of any layout."""
    grads = [dense(grad) for grad in grads]
    if torch.compiler.is_compiling():
        return _ops.penalty_forward(grads, center, one_sided)[0]
    return _penalty_autograd(grads, center, one_sided)[0]


def _interpolate_autograd(real: Tensor | None, fake: Tensor | None, seed: Tensor) -> Tensor:
    if records(real, fake):
        return InterpolateFunction.apply(real, fake, seed)
    return _kernel("interpolate", real, fake, seed)


def _penalty_autograd(
    grads: Sequence[Tensor], center: float, one_sided: bool
) -> tuple[Tensor, Tensor]:
    if records(*grads):
        return PenaltyFunction.apply(center, one_sided, *grads)
    return _kernel("penalty_forward", grads, center, one_sided)


def _interpolate_fake(real: Tensor | None, fake: Tensor | None, seed: Tensor) -> Tensor:
    return torch.empty_like(fake if real is None else real)


def _penalty_fake(grads: list[Tensor], center: float, one_sided: bool) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(grads[0].dtype, torch.float32)
    return grads[0].new_empty((), dtype=wide), grads[0].new_empty(len(grads[0]), dtype=wide)


def _register() -> torch.library.Library:
    library = torch.library.Library("ganlstm_fast", "IMPL")
    library.impl("interpolate", _interpolate_autograd, "Autograd")
    library.impl("penalty_forward", _penalty_autograd, "Autograd")
    torch.library.register_fake("ganlstm_fast::interpolate", _interpolate_fake, lib=library)
    torch.library.register_fake("ganlstm_fast::penalty_forward", _penalty_fake, lib=library)
    return library


# Kept for the life of the process: the registrations end with the object.
_library = _register() if backends.is_loaded("cpu") else None

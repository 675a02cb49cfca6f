"""The autograd Functions of the gradient penalty.

``interpolate`` is linear in its samples and its own derivative, to any order. The penalty has three
orders; the last one raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ganlstm_fast.ops.functions import (
    Function,
    Layout,
    SecondOrder,
    all_added,
    are_tensors,
    double_backward,
    if_wanted,
    records,
    wanted_inputs,
)
from ganlstm_fast.ops.gradient_penalty import operators
from ganlstm_fast.ops.gradient_penalty.operators import (
    BackwardArguments,
    DoubleBackwardArguments,
    ForwardArguments,
    InterpolateArguments,
    Wanted,
)

INTERPOLATE = Layout(InterpolateArguments)
FORWARD = Layout(ForwardArguments, "grads")
BACKWARD = Layout(BackwardArguments, "grads")
DOUBLE_BACKWARD = Layout(DoubleBackwardArguments, "v_grads", "grads")


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
    """``InterpolateArguments`` -> points; real or fake may be None, which counts as zero."""

    @staticmethod
    def forward(*flat: Any) -> Tensor:
        return operators.interpolate(INTERPOLATE.of(flat))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        a = INTERPOLATE.of(inputs)
        ctx.impl = a.impl
        ctx.are_tensors = are_tensors(inputs)
        ctx.save_for_backward(a.seed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (seed,) = ctx.saved_tensors
        needs = wanted_inputs(ctx, INTERPOLATE)
        grad = dense(grad)
        a = InterpolateArguments(None, None, seed, ctx.impl)
        return INTERPOLATE.gradients(
            0,
            real=_interpolate(a._replace(real=grad)) if needs.real else None,
            fake=_interpolate(a._replace(fake=grad)) if needs.fake else None,
        )


@operators.interpolate.differentiate
def _recorded_interpolate(a: InterpolateArguments) -> Tensor:
    return InterpolateFunction.apply(*a)


def _interpolate(a: InterpolateArguments) -> Tensor:
    if records(a.real, a.fake):
        return InterpolateFunction.apply(*a)
    return operators.interpolate(a)


def interpolate(real: Tensor, fake: Tensor, seed: Tensor, impl: str) -> Tensor:
    """The operator for tensors of any layout."""
    if not (real.is_contiguous() and fake.is_contiguous()):
        real = dense(real)
        fake = dense_like(fake, real)
    a = InterpolateArguments(real, fake, seed, impl)
    return operators.interpolate.dispatch(a) if torch.compiler.is_compiling() else _interpolate(a)


class PenaltyFunction(Function):
    """``ForwardArguments``, flat -> value, norms."""

    @staticmethod
    def forward(*flat: Any) -> tuple[Tensor, Tensor]:
        return operators.penalty_forward(FORWARD.of(flat))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        a = FORWARD.of(inputs)
        ctx.options = {"center": a.center, "one_sided": a.one_sided, "impl": a.impl}
        _, norms = output
        ctx.mark_non_differentiable(norms)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*a.grads, norms)

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        *grads, norms = ctx.saved_tensors
        if grad_value is None:
            return FORWARD.gradients(len(grads))
        a = BackwardArguments(grad_value, grads, norms, **ctx.options)
        if torch.is_grad_enabled():
            results = PenaltyBackwardFunction.apply(*BACKWARD.flat(a))
        else:
            results = operators.penalty_backward(a)
        needs = FORWARD.of(ctx.needs_input_grad)
        return FORWARD.gradients(len(grads), grads=if_wanted(results, needs.grads))


class PenaltyBackwardFunction(Function):
    """``BackwardArguments``, flat -> the value's gradient for each of the grads."""

    @staticmethod
    def forward(*flat: Any) -> tuple[Tensor, ...]:
        return tuple(operators.penalty_backward(BACKWARD.of(flat)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        a = BACKWARD.of(inputs)
        ctx.options = {"center": a.center, "one_sided": a.one_sided, "impl": a.impl}
        ctx.set_materialize_grads(False)
        ctx.are_tensors = are_tensors(inputs)
        ctx.save_for_backward(a.norms, a.grad_value, *a.grads)

    @staticmethod
    def backward(ctx: Any, *v_grads: Tensor | None) -> tuple[Tensor | None, ...]:
        norms, grad_value, *grads = ctx.saved_tensors
        needs = wanted_inputs(ctx, BACKWARD)
        wanted = Wanted(needs.grad_value, any(needs.grads))
        if not any(wanted) or all(v is None for v in v_grads):
            return BACKWARD.gradients(len(grads))
        a = DoubleBackwardArguments(
            v_grads=[dense_like(v, g) for v, g in zip(v_grads, grads, strict=True)],
            grad_value=grad_value,
            grads=grads,
            norms=norms,
            wanted=wanted,
            **ctx.options,
        )
        g_grad_value, *g_grads = double_backward(SECOND_ORDER, a)
        return BACKWARD.gradients(
            len(grads),
            grad_value=g_grad_value if needs.grad_value else None,
            grads=if_wanted(g_grads, needs.grads),
        )


def _run_double_backward(a: DoubleBackwardArguments) -> tuple[Tensor, ...]:
    g_grad_value, g_grads = operators.penalty_double_backward(a)
    return g_grad_value, *g_grads


def _transposed(
    a: DoubleBackwardArguments,
    cotangents: Sequence[Tensor | None],
    needs: DoubleBackwardArguments,
    unread: Sequence[Tensor | None],
) -> dict[str, Any]:
    """See ``SecondOrder.transposed``."""
    w_value, *w_grads = cotangents
    found: Sequence[Tensor | None] = [None] * len(a.grads)
    if w_value is not None:
        backward = BackwardArguments(
            w_value, a.grads, a.norms, center=a.center, one_sided=a.one_sided, impl=a.impl
        )
        found = PenaltyBackwardFunction.apply(*BACKWARD.flat(backward))
    if any(w is not None for w in w_grads):
        again = a._replace(
            v_grads=[dense_like(w, g) for w, g in zip(w_grads, a.grads, strict=True)],
            wanted=Wanted(grad_value=False, grads=True),
        )
        _, *g_grads = double_backward(SECOND_ORDER, again)
        found = all_added(found, g_grads)
    return {"v_grads": if_wanted(found, needs.v_grads)}


SECOND_ORDER = SecondOrder(
    what="penalty",
    layout=DOUBLE_BACKWARD,
    linear=("v_grads",),
    run=_run_double_backward,
    transposed=_transposed,
)


@operators.penalty_forward.differentiate
def _recorded_penalty(a: ForwardArguments) -> tuple[Tensor, Tensor]:
    return PenaltyFunction.apply(*FORWARD.flat(a))


def penalty(grads: Sequence[Tensor], center: float, one_sided: bool, impl: str) -> Tensor:
    """The operator's value, for tensors of any layout."""
    a = ForwardArguments([dense(grad) for grad in grads], center, one_sided, impl)
    if torch.compiler.is_compiling():
        value, _ = operators.penalty_forward.dispatch(a)
    elif records(*a.grads):
        value, _ = PenaltyFunction.apply(*FORWARD.flat(a))
    else:
        value, _ = operators.penalty_forward(a)
    return value

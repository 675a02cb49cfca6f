"""Gradient penalties of GAN critics, right to second order.

==================  =============================  ==================================  ============
kind                where the gradient is taken    value                               source
==================  =============================  ==================================  ============
``wgan-gp``         between real and fake          lambda E[(||g|| - 1)^2]             [1]
``wgan-lp``         between real and fake          lambda E[max(0, ||g|| - 1)^2]       [2]
``r1``              real                           lambda / 2 E[||g||^2]               [3]
``r2``              fake                           lambda / 2 E[||g||^2]               [3]
``dragan``          real + noise                   lambda E[(||g|| - 1)^2]             [4]
``zero-centered``   between real and fake          lambda E[||g||^2]                   [5]
==================  =============================  ==================================  ============

``g`` is the gradient of a sample's score with respect to that sample, ``||g||`` its Euclidean norm
over everything but the batch, ``E`` the mean over the batch. "Between real and fake" is
``a real + (1 - a) fake`` with one ``a`` uniform in [0, 1) for each sample.

[1] Gulrajani et al., Improved Training of Wasserstein GANs, 2017. [2] Petzka et al., On the
Regularization of Wasserstein GANs, 2018. [3] Mescheder et al., Which Training Methods for GANs do
actually Converge?, 2018. [4] Kodali et al., On Convergence and Stability of GANs, 2017.
[5] Thanh-Tung et al., Improving Generalization and Stability of Generative Adversarial Networks,
2019.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ganlstm_fast.ops.backends import second_order_ahead
from ganlstm_fast.ops.gradient_penalty.function import (
    Samples,
    all_between,
    as_tuple,
    check_alike,
    penalty_of,
)
from ganlstm_fast.ops.validation import check_number, describe

__all__ = ["KINDS", "gradient_penalty"]


@dataclass(frozen=True)
class _Kind:
    """A row of the table above. ``points``: between, real, fake or noisy."""

    points: str
    center: float = 1.0
    one_sided: bool = False
    factor: float = 1.0


KINDS: dict[str, _Kind] = {
    "wgan-gp": _Kind("between"),
    "wgan-lp": _Kind("between", one_sided=True),
    "r1": _Kind("real", center=0.0, factor=0.5),
    "r2": _Kind("fake", center=0.0, factor=0.5),
    "dragan": _Kind("noisy"),
    "zero-centered": _Kind("between", center=0.0),
}


# The dtype of norms, and of scaled gradients.
_WIDE = torch.float32


def _noisy(
    real: tuple[Tensor, ...],
    masks: Sequence[Tensor | None],
    noise: float,
    generator: torch.Generator | None,
) -> tuple[Tensor, ...]:
    points = []
    for x, mask in zip(real, masks, strict=True):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        delta = torch.empty_like(wide, memory_format=torch.contiguous_format)
        delta.normal_(generator=generator)
        points.append((wide + noise * _spread(wide, mask) * delta).to(x.dtype))
    return tuple(points)


def _spread(x: Tensor, mask: Tensor | None) -> Tensor:
    """The standard deviation of all elements, or of those where ``mask`` is True."""
    if mask is None:
        return x.std(correction=0)
    valid = mask.expand_as(x)
    count = valid.sum().clamp_min(1)
    mean = x.where(valid, 0).sum() / count
    return ((x - mean).where(valid, 0).square().sum() / count).sqrt()


def _points(
    kind: _Kind,
    real: Samples | None,
    fake: Samples | None,
    masks: Callable[[tuple[Tensor, ...]], list[Tensor | None]],
    fraction: float,
    noise: float,
    generator: torch.Generator | None,
    impl: str | None,
) -> tuple[tuple[Tensor, ...], list[Tensor | None], int]:
    """Where the gradient is taken, tensors without a history that require a gradient; their masks;
    and how many samples were given, of which these are the first."""
    needed = {"between": ("real", "fake"), "noisy": ("real",)}.get(kind.points, (kind.points,))
    given = {}
    for name, value in (("real", real), ("fake", fake)):
        if name in needed:
            if value is None:
                raise ValueError(f"{name}: this kind of penalty needs it, got None")
            given[name] = tuple(x.detach() for x in as_tuple(name, value))
            if given[name][0].shape[0] == 0:
                shape = tuple(given[name][0].shape)
                raise ValueError(f"{name}: expected at least one sample, got shape {shape}")
    if kind.points == "between":
        check_alike(given["real"], given["fake"])
    first = given[needed[0]]
    batch = len(first[0])
    kept = math.ceil(fraction * batch)
    cut = [m if m is None else m[:kept] for m in masks(first)]
    if kept < batch:
        given = {name: tuple(x[:kept] for x in value) for name, value in given.items()}
    if kind.points == "between":
        points = all_between(given["real"], given["fake"], generator, impl)
    elif kind.points == "noisy":
        points = _noisy(given["real"], cut, noise, generator)
    else:
        points = given[kind.points]
    return tuple(x.requires_grad_() for x in points), cut, batch


def _masks(mask: Tensor | Sequence[Tensor | None] | None, inputs: Samples) -> list[Tensor | None]:
    """``mask`` for each of the inputs, with as many dimensions, checked."""
    single = mask is None or isinstance(mask, Tensor)
    given = [mask] if single and mask is not None else mask
    if given is None:
        return [None] * len(inputs)
    if not isinstance(given, (list, tuple)):
        raise TypeError(f"mask: expected a tensor or a tuple of tensors, got {describe(mask)}")
    if len(given) != len(inputs):
        raise ValueError(f"mask: expected {len(inputs)} as there are inputs, got {len(given)}")
    found: list[Tensor | None] = []
    for index, (this, x) in enumerate(zip(given, inputs, strict=True)):
        label = "mask" if single else f"mask[{index}]"
        if this is None:
            found.append(None)
            continue
        if not isinstance(this, Tensor) or this.dtype != torch.bool:
            raise TypeError(f"{label}: expected a tensor of torch.bool, got {describe(this)}")
        if this.dim() == 0 or this.shape != x.shape[: this.dim()]:
            raise ValueError(
                f"{label}: expected the leading dimensions of the input's shape "
                f"{tuple(x.shape)}, got shape {tuple(this.shape)}"
            )
        if this.device != x.device:
            raise ValueError(f"{label}: expected device {x.device}, got {this.device}")
        found.append(this.reshape(*this.shape, *[1] * (x.dim() - this.dim())))
    return found


def _cut(name: str, value: object, batch: int, kept: int) -> object:
    """The first ``kept`` samples of a further argument of the critic."""
    if kept == batch or value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor) and value.dim() > 0 and len(value) == batch:
        return value[:kept]
    raise ValueError(
        f"{name}: with a batch_fraction below 1 expected tensors of {batch} samples, numbers, "
        f"strings or None, got {describe(value)}; bind other arguments to the critic by "
        "functools.partial"
    )


def _scores(output: object, batch: int) -> list[Tensor]:
    """The tensors in what the critic returned, each with one or more scores a sample."""
    tensors: list[Any] = list(output) if isinstance(output, (tuple, list)) else [output]
    if not tensors:
        raise TypeError(f"critic: expected scores, got an empty {type(output).__name__}")
    for index, scores in enumerate(tensors):
        label = "critic" if len(tensors) == 1 else f"critic: output {index}"
        if not isinstance(scores, Tensor) or not scores.is_floating_point():
            raise TypeError(f"{label}: expected floating-point scores, got {describe(scores)}")
        # A mean over the batch, or a time dimension in front, would give a penalty that is silently
        # wrong by a factor.
        if (scores.shape[0] if scores.dim() else 1) != batch:
            raise ValueError(
                f"{label}: expected scores of shape ({batch}, ...), one or more for each of the "
                f"{batch} samples, got {tuple(scores.shape)}"
            )
        if not scores.requires_grad:
            raise RuntimeError(
                f"{label}: the score does not depend on the critic's input (it has no gradient "
                "graph); is it detached, or computed under no_grad?"
            )
    return tensors


def gradient_penalty(
    critic: Callable[..., Any],
    real: Samples | None,
    fake: Samples | None = None,
    *,
    kind: str = "wgan-gp",
    lambda_: float = 10.0,
    noise: float = 0.5,
    generator: torch.Generator | None = None,
    critic_args: Sequence[Any] = (),
    critic_kwargs: Mapping[str, Any] | None = None,
    mask: Tensor | Sequence[Tensor | None] | None = None,
    batch_fraction: float = 1.0,
    scaler: torch.amp.GradScaler | None = None,
    impl: str | None = None,
) -> Tensor:
    """The gradient penalty of ``critic``, to be added to the critic's loss.

    The formulas of the kinds, with their sources, are in the table of this module's docstring
    (``help(ganlstm_fast.losses.penalty)``); the default is
    ``lambda_ * mean((||grad critic(x)|| - 1)^2)`` at points x between real and fake. Note the 1/2
    of r1 and r2, which their source has.

    Args:
        critic: called as ``critic(x, *critic_args, **critic_kwargs)``, or ``critic(*xs, ...)`` for
            a tuple of inputs. Returns (B, ...): several scores of a sample are summed, and so are
            several tensors in a tuple or list. Scores of one sample must not depend on another
            (batch normalisation breaks this).
        real: (B, ...), any rank from 1 and any floating dtype, or a tuple of such tensors with one
            B. May be None for r2.
        fake: likewise, of real's shapes where both are needed; not used by r1 and dragan.
        kind: ``"wgan-gp"``, ``"wgan-lp"``, ``"r1"``, ``"r2"``, ``"dragan"`` or ``"zero-centered"``.
        lambda_: weight, 0 or more.
        noise: for dragan only: standard deviation of the added normal noise, as a fraction of the
            standard deviation of ``real``.
        generator: where random numbers are drawn from; the device's default generator if None.
        critic_args, critic_kwargs: further arguments of the critic, such as conditions or lengths.
        mask: of padded inputs, torch.bool: True where an element counts. Of the leading dimensions
            of ``real``: (B, T) for (B, T, C). The critic is given zeros elsewhere, and the gradient
            there is not part of the norm. For a tuple of inputs a tuple, with None for those
            without padding.
        batch_fraction: penalise the first ``ceil(batch_fraction B)`` samples only, above 0 to 1.
            The expected value stays the same, the cost falls with it. ``critic_args`` and
            ``critic_kwargs`` are cut alike: each must be a tensor (B, ...), a number, a string or
            None.
        scaler: of mixed precision in float16: the scores are scaled before their gradient is taken,
            so that it does not vanish in float16, and the gradient is scaled back in float32.
        impl: which implementation runs, see ``ganlstm_fast.ops.backends``.

    Returns:
        A scalar in float32 (float64 for float64 inputs). Its backward reaches the critic's
        parameters, through the second derivative of the critic, and never ``real`` or ``fake``,
        which are detached. Under ``torch.no_grad()`` only the value is computed. It can be
        differentiated once less than the critic, and as often as :func:`penalty`.

    Raises:
        TypeError: inputs or scores that are not floating-point tensors, masks that are not boolean
            ones, a wrong ``lambda_``.
        ValueError: shapes that do not match, no samples, an unknown ``kind``, scores that are not
            one or more a sample, a ``batch_fraction`` out of range or arguments it cannot cut.
        RuntimeError: a score that does not depend on the input, or ``torch.inference_mode()``.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    check_number("lambda_", lambda_)
    check_number("noise", noise)
    check_number("batch_fraction", batch_fraction)
    if not 0 < batch_fraction <= 1:
        raise ValueError(f"batch_fraction: expected above 0 and up to 1, got {batch_fraction}")
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "gradient_penalty needs gradients of the critic, which torch.inference_mode() forbids; "
            "use torch.no_grad() to compute the value alone"
        )
    this = KINDS[kind]
    points, masks, batch = _points(
        this, real, fake, functools.partial(_masks, mask), batch_fraction, noise, generator, impl
    )
    kept = len(points[0])
    further = [
        _cut(f"critic_args[{index}]", value, batch, kept) for index, value in enumerate(critic_args)
    ]
    named = {
        name: _cut(f"critic_kwargs[{name!r}]", value, batch, kept)
        for name, value in (critic_kwargs or {}).items()
    }
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = [x if m is None else x.where(m, 0) for x, m in zip(points, masks, strict=True)]
        with second_order_ahead() if differentiable else contextlib.nullcontext():
            scores = _scores(critic(*inputs, *further, **named), kept)
        scale = None if scaler is None else scaler.scale(points[0].new_ones((), dtype=_WIDE))
        grads = torch.autograd.grad(
            scores,
            points,
            grad_outputs=[_cotangent(s, scale) for s in scores],
            create_graph=differentiable,
            allow_unused=True,
        )
        for index, grad in enumerate(grads):
            if grad is None:
                label = "its input" if len(grads) == 1 else f"input {index}"
                raise RuntimeError(f"critic: the score does not depend on {label}")
        if scale is not None:
            wide = (grad.to(torch.promote_types(grad.dtype, _WIDE)) for grad in grads)
            grads = tuple(grad / scale for grad in wide)
    with torch.set_grad_enabled(differentiable):
        value = penalty_of(grads, this.center, this.one_sided, impl)
    return this.factor * lambda_ * value


def _cotangent(scores: Tensor, scale: Tensor | None) -> Tensor:
    ones = torch.ones_like(scores)
    return ones if scale is None else (ones * scale).to(scores.dtype)

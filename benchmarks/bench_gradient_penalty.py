"""The two operators of a gradient penalty against the usual PyTorch code.

``interpolate``: points between real and fake, the random draw included. ``penalty``: the value, its
gradient, and the gradient of that, as the critic's backward needs it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from cases import PENALTY_SHAPES
from harness import Answer, Call, Contender, Race, Work
from torch import Tensor

import ganlstm_fast
from ganlstm_fast.backends import use_impl

Shape = tuple[int, ...]


def _interpolate_plain(real: Tensor, fake: Tensor) -> Tensor:
    a = torch.rand(real.shape[0], *[1] * (real.dim() - 1))
    return a * real + (1 - a) * fake


def _interpolate_lerp(real: Tensor, fake: Tensor) -> Tensor:
    return torch.lerp(fake, real, torch.rand(real.shape[0], *[1] * (real.dim() - 1)))


def _samples(shape: Shape) -> tuple[Tensor, Tensor]:
    real, fake = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    return real, fake


def _interpolation(run: Callable[[Tensor, Tensor], Tensor], shape: Shape) -> Call:
    real, fake = _samples(shape)
    return lambda: (run(real, fake),)


def _interpolation_truth(shape: Shape, answer: Answer) -> Answer:
    """Right for any draw: the point nearest to the answer on the line from fake to real."""
    real, fake = (t.double() for t in _samples(shape))
    dims = tuple(range(1, real.dim()))
    line = real - fake
    a = ((answer[0].double() - fake) * line).sum(dims, keepdim=True)
    a = a / line.square().sum(dims, keepdim=True)
    spread = a.flatten()
    if spread.min() < -1e-6 or spread.max() > 1 + 1e-6 or spread.std() < 0.2:
        return (torch.full_like(real, 1e9),)  # not uniform in [0, 1): refuse
    return (fake + a * line,)


def _penalty_plain(grad: Tensor) -> Tensor:
    return ((grad.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


def _penalty_step(run: Callable[[Tensor], Tensor], shape: Shape, dtype: torch.dtype) -> Call:
    values, cotangent = (t.to(dtype) for t in _samples(shape))
    grad = (values / 8).requires_grad_()

    def call() -> Answer:
        value = run(grad)
        (first,) = torch.autograd.grad(value, grad, create_graph=True)
        (second,) = torch.autograd.grad(first, grad, cotangent)
        return value, first, second

    return call


def _penalty_truth(shape: Shape) -> Answer:
    with use_impl("reference", "gradient_penalty"):
        return _penalty_step(ganlstm_fast.penalty, shape, torch.float64)()


def works(preset: str) -> list[Work]:
    found = []
    for shape in PENALTY_SHAPES:
        case, shapes = "x".join(map(str, shape)), {"samples": shape}
        point = functools.partial(_interpolation, shape=shape)
        value = functools.partial(_penalty_step, shape=shape, dtype=torch.float32)
        found += [
            Work(
                group="interpolate",
                case=case,
                shapes=shapes,
                contenders=(
                    Contender(
                        "interpolate",
                        functools.partial(point, ganlstm_fast.interpolate),
                        ours=True,
                    ),
                    Contender("a*x + (1-a)*y", functools.partial(point, _interpolate_plain)),
                    Contender("torch.lerp", functools.partial(point, _interpolate_lerp)),
                ),
                truth=functools.partial(_interpolation_truth, shape),
            ),
            Work(
                group="penalty, value and both gradients",
                case=case,
                shapes=shapes,
                contenders=(
                    Contender("penalty", functools.partial(value, ganlstm_fast.penalty), ours=True),
                    Contender("usual PyTorch code", functools.partial(value, _penalty_plain)),
                ),
                truth=lambda _, shape=shape: _penalty_truth(shape),
            ),
        ]
    return found


def test_gradient_penalty(race: Race) -> None:
    race()

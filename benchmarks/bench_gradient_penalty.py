"""The gradient penalty against the usual PyTorch code.

``interpolate``: points between real and fake, the random draw included. ``penalty``: the value, its
gradient, and the gradient of that, as the critic's backward needs it; or the value and its gradient
alone, which is all that torch.compile has. ``WGAN-GP critic step``: the critic's loss of real and
fake samples with the penalty, and its gradients in the critic's parameters.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import ganlstm_fast
from benchmarks.cases import PENALTY_CRITICS, PENALTY_SHAPES
from benchmarks.measure.harness import Answer, Call, Contender, Race, Unsupported, Work
from benchmarks.measure.lstm_work import onednn
from ganlstm_fast import FastLSTM
from ganlstm_fast.ops import backends
from ganlstm_fast.ops.backends import use_impl
from ganlstm_fast.ops.gradient_penalty.philox import uniform

Shape = tuple[int, ...]


def _draw(x: Tensor) -> Tensor:
    return torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device)


def _interpolate_plain(real: Tensor, fake: Tensor) -> Tensor:
    a = _draw(real)
    return a * real + (1 - a) * fake


def _interpolate_lerp(real: Tensor, fake: Tensor) -> Tensor:
    return torch.lerp(fake, real, _draw(real))


def _samples(shape: Shape, device: str = "cpu") -> tuple[Tensor, Tensor]:
    real, fake = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    return real, fake


def _case(shape: Shape, device: str) -> str:
    return "x".join(map(str, shape)) + (", GPU" if device == "cuda" else "")


def _ours(device: str) -> list[tuple[str, Callable[[], contextlib.AbstractContextManager[Any]]]]:
    """Names and contexts of our implementations on a device."""
    if device == "cpu":
        return [("", contextlib.nullcontext)]
    impls = backends.serving("gradient_penalty", device, torch.float32)
    return [
        (f", {impl}", functools.partial(use_impl, impl, "gradient_penalty"))
        for impl in impls
        if impl != "reference"
    ]


def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    torch.compiler.reset()
    compiled = torch.compile(function)

    def call(*args: Tensor) -> Tensor:
        try:
            return compiled(*args)
        except Exception as error:  # whatever the compiler lacks here is no failure of ours
            raise Unsupported(f"torch.compile: {str(error).splitlines()[0][:80]}") from error

    return call


# ----------------------------------------------------------------------------------- interpolate


def _interpolation(
    run: Callable[[Tensor, Tensor], Tensor], shape: Shape, device: str, compiled: bool = False
) -> Call:
    real, fake = _samples(shape, device)
    run = _compiled(run) if compiled else run
    return lambda: (run(real, fake),)


def _interpolation_truth(shape: Shape, answer: Answer) -> Answer:
    """Right for any draw: the point nearest to the answer on the line from fake to real."""
    real, fake = (t.double() for t in _samples(shape, answer[0].device.type))
    dims = tuple(range(1, real.dim()))
    line = real - fake
    a = ((answer[0].double() - fake) * line).sum(dims, keepdim=True)
    a = a / line.square().sum(dims, keepdim=True)
    spread = a.flatten()
    if spread.min() < -1e-6 or spread.max() > 1 + 1e-6 or spread.std() < 0.2:
        return (torch.full_like(real, 1e9),)  # not uniform in [0, 1): refuse
    return (fake + a * line,)


def interpolation(shape: Shape, compiled: bool, device: str = "cpu") -> Work:
    point = functools.partial(_interpolation, shape=shape, device=device)
    ours = functools.partial(point, ganlstm_fast.interpolate)
    contenders = [
        Contender(f"interpolate{impl}", ours, ours=True, context=context)
        for impl, context in _ours(device)
    ]
    contenders += [
        Contender("a*x + (1-a)*y", functools.partial(point, _interpolate_plain)),
        Contender("torch.lerp", functools.partial(point, _interpolate_lerp)),
    ]
    if compiled:
        call = functools.partial(point, _interpolate_lerp, compiled=True)
        contenders.append(Contender("torch.lerp, compiled", call))
    return Work(
        "interpolate",
        _case(shape, device),
        {"samples": shape},
        tuple(contenders),
        functools.partial(_interpolation_truth, shape),
        device=device,
    )


# --------------------------------------------------------------------------------------- penalty


def _penalty_plain(grad: Tensor) -> Tensor:
    return ((grad.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


def _penalty_step(
    run: Callable[[Tensor], Tensor],
    shape: Shape,
    dtype: torch.dtype,
    twice: bool,
    device: str,
    compiled: bool = False,
) -> Call:
    values, cotangent = (t.to(dtype) for t in _samples(shape, device))
    grad = (values / 8).requires_grad_()
    run = _compiled(run) if compiled else run

    def call() -> Answer:
        value = run(grad)
        (first,) = torch.autograd.grad(value, grad, create_graph=twice)
        if not twice:
            return value, first
        (second,) = torch.autograd.grad(first, grad, cotangent)
        return value, first, second

    return call


def penalty(shape: Shape, twice: bool, compiled: bool, device: str = "cpu") -> Work:
    step = functools.partial(_penalty_step, shape=shape, twice=twice, device=device)
    value = functools.partial(step, dtype=torch.float32)

    def truth(_: Answer) -> Answer:
        with use_impl("reference", "gradient_penalty"):
            return step(ganlstm_fast.penalty, dtype=torch.float64)()

    ours = functools.partial(value, ganlstm_fast.penalty)
    contenders = [
        Contender(f"penalty{impl}", ours, ours=True, context=context)
        for impl, context in _ours(device)
    ]
    contenders.append(Contender("usual PyTorch code", functools.partial(value, _penalty_plain)))
    if compiled and not twice:
        call = functools.partial(value, _penalty_plain, compiled=True)
        contenders.append(Contender("usual PyTorch code, compiled", call))
    return Work(
        f"penalty, value and {'both gradients' if twice else 'gradient'}",
        _case(shape, device),
        {"samples": shape},
        tuple(contenders),
        truth,
        device=device,
    )


# ----------------------------------------------------------------------------------- critic step


class _LSTMCritic(nn.Module):
    def __init__(self, layer: Callable[..., nn.LSTM], channels: int) -> None:
        super().__init__()
        self.lstm = layer(channels, 64, batch_first=True)
        self.head = nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0]).mean((1, 2))


def _critic(shape: Shape, layer: Callable[..., nn.LSTM]) -> nn.Module:
    """The same weights at each call."""
    torch.manual_seed(0)
    if len(shape) == 3:
        return _LSTMCritic(layer, shape[-1])
    if len(shape) == 2:
        sizes = (shape[1], 256, 256, 1)
        layers: list[nn.Module] = [nn.Linear(*s) for s in itertools.pairwise(sizes)]
    else:
        channels = (shape[1], 64, 128, 256, 512)
        pairs = itertools.pairwise(channels)
        layers = [nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairs]
        layers.append(nn.Conv2d(512, 1, 4))
    between = [[layer, nn.LeakyReLU(0.2)] for layer in layers[:-1]]
    return nn.Sequential(*(m for pair in between for m in pair), layers[-1], nn.Flatten(0))


def usual_penalty(critic: nn.Module, real: Tensor, fake: Tensor, a: Tensor) -> Tensor:
    points = torch.lerp(fake, real, a).requires_grad_()
    scores = critic(points)
    (grad,) = torch.autograd.grad(scores, points, torch.ones_like(scores), create_graph=True)
    return 10 * _penalty_plain(grad)


def _critic_step(
    shape: Shape, layer: Callable[..., nn.LSTM], ours: bool, dtype: torch.dtype = torch.float32
) -> Call:
    """All have the same random numbers at the first call, and draw as they do at the others."""
    critic = copy.deepcopy(_critic(shape, layer)).to(dtype)
    real, fake = (t.to(dtype) for t in _samples(shape))
    parameters, generator = list(critic.parameters()), torch.Generator().manual_seed(1)
    seed = torch.empty(1, dtype=torch.int64).random_(generator=generator)
    first = [uniform(seed, len(real), dtype).view(-1, *[1] * (real.dim() - 1))]
    generator.manual_seed(1)

    def call() -> Answer:
        loss = critic(fake).mean() - critic(real).mean()
        if ours:
            loss = loss + ganlstm_fast.gradient_penalty(critic, real, fake, generator=generator)
        else:
            a = first.pop() if first else _draw(real)
            loss = loss + usual_penalty(critic, real, fake, a)
        return loss.detach(), *torch.autograd.grad(loss, parameters)

    return call


def critic_step(name: str, shape: Shape) -> Work:
    def contender(
        name: str, layer: Callable[..., nn.LSTM], ours: bool, **options: Any
    ) -> Contender:
        call = functools.partial(_critic_step, shape, layer, ours)
        return Contender(name, call, ours=layer is FastLSTM, **options)

    def truth(_: Answer) -> Answer:
        with use_impl("reference"):
            return _critic_step(shape, FastLSTM, True, torch.float64)()

    if len(shape) == 3:
        off = functools.partial(onednn, False)
        contenders = (
            contender("FastLSTM, gradient_penalty", FastLSTM, True),
            contender("nn.LSTM, gradient_penalty", nn.LSTM, True),
            contender("nn.LSTM, usual PyTorch code", nn.LSTM, False),
            contender("nn.LSTM, usual PyTorch code, oneDNN off", nn.LSTM, False, context=off),
        )
    else:
        contenders = (
            contender("gradient_penalty", FastLSTM, True),
            contender("usual PyTorch code", nn.LSTM, False),
        )
    case = f"{name}, {'x'.join(map(str, shape))}"
    shapes = {"critic": name, "samples": shape}
    return Work("WGAN-GP critic step", case, shapes, contenders, truth)


def works(preset: str) -> list[Work]:
    compiled = preset == "full"
    found = []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for shape in PENALTY_SHAPES[preset]:
            found += [
                interpolation(shape, compiled, device),
                penalty(shape, True, compiled, device),
                penalty(shape, False, compiled, device),
            ]
    return [*found, *(critic_step(*case) for case in PENALTY_CRITICS[preset].items())]


def test_gradient_penalty(race: Race) -> None:
    race()

"""Spectral normalisation of layers and of whole networks, alone and in a discriminator's step.

Alone, the work is the access of every normalised weight in training mode, once or three times as in
a GAN's step, and the gradients of the weights for given cotangents.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import ganlstm_fast
from benchmarks.cases import SPECTRAL_NORM, SPECTRAL_NORM_NETWORKS
from benchmarks.measure.harness import Answer, Call, Contender, Race, Unsupported, Work
from ganlstm_fast import spectral_norm_step, use_impl
from ganlstm_fast.ops import backends

Shapes = Sequence[tuple[int, ...]]
Norm = Callable[[nn.Module], nn.Module]
# A block around the accesses of one step.
Block = Callable[[nn.Module], contextlib.AbstractContextManager[Any]]

CALLS = 3  # of a discriminator in a step with a gradient penalty
BATCH = 16


def _plain(shape: tuple[int, ...], dtype: torch.dtype) -> nn.Module:
    outputs, inputs, *kernel = shape
    if not kernel:
        return nn.Linear(inputs, outputs, bias=False, dtype=dtype)
    return nn.Conv2d(inputs, outputs, kernel, bias=False, dtype=dtype)


@functools.cache
def _state(shapes: Shapes) -> dict[str, Tensor]:
    """Weights, u and v, as torch's parametrization has them."""
    torch.manual_seed(0)
    plain = [_plain(shape, torch.float32) for shape in shapes]
    return nn.ModuleList(parametrizations.spectral_norm(layer) for layer in plain).state_dict()


def _old_norm(layer: nn.Module) -> nn.Module:
    """torch's older hook."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.spectral_norm(layer)


def _layers(norm: Norm, shapes: Shapes, dtype: torch.dtype, device: str = "cpu") -> nn.ModuleList:
    layers = nn.ModuleList(norm(_plain(shape, dtype)) for shape in shapes).to(device)
    state = dict(_state(shapes))
    if norm is _old_norm:
        names = {".parametrizations.weight.original": ".weight_orig"}
        names |= {f".parametrizations.weight.0._{x}": f".weight_{x}" for x in "uv"}
        for new, old in names.items():
            state |= {k.replace(new, old): state.pop(k) for k in list(state) if k.endswith(new)}
    layers.load_state_dict(state)
    return layers


class _Weights(nn.Module):
    """A layer whose forward is the access of its weight."""

    def forward(self) -> Tensor:
        return self.weight


def _accessors(layers: nn.ModuleList, norm: Norm) -> list[Callable[[], Tensor]]:
    """A call for each layer. The older hook runs when its layer is called, as it is here."""
    if norm is not _old_norm:
        return [functools.partial(getattr, layer, "weight") for layer in layers]
    for layer in layers:
        layer.__class__ = _Weights
    return list(layers)


def _prepare(
    norm: Norm,
    shapes: Shapes,
    dtype: torch.dtype,
    backward: bool,
    calls: int = 1,
    block: Block | None = None,
    compiled: bool = False,
    device: str = "cpu",
) -> Call:
    layers = _layers(norm, shapes, dtype, device)
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randn(s, generator=generator) for s in (*shapes,) * calls]
    cotangents = [cotangent.to(device, dtype) for cotangent in drawn]
    originals = list(layers.parameters())
    accessors = _accessors(layers, norm)

    def access() -> list[Tensor]:
        return [accessor() for accessor in accessors]

    if compiled:
        # Through the modules: what is compiled may then be called again and again.
        access = _compiled(access)

    def call() -> Answer:
        with block(layers) if block else contextlib.nullcontext():
            weights = [weight for _ in range(calls) for weight in access()]
            if not backward:
                return weights
            return *weights, *torch.autograd.grad(weights, originals, cotangents)

    return call


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    torch.compiler.reset()
    compiled = torch.compile(function)

    def call(*args: Any) -> Any:
        try:
            return compiled(*args)
        except Exception as error:  # whatever the compiler lacks here is no failure of ours
            raise Unsupported(f"torch.compile: {str(error).splitlines()[0][:80]}") from error

    return call


def _ours(device: str) -> list[tuple[str, Callable[[], contextlib.AbstractContextManager[Any]]]]:
    """Names and contexts of our implementations on a device."""
    if device == "cpu":
        return [("", contextlib.nullcontext)]
    impls = backends.serving("spectral_norm", device, torch.float32)
    return [
        (f", {impl}", functools.partial(use_impl, impl, "spectral_norm"))
        for impl in impls
        if impl != "reference"
    ]


def normalisation(
    name: str, shapes: Shapes, backward: bool, compiled: bool, device: str = "cpu"
) -> Work:
    """Each weight once."""
    dtype = torch.float32
    prepare = functools.partial(_prepare, shapes=shapes, backward=backward, device=device)
    ours, theirs = ganlstm_fast.spectral_norm, parametrizations.spectral_norm
    contenders = []
    for impl, context in _ours(device):
        call = functools.partial(prepare, ours, dtype=dtype)
        step = functools.partial(call, block=spectral_norm_step)
        contenders += [
            Contender(f"spectral_norm{impl}", call, ours=True, context=context),
            Contender(f"spectral_norm_step{impl}", step, ours=True, context=context),
        ]
    contenders += [
        Contender("torch parametrization", functools.partial(prepare, theirs, dtype=dtype)),
        # It iterates in the other order, so its numbers are its own.
        Contender(
            "torch, older hook",
            functools.partial(prepare, _old_norm, dtype=dtype),
            truth=lambda _: prepare(_old_norm, dtype=torch.float64)(),
        ),
    ]
    if compiled:
        call = functools.partial(prepare, theirs, dtype=dtype, compiled=True)
        contenders.append(Contender("torch parametrization, compiled", call))
    return Work(
        f"spectral norm forward{'+backward' if backward else ''}",
        name + (", GPU" if device == "cuda" else ""),
        {"weights": shapes},
        tuple(contenders),
        lambda _: _truth(prepare(ours, dtype=torch.float64)),
        dtype,
        device=device,
    )


def _truth(call: Call) -> Answer:
    with use_impl("reference", "spectral_norm"):
        return call()


def step_of_calls(name: str, shapes: Shapes) -> Work:
    """What three calls of the discriminator in a step ask for: each weight three times.

    torch has ``parametrize.cached`` to share one iteration; without it each access iterates, which
    gives other numbers.
    """
    dtype = torch.float32
    prepare = functools.partial(_prepare, shapes=shapes, backward=True, calls=CALLS)
    ours, theirs = ganlstm_fast.spectral_norm, parametrizations.spectral_norm

    def cached(_: nn.Module) -> contextlib.AbstractContextManager[Any]:
        return parametrize.cached()

    def contender(name: str, norm: Norm, block: Block | None, ours: bool = False) -> Contender:
        call = functools.partial(prepare, norm, block=block)
        truth = None if block else lambda _: _truth(call(dtype=torch.float64))
        return Contender(name, functools.partial(call, dtype=dtype), ours=ours, truth=truth)

    return Work(
        f"spectral norm, {CALLS} calls a step, forward+backward",
        name,
        {"weights": shapes},
        (
            contender("spectral_norm_step", ours, spectral_norm_step, ours=True),
            contender("spectral_norm", ours, None, ours=True),
            contender("torch parametrization, cached", theirs, cached),
            contender("torch parametrization", theirs, None),
            contender("torch, older hook", _old_norm, None),
        ),
        lambda _: _truth(prepare(ours, dtype=torch.float64, block=cached)),
        dtype,
    )


def _discriminator(norm: Norm, shapes: Shapes, dtype: torch.dtype) -> nn.Module:
    layers: list[nn.Module] = []
    for layer in _layers(norm, shapes, dtype):
        last = layer is None or len(layers) == 2 * (len(shapes) - 1)
        layer.stride, layer.padding = ((1, 1), (0, 0)) if last else ((2, 2), (1, 1))
        layers += [layer, nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


def _prepare_step(
    norm: Norm | None, shapes: Shapes, dtype: torch.dtype, compiled: bool = False
) -> Call:
    """A forward and backward of the discriminator; ``norm`` None: without spectral norm."""
    model = _discriminator(norm or ganlstm_fast.spectral_norm, shapes, dtype)
    if norm is None:
        for layer in model[::2]:
            ganlstm_fast.remove_spectral_norm(layer)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, 3, 64, 64, generator=generator).to(dtype)
    parameters = list(model.parameters())
    run = _compiled(model) if compiled else model

    def call() -> Answer:
        return torch.autograd.grad(run(x).sigmoid().mean(), parameters)

    return call


def discriminator_step(name: str, shapes: Shapes, compiled: bool) -> Work:
    """A whole discriminator on a batch, beside the same without spectral norm."""
    dtype, base = torch.float32, "without spectral norm"
    ours, theirs = ganlstm_fast.spectral_norm, parametrizations.spectral_norm

    def contender(name: str, norm: Norm | None, own_truth: bool, **options: Any) -> Contender:
        call = functools.partial(_prepare_step, norm, shapes)
        return Contender(
            name,
            functools.partial(call, dtype, **options),
            ours=norm in (ours, None),
            beside=base if norm else None,
            truth=(lambda _: _truth(call(torch.float64))) if own_truth else None,
        )

    contenders = [
        contender("spectral_norm", ours, False),
        contender(base, None, True),
        contender("torch parametrization", theirs, False),
        contender("torch, older hook", _old_norm, True),
    ]
    if compiled:
        contenders.append(
            contender("torch parametrization, compiled", theirs, False, compiled=True)
        )
    return Work(
        "spectral norm, discriminator step",
        f"{name}, B{BATCH}",
        {"weights": shapes, "B": BATCH},
        tuple(contenders),
        lambda _: _truth(_prepare_step(ours, shapes, torch.float64)),
        dtype,
    )


def works(preset: str) -> list[Work]:
    compiled = preset == "full"
    found = [
        normalisation(name, shapes, backward, compiled)
        for name, shapes in SPECTRAL_NORM[preset].items()
        for backward in (False, True)
    ]
    if torch.cuda.is_available():
        found += [
            normalisation(name, shapes, backward, compiled, "cuda")
            for name, shapes in SPECTRAL_NORM[preset].items()
            for backward in (False, True)
        ]
    name = "DCGAN-64 discriminator"
    shapes = SPECTRAL_NORM_NETWORKS[name]
    return [*found, step_of_calls(name, shapes), discriminator_step(name, shapes, compiled)]


def test_spectral_norm(race: Race) -> None:
    race()

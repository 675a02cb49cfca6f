"""Spectral normalisation of all weights of a network: one power iteration, forward and backward.

The work is the access of every normalised weight in training mode, and the gradients of the
weights for given cotangents.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence

import torch
from cases import SPECTRAL_NORM_WEIGHTS
from harness import Answer, Call, Contender, Race, Work
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import ganlstm_fast

Shapes = Sequence[tuple[int, ...]]


def _step(
    access: Callable[[], Sequence[Tensor]],
    originals: Sequence[Tensor],
    cotangents: Sequence[Tensor],
) -> Answer:
    weights = access()
    grads = torch.autograd.grad(weights, originals, cotangents)
    return *weights, *grads


def _layers(shapes: Shapes, dtype: torch.dtype) -> list[nn.Module]:
    """Layers under torch's parametrization, the same each time."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(s[1], s[0], s[2:], bias=False) for s in shapes]
    return [parametrizations.spectral_norm(layer).to(dtype) for layer in layers]


def _cotangents(shapes: Shapes, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(s, generator=generator).to(dtype) for s in shapes]


def _prepare(norm: Callable[[nn.Module], nn.Module], shapes: Shapes, dtype: torch.dtype) -> Call:
    layers = []
    for source, s in zip(_layers(shapes, dtype), shapes, strict=True):
        layer = norm(nn.Conv2d(s[1], s[0], s[2:], bias=False, dtype=dtype))
        layer.load_state_dict(source.state_dict())
        layers.append(layer)
    originals = [layer.parametrizations.weight.original for layer in layers]
    return functools.partial(
        _step, lambda: [layer.weight for layer in layers], originals, _cotangents(shapes, dtype)
    )


def _prepare_old(shapes: Shapes, dtype: torch.dtype) -> Call:
    """torch's older hook, run without the convolution that it is attached to."""
    layers, hooks = [], []
    for source, s in zip(_layers(shapes, dtype), shapes, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            layer = nn.utils.spectral_norm(nn.Conv2d(s[1], s[0], s[2:], bias=False, dtype=dtype))
        state = source.state_dict()
        names = {"weight_orig": "original", "weight_u": "0._u", "weight_v": "0._v"}
        old = {k: state[f"parametrizations.weight.{v}"] for k, v in names.items()}
        layer.load_state_dict(old)
        layers.append(layer)
        hooks.append(next(iter(layer._forward_pre_hooks.values())))

    def access() -> list[Tensor]:
        for layer, hook in zip(layers, hooks, strict=True):
            hook(layer, ())
        return [layer.weight for layer in layers]

    originals = [layer.weight_orig for layer in layers]
    return functools.partial(_step, access, originals, _cotangents(shapes, dtype))


def works(preset: str) -> list[Work]:
    dtype, double = torch.float32, torch.float64
    ours, theirs = ganlstm_fast.spectral_norm, parametrizations.spectral_norm
    return [
        Work(
            group="spectral norm forward+backward",
            case=name,
            shapes={"weights": shapes},
            contenders=(
                Contender(
                    "spectral_norm", functools.partial(_prepare, ours, shapes, dtype), ours=True
                ),
                Contender(
                    "torch parametrization", functools.partial(_prepare, theirs, shapes, dtype)
                ),
                # It iterates in the other order, so its numbers are its own.
                Contender(
                    "torch, older hook",
                    functools.partial(_prepare_old, shapes, dtype),
                    truth=lambda _, shapes=shapes: _prepare_old(shapes, double)(),
                ),
            ),
            truth=lambda _, shapes=shapes: _prepare(ours, shapes, double)(),
            dtype=dtype,
        )
        for name, shapes in SPECTRAL_NORM_WEIGHTS.items()
    ]


def test_spectral_norm(race: Race) -> None:
    race()

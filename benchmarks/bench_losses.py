"""Critic losses from scores, value and gradients, against the usual PyTorch code.

Ours are plain PyTorch too: this shows what the checks of their arguments cost, and what is gained
or lost by the choice of operators. ``logsigmoid``, and so cross entropy with logits, uses threads
for any number of scores, and waits for them on a busy machine; not so with ``OMP_NUM_THREADS=1``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cases import SCORE_SHAPES
from benchmarks.measure.harness import Answer, Call, Contender, Race, Work
from ganlstm_fast.losses import gan_loss

Shape = tuple[int, ...]
Loss = Callable[[Tensor, Tensor], Tensor]


def _cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    loss = F.binary_cross_entropy_with_logits
    return loss(real, torch.ones_like(real)) + loss(fake, torch.zeros_like(fake))


def _smoothed(real: Tensor, fake: Tensor) -> Tensor:
    loss = F.binary_cross_entropy_with_logits
    return loss(real, torch.full_like(real, 0.9)) + loss(fake, torch.zeros_like(fake))


def _hinge(real: Tensor, fake: Tensor) -> Tensor:
    return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()


def _least_squares(real: Tensor, fake: Tensor) -> Tensor:
    loss = F.mse_loss
    return 0.5 * (loss(real, torch.ones_like(real)) + loss(fake, torch.zeros_like(fake)))


def _squares(real: Tensor, fake: Tensor) -> Tensor:
    return 0.5 * (((real - 1) ** 2).mean() + (fake**2).mean())


def _relativistic(real: Tensor, fake: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(real - fake, torch.ones_like(real))


def _average(real: Tensor, fake: Tensor) -> Tensor:
    return _cross_entropy(real - fake.mean(), fake - real.mean())


USUAL: dict[str, dict[str, Loss]] = {
    "non-saturating": {"BCE with logits": _cross_entropy},
    "non-saturating, smoothed": {"BCE with logits": _smoothed},
    "hinge": {"relu": _hinge},
    "lsgan": {"MSE": _least_squares, "(x - label)**2": _squares},
    "relativistic": {"BCE with logits": _relativistic},
    "relativistic-average": {"BCE with logits": _average},
}


def _step(run: Loss, shape: Shape, dtype: torch.dtype = torch.float32) -> Call:
    scores = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    real, fake = (s.to(dtype).requires_grad_() for s in scores)

    def call() -> Answer:
        value = run(real, fake)
        return value, *torch.autograd.grad(value, (real, fake))

    return call


def works(preset: str) -> list[Work]:
    found = []
    for shape in SCORE_SHAPES[preset]:
        for name, usual in USUAL.items():
            smoothing = 0.1 if name.endswith("smoothed") else 0.0
            ours = gan_loss(name.split(",")[0], label_smoothing=smoothing).critic
            step = functools.partial(_step, shape=shape)
            truth = _step(next(iter(usual.values())), shape, torch.float64)
            found.append(
                Work(
                    group=f"critic loss and gradients, {name}",
                    case="x".join(map(str, shape)),
                    shapes={"scores": shape},
                    contenders=(
                        Contender("gan_loss", functools.partial(step, ours), ours=True),
                        *(Contender(n, functools.partial(step, run)) for n, run in usual.items()),
                    ),
                    truth=lambda _, truth=truth: truth(),
                )
            )
    return found


def test_losses(race: Race) -> None:
    race()

"""Whole training steps of the models, with our layers and with PyTorch's, from the same state.

A GAN's step is ``n_critic`` steps of the critic and one of the generator, each with its optimiser.
PyTorch's model is ours by ``to_torch``, with its LSTM and its spectral norm in the place of ours,
and with the penalty as people write it. The answer that is checked is that of the first critic's or
model's step before its optimiser: Adam's first step would take the sign of a rounding error.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.bench_gradient_penalty import usual_penalty
from benchmarks.cases import TRAIN_STEPS
from benchmarks.measure.harness import Answer, Call, Contender, Race, Work
from benchmarks.measure.lstm_work import onednn
from ganlstm_fast import gradient_penalty, to_torch
from ganlstm_fast.losses import gan_loss
from ganlstm_fast.models import (
    DCGAN,
    LSTMGAN,
    MLPGAN,
    ConditionalLSTMGAN,
    CycleGAN,
    LSTMClassifier,
    LSTMForecaster,
    SequenceToSequence,
    TextGAN,
    TextToImageGAN,
    VideoGAN,
)
from ganlstm_fast.ops.backends import use_impl
from ganlstm_fast.ops.gradient_penalty.philox import uniform


def _adam(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr, (0.5, 0.9), fused=True)


def _ours_or_torch(model: nn.Module, ours: bool) -> nn.Module:
    if not ours:
        to_torch(model)
    return model


@dataclass(frozen=True)
class GANCase:
    """``build`` makes the model; ``noise`` are the sizes of its noise but for the batch."""

    build: Callable[[], nn.Module]
    real: tuple[int, ...]
    noise: tuple[int, ...] = ()
    loss: str = "wgan-gp"
    n_critic: int = 1
    labels: int = 0
    words: int = 0  # that texts of up to 8 have
    draws: bool = False  # whether the generator draws what it makes
    cycle: float = 0.0  # weight of the way back, of a model that translates pairs of images

    def prepare(self, ours: bool, dtype: torch.dtype) -> Call:
        torch.manual_seed(0)
        gan = _ours_or_torch(self.build(), ours).to(dtype)
        generator = torch.Generator().manual_seed(1)
        real = torch.rand(self.real, generator=generator).to(dtype)
        condition: dict[str, Any] = {}
        if self.labels:
            condition["labels"] = torch.arange(len(real)) % self.labels
        if self.words:
            size = len(real), 8
            condition["words"] = torch.randint(self.words, size, generator=generator)
            condition["lengths"] = torch.arange(len(real)) % 6 + 3
        step = _GANStep(self, gan, real, condition, ours)
        return step.run


class _GANStep:
    def __init__(
        self, case: GANCase, gan: nn.Module, real: Tensor, condition: dict[str, Any], ours: bool
    ) -> None:
        self.gan, self.real, self.condition, self.ours = gan, real, condition, ours
        self.case, self.loss = case, gan_loss(case.loss)
        self.optimisers = [_adam(gan.critic, 1e-4), _adam(gan.generator, 2e-4)]
        self.generator = torch.Generator().manual_seed(2)
        self.source = copy.deepcopy(gan.generator).float()  # draws the same in every dtype

    def run(self) -> Answer:
        answers = [self.critic_step() for _ in range(self.case.n_critic)]
        self.generator_step()
        return answers[0]

    def fake(self) -> Tensor:
        if self.case.cycle:
            return self.gan.generator(self.real)
        noise = self.source.noise(len(self.real), *self.case.noise, self.generator)
        drawn = {"generator": self.generator} if self.case.draws else {}
        return self.gan.generator(noise.to(self.real.dtype), **drawn, **self.condition)

    def penalty(self, fake: Tensor) -> Tensor:
        # Both draw from the same state, and have the same numbers.
        if self.ours:
            return gradient_penalty(
                self.gan.critic,
                self.real,
                fake,
                critic_kwargs=self.condition,
                generator=self.generator,
            )
        seed = torch.empty(1, dtype=torch.int64).random_(generator=self.generator)
        a = uniform(seed, len(fake), fake.dtype).view(-1, *[1] * (fake.dim() - 1))
        critic = functools.partial(self.gan.critic, **self.condition)
        return usual_penalty(critic, self.real, fake, a)

    def critic_step(self) -> Answer:
        with torch.no_grad():
            fake = self.fake()
        twice = {name: torch.cat([value, value]) for name, value in self.condition.items()}
        scores = self.gan.critic(torch.cat((self.real, fake)), **twice)
        loss = self.loss.critic(*scores.chunk(2))
        if self.loss.penalty:
            loss = loss + self.penalty(fake)
        return self.update(self.gan.critic, loss, self.optimisers[0])

    def generator_step(self) -> None:
        self.gan.critic.requires_grad_(False)
        fake = self.fake()
        loss = self.loss.generator(self.gan.critic(fake, **self.condition))
        if self.case.cycle:
            back = (self.gan.generator(fake) - self.real).abs().mean()
            loss = loss + self.case.cycle * back
        self.update(self.gan.generator, loss, self.optimisers[1])
        self.gan.critic.requires_grad_(True)

    @staticmethod
    def update(network: nn.Module, loss: Tensor, optimiser: torch.optim.Optimizer) -> Answer:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        grads = [p.grad.clone() for p in network.parameters() if p.grad is not None]
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimiser.step()
        return loss.detach(), *grads


@dataclass(frozen=True)
class SupervisedCase:
    """``inputs`` is the shape of random numbers, or of ``symbols`` so many symbols."""

    build: Callable[[], nn.Module]
    inputs: tuple[int, ...]
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor]
    target: Callable[[Tensor], Tensor]
    symbols: int = 0

    def prepare(self, ours: bool, dtype: torch.dtype) -> Call:
        torch.manual_seed(0)
        model = _ours_or_torch(self.build(), ours).to(dtype)
        generator = torch.Generator().manual_seed(1)
        if self.symbols:
            inputs = torch.randint(self.symbols, self.inputs, generator=generator)
        else:
            inputs = torch.rand(self.inputs, generator=generator).to(dtype)
        target, optimiser = self.target(inputs), _adam(model, 1e-3)

        def call() -> Answer:
            return _GANStep.update(model, self.loss(model, inputs, target), optimiser)

        return call


def _lengths(x: Tensor) -> Tensor:
    """From a third of the steps to all."""
    longest = x.size(1)
    return longest - torch.arange(len(x)) % (2 * longest // 3)


CASES: dict[str, GANCase | SupervisedCase] = {
    "MLP GAN": GANCase(MLPGAN, (64, 1, 28, 28)),
    "DCGAN-64": GANCase(functools.partial(DCGAN, 64), (16, 3, 64, 64), loss="hinge"),
    # Of which people say that it needs 4 GB: see bench_memory.py.
    "DCGAN-128": GANCase(functools.partial(DCGAN, 128), (256, 3, 128, 128), loss="hinge"),
    # The default recipe of `ganlstm-fast train`.
    "LSTM-GAN": GANCase(functools.partial(LSTMGAN, 5), (32, 24, 5), noise=(24,), n_critic=3),
    "conditional LSTM-GAN": GANCase(
        functools.partial(ConditionalLSTMGAN, 5, labels=12),
        (32, 24, 5),
        noise=(24,),
        n_critic=3,
        labels=12,
    ),
    "text to image": GANCase(
        functools.partial(TextToImageGAN, 23, 28, 1, width=16), (64, 1, 28, 28), words=23
    ),
    # 8 frames: a mean over them is exact, and what cancels in the real and fake scores is 0.
    "video GAN": GANCase(VideoGAN, (16, 8, 1, 16, 16), noise=(8,)),
    # The default recipe's: convolutions over frames of spectra, without spectral norm.
    "sound GAN": GANCase(
        functools.partial(
            ConditionalLSTMGAN,
            257,
            32,
            64,
            labels=15,
            embedding=32,
            projection=True,
            critic="conv",
            spectral_norm=False,
        ),
        (32, 21, 257),
        noise=(21,),
        labels=15,
    ),
    # The default recipe's after its pretraining: a step reads the symbol that was drawn before it.
    "text GAN": GANCase(
        functools.partial(TextGAN, 61, 16, 128, feedback=True),
        (32, 32, 61),
        noise=(32,),
        n_critic=2,
        draws=True,
    ),
    "CycleGAN": GANCase(
        functools.partial(CycleGAN, 1, 8, 3, 16), (16, 2, 1, 28, 28), loss="lsgan", cycle=10.0
    ),
    "LSTM forecaster": SupervisedCase(
        functools.partial(LSTMForecaster, 5),
        (32, 100, 5),
        lambda model, x, y: model.loss(model(x), y),
        lambda x: x[:, -1:],
    ),
    "LSTM classifier": SupervisedCase(
        functools.partial(LSTMClassifier, 28, 10, hidden=64),
        (64, 28, 28),
        lambda model, x, y: nn.functional.cross_entropy(model(x), y),
        lambda x: torch.arange(len(x)) % 10,
    ),
    "LSTM text classifier": SupervisedCase(
        functools.partial(LSTMClassifier, 16, 2, symbols=64, hidden=64, attention="additive"),
        (64, 160),
        lambda model, x, y: nn.functional.cross_entropy(model(x, lengths=_lengths(x)), y),
        lambda x: torch.arange(len(x)) % 2,
        symbols=64,
    ),
    "LSTM sequence to sequence": SupervisedCase(
        functools.partial(SequenceToSequence, 46, 12),
        (64, 54),
        lambda model, x, y: nn.functional.cross_entropy(
            model(x, y, lengths=_lengths(x)).transpose(1, 2), nn.functional.pad(y, (0, 1))
        ),
        lambda x: x[:, :10] % 11 + 1,
        symbols=46,
    ),
}


def work(name: str, batch: int | None = None) -> Work:
    """The step of ``CASES[name]``, with another batch if one is given."""
    case = CASES[name]
    if batch is not None:
        case = replace(case, real=(batch, *case.real[1:]))

    def truth(_: Answer) -> Answer:
        with use_impl("reference"):
            return case.prepare(True, torch.float64)()

    def contender(title: str, ours: bool, **options: Any) -> Contender:
        return Contender(title, lambda: case.prepare(ours, torch.float32), ours=ours, **options)

    contenders = [contender("ganlstm_fast", True), contender("PyTorch", False)]
    if "LSTM" in name:
        off = functools.partial(onednn, False)
        contenders.append(contender("PyTorch, oneDNN off", False, context=off))
    shape = case.real if isinstance(case, GANCase) else case.inputs
    return Work(
        "training step",
        f"{name}, {'x'.join(map(str, shape))}",
        {"model": name, "batch": shape},
        tuple(contenders),
        truth,
    )


def works(preset: str) -> list[Work]:
    return [work(name) for name in TRAIN_STEPS[preset]]


def test_train_step(race: Race) -> None:
    race()

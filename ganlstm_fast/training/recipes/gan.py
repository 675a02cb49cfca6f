"""The step of a generator and a critic, whatever they make."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ganlstm_fast.losses import gan_loss, gradient_penalty
from ganlstm_fast.models.base import eval_mode
from ganlstm_fast.nn import spectral_norm_step
from ganlstm_fast.nn.spectral_norm import SpectralNorm
from ganlstm_fast.ops.gradient_penalty.function import interpolate
from ganlstm_fast.training.augment import Augment
from ganlstm_fast.training.config import GANSettings
from ganlstm_fast.training.fabric import OneProcess, scaler_of, synchronised
from ganlstm_fast.training.recipes.adam import adam
from ganlstm_fast.training.recipes.average import WeightAverage
from ganlstm_fast.training.recipes.base import Recipe, update
from ganlstm_fast.training.state import State

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Samples of each kind that are checked for trouble, and the limit below which it is trouble.
WATCHED = 256
COLLAPSED = 0.05


@dataclass(frozen=True)
class Batch:
    """Real samples [batch, ...], and the keyword arguments of generator and critic for them."""

    real: Tensor
    inputs: dict[str, Tensor]


class GANRecipe(Recipe):
    """A critic's and a generator's steps.

    Attributes:
        samples: [size, ...], the training data.
        inputs: tensors of ``size`` rows, the conditions of each sample for generator and critic.
    """

    columns: ClassVar = ("loss_d", "loss_g", "gap", "penalty", "grad_norm_d", "grad_norm_g")
    config: GANSettings
    samples: Tensor
    inputs: dict[str, Tensor]

    @property
    def size(self) -> int:
        return len(self.samples)

    @abstractmethod
    def noise(self, generator: nn.Module, count: int, random: torch.Generator) -> Tensor:
        """Noise for ``count`` samples."""

    def real(self, samples: Tensor) -> Tensor:
        """What the critic sees of some ``samples``."""
        return samples

    def fake(
        self,
        generator: nn.Module,
        noise: Tensor,
        inputs: dict[str, Tensor],
        random: torch.Generator | None = None,
    ) -> Tensor:
        """What the generator makes; ``random`` is for what it draws itself."""
        return generator(noise, **inputs)

    def setup(self, fabric: Fabric | OneProcess) -> None:
        config = self.config
        self.fabric = fabric
        self.samples = self.samples.to(fabric.device)
        self.inputs = {name: value.to(fabric.device) for name, value in self.inputs.items()}
        self.raw = synchronised(self.untrained().to(fabric.device), fabric)
        self.average = WeightAverage(self.raw.generator, config.ema)
        betas = (config.beta1, config.beta2)
        self.adam_g = adam(self.raw.generator, config, config.lr_g, betas=betas)
        self.adam_d = adam(self.raw.critic, config, config.lr_d, betas=betas)
        self.generator, self.optimiser_g = fabric.setup(self.raw.generator, self.adam_g)
        self.critic, self.optimiser_d = fabric.setup(self.raw.critic, self.adam_d)
        self.loss = gan_loss(config.loss, label_smoothing=config.label_smoothing)
        self.weight = config.penalty
        if self.weight is None:
            self.weight = 10.0 if self.loss.penalty else 1.0
        self.augment = Augment(names=config.augment or ())
        self.normed = any(isinstance(part, SpectralNorm) for part in self.raw.critic.modules())

    def parts(self) -> dict[str, Any]:
        return {
            "model": self.raw,
            "average": self.average,
            "optimiser_g": self.adam_g,
            "optimiser_d": self.adam_d,
        }

    def best_part(self) -> nn.Module:
        return self.average.module

    def step(self, state: State) -> Tensor:
        """A step of the generator after ``n_critic`` of the critic; none in the warm-up."""
        config = self.config
        warm = state.step - self.before - config.warmup_d
        train_d, train_g = not 0 <= warm < config.warmup_g, warm >= 0
        penalty = state.last("penalty")  # that of the last step that had one
        norm_d = norm_g = penalty.new_zeros(())
        first = state.step * config.n_critic
        for critic_step in range(first, first + (config.n_critic if train_d else 1)):
            batch = self.draw(state)
            with self._shared(), torch.set_grad_enabled(train_d):
                real = self.changed(batch.real, state)
                fake = self.changed(self.make(batch, state), state)
                real_scores, fake_scores = self.scores_of(real, fake, batch)
                total = loss_d = self.loss.critic(*self._compared(real_scores, fake_scores))
                if self.weight == 0 or not train_d:
                    penalty = loss_d.new_zeros(())
                elif critic_step % config.penalty_every == 0:
                    penalty = self.penalty(real, fake, batch, state)
                    total = loss_d + config.penalty_every * penalty
                if train_d:
                    norm_d = update(self.fabric, self.critic, total, self.optimiser_d, config.clip)
        gap = real_scores.mean() - fake_scores.mean()

        # The generator's step needs the critic's gradient with respect to its input only; the
        # scores of real samples then have no graph.
        self.raw.critic.requires_grad_(False)
        with self._shared(), torch.set_grad_enabled(train_g):
            fake = self.changed(self.make(batch, state, self.generator), state)
            needed = self.loss.generator_needs_real
            real_scores = self._scores(real, **batch.inputs) if needed else None
            fake_scores = self._scores(fake, **batch.inputs)
            loss_g = self.loss.generator(*self._compared(fake_scores, real_scores))
            if train_g:
                total = loss_g + self.beside_the_scores(fake, batch, state)
                norm_g = update(self.fabric, self.generator, total, self.optimiser_g, config.clip)
        self.raw.critic.requires_grad_(True)
        if train_g:
            self.average.update(self.raw.generator)
        numbers = torch.stack((loss_d, loss_g, gap, penalty, norm_d, norm_g)).detach().float()
        return self.fabric.all_reduce(numbers, reduce_op="mean")

    def scores_of(self, real: Tensor, fake: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The critic's scores of what counts as real and as generated, as many of each."""
        twice = {name: torch.cat((value, value)) for name, value in batch.inputs.items()}
        return self.critic(torch.cat((real, fake)), **twice).split(len(real))

    def beside_the_scores(self, fake: Tensor, batch: Batch, state: State) -> Tensor | float:
        """What the generator's loss has besides the critic's scores."""
        return 0.0

    def draw(self, state: State) -> Batch:
        """This process's share of a batch of real samples, drawn with replacement."""
        pick = state.share(
            torch.randint(
                self.size,
                (self.config.batch_size,),
                generator=state.generator,
                device=state.device,
            )
        )
        inputs = {name: value[pick] for name, value in self.inputs.items()}
        return Batch(self.real(self.samples[pick]).contiguous(), inputs)

    def make(self, batch: Batch, state: State, generator: nn.Module | None = None) -> Tensor:
        """Generated samples for the share of ``batch``; without ``generator``, without a graph."""
        noise = self.noise(self.raw.generator, self.config.batch_size, state.generator)
        noise = state.share(noise)
        random = state.own_generator() if self.draws else None
        if generator is not None:
            return self.fake(generator, noise, batch.inputs, random)
        with torch.no_grad(), self.fabric.autocast():
            return self.fake(self.raw.generator, noise, batch.inputs, random).float()

    # Whether the generator draws random numbers itself.
    draws = False
    # Steps of another kind that come before those of generator and critic.
    before = 0

    def _scores(self, samples: Tensor, **inputs: Tensor) -> Tensor:
        """The critic's scores, for anything but the loss of the critic's own step."""
        # Bypasses Fabric's wrapper: DDP has nothing to do here, and Fabric would take any backward
        # through its wrapper, such as the first of a penalty, for that of the loss.
        with self.fabric.autocast():
            return self.raw.critic(samples, **inputs).float()

    def changed(self, samples: Tensor, state: State) -> Tensor:
        """What the critic sees of ``samples``: augmented, where that is asked for."""
        if not self.augment.names:
            return samples
        whole = samples.new_empty((self.config.batch_size, *samples.shape[1:]))
        drawn = self.augment.draw(whole, state.generator)
        mine = {name: state.share(parameter) for name, parameter in drawn.items()}
        return self.augment(samples, parameters=mine)

    def penalty(self, real: Tensor, fake: Tensor, batch: Batch, state: State) -> Tensor:
        """The penalty of this process's share; all processes together have that of the batch."""
        kind = self.loss.penalty or "r1"
        if state.share.count > 1 and kind == "wgan-gp":
            # Draws for the whole batch. With real equal to fake the penalty's own draw has no
            # effect.
            ones = real.new_ones(self.config.batch_size)
            a = interpolate(ones, torch.zeros_like(ones), generator=state.generator)
            a = state.share(a).view(-1, *[1] * (real.dim() - 1))
            real = fake = fake + a * (real - fake)
        return gradient_penalty(
            self._scores,
            real,
            fake,
            kind=kind,
            lambda_=self.weight,
            generator=state.generator if state.share.count == 1 else None,
            critic_kwargs=batch.inputs,
            batch_fraction=self.config.penalty_fraction,
            scaler=scaler_of(self.fabric),
        )

    def _shared(self) -> AbstractContextManager[None]:
        """One power iteration for the calls of a step."""
        return spectral_norm_step(self.raw.critic) if self.normed else nullcontext()

    def _compared(self, *scores: Tensor | None) -> tuple[Tensor | None, ...]:
        """The scores of all processes, for losses that compare a sample with the mean."""
        if self.fabric.world_size == 1 or not self.config.loss.startswith("relativistic-average"):
            return scores
        return tuple(
            None if s is None else self.fabric.all_gather(s, sync_grads=True).flatten()
            for s in scores
        )

    @torch.no_grad()
    def some(
        self, generator: nn.Module, count: int = WATCHED
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """``count`` real and generated samples as the critic sees them, and their conditions;
        the choice and the noise are the same at each call."""
        random = torch.Generator(self.samples.device).manual_seed(self.config.seed)
        count = min(count, self.size)
        pick = torch.randperm(self.size, generator=random, device=self.samples.device)[:count]
        inputs = {name: value[pick] for name, value in self.inputs.items()}
        with eval_mode(generator):
            noise = self.noise(generator, count, random)
            fake = self.fake(generator, noise, inputs, random if self.draws else None)
        return self.real(self.samples[pick]), fake, inputs

    def watched(self) -> float:
        """The squared maximum mean discrepancy between samples and data."""
        from ganlstm_fast.training.metrics.series import kernel_width, mmd_squared

        real, fake = (part.cpu() for part in self.some(self.average.module)[:2])
        return mmd_squared(real, fake, kernel_width(real))

    def troubles(self, state: State) -> dict[str, str]:
        real, fake, inputs = self.some(self.average.module)
        found = {}
        spread = fake.flatten(1).std(0).mean() / real.flatten(1).std(0).mean().clamp_min(1e-12)
        if spread < COLLAPSED:
            found["collapse"] = (
                f"the generator has collapsed: its samples differ {100 * spread:.1f}% as much as "
                "the data; try another `loss`, a larger `penalty`, or a smaller `lr_g`"
            )
        with torch.no_grad(), eval_mode(self.raw.critic):
            apart = self._scores(real, **inputs).min() > self._scores(fake, **inputs).max()
        if apart:
            found["critic"] = (
                "the critic wins outright: it scores every real sample above every generated one; "
                "try a smaller `lr_d` or `n_critic`, a larger `penalty`, or `label_smoothing`"
            )
        return found

"""Generated text."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, TextIO

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlstm_fast.models import TextGAN
from ganlstm_fast.training.checkpoint import atomic_write
from ganlstm_fast.training.configs import TextGANConfig
from ganlstm_fast.training.datasets import Vocabulary, load_text, text_windows
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.outputs import trained
from ganlstm_fast.training.recipes.base import update
from ganlstm_fast.training.recipes.gan import Batch, GANRecipe
from ganlstm_fast.training.state import Run, State

MADE = 1000


class TextGANRecipe(GANRecipe):
    """Stretches of a text."""

    config: TextGANConfig
    draws = True

    def __init__(self, config: TextGANConfig) -> None:
        super().__init__(config)
        text = load_text(config.data)
        self.name = "sonnets" if config.data is None else Path(config.data).stem
        file = config.data or "the bundled text"
        self.vocabulary = Vocabulary.of(text)
        if len(self.vocabulary) < 2:
            raise InputError(f"{file} has no symbol but {text[0]!r}; expected two or more")
        windows = text_windows(text, self.vocabulary, config.seq_len, name=file)
        self.samples, self.held = windows
        self.inputs = {}
        fingerprint = hashlib.sha256(text.encode()).hexdigest()
        self.data = {"fingerprint": fingerprint, "symbols": self.vocabulary.symbols}

    @staticmethod
    def model(config: TextGANConfig, data: dict[str, Any]) -> nn.Module:
        return TextGAN(
            len(data["symbols"]),
            config.noise,
            config.hidden,
            config.layers,
            embedding=config.embedding,
            bidirectional=config.bidirectional,
            feedback=config.feedback,
            critic=config.critic,
            spectral_norm=config.spectral_norm,
        )

    def describe(self) -> str:
        return (
            f"{self.name}: {self.size} stretches of {self.config.seq_len} symbols out of "
            f"{len(self.vocabulary)}"
        )

    def noise(self, generator: nn.Module, count: int, random: torch.Generator) -> Tensor:
        return generator.noise(count, self.config.seq_len, random)

    def real(self, samples: Tensor) -> Tensor:
        return F.one_hot(samples, len(self.vocabulary)).float()

    def fake(
        self,
        generator: nn.Module,
        noise: Tensor,
        inputs: dict[str, Tensor],
        random: torch.Generator | None = None,
    ) -> Tensor:
        options = {"temperature": self.config.temperature, "hard": self.config.hard}
        return generator(noise, **options, generator=random)

    @property
    def before(self) -> int:
        return self.config.pretrain

    def step(self, state: State) -> Tensor:
        pretrain = state.step < self.config.pretrain
        for group in self.optimiser_g.param_groups:
            group["lr"] = self.config.lr_pretrain if pretrain else self.config.lr_g
        return self.likelihood_step(state) if pretrain else super().step(state)

    def likelihood_step(self, state: State) -> Tensor:
        """A step of the generator alone, towards a higher likelihood of real text."""
        loss = self.negative_log_likelihood(self.draw(state).real, state)
        norm = update(self.fabric, self.generator, loss, self.optimiser_g, self.config.clip)
        self.average.update(self.raw.generator)
        numbers = loss.new_zeros(len(self.columns))
        for name, value in (("loss_g", loss), ("grad_norm_g", norm)):
            numbers[self.columns.index(name)] = value.detach()
        return self.fabric.all_reduce(numbers, reduce_op="mean")

    def negative_log_likelihood(self, real: Tensor, state: State) -> Tensor:
        """Of ``real`` [share of the batch, steps, symbols], in nats a symbol."""
        noise = self.noise(self.raw.generator, self.config.batch_size, state.generator)
        logits = self.generator(state.share(noise), given=real).float()
        return F.cross_entropy(logits.flatten(0, 1), real.flatten(0, 1).argmax(1))

    def beside_the_scores(self, fake: Tensor, batch: Batch, state: State) -> Tensor | float:
        weight = self.config.likelihood
        return weight * self.negative_log_likelihood(batch.real, state) if weight else 0.0

    def finish(self, run: Run, progress: Any) -> dict[str, Any]:
        """samples.txt, and how like real text its symbols are."""
        config = self.config
        random = torch.Generator(run.state.device).manual_seed(config.seed)
        made = trained(run).sample(MADE, config.seq_len, random).argmax(2).cpu()
        self.write(run.folder / "samples.txt", made, self.data)
        if config.metrics == "none":
            return {}
        from ganlstm_fast.training.metrics.generated_texts import ITERATIONS, evaluate_texts

        iterations, length = ITERATIONS[config.metrics], config.seq_len
        # Windows that do not overlap.
        real = [windows[::length].cpu() for windows in (self.samples, self.held)]
        with progress(total=4 * iterations, unit="it", desc="metrics") as bar:
            return evaluate_texts(
                *real, made, self.vocabulary, iterations, config.seed, tick=bar.update
            )

    @staticmethod
    def generate(
        model: nn.Module, config: TextGANConfig, data: dict[str, Any], count: int, seed: int
    ) -> Tensor:
        """Numbers of symbols [count, seq_len]."""
        random = torch.Generator(next(model.parameters()).device).manual_seed(seed)
        return model.generator.sample(count, config.seq_len, random).argmax(2).cpu()

    @staticmethod
    def write(path: Path | TextIO, made: Tensor, data: dict[str, Any]) -> str:
        """Write ``made`` as text, a sequence a line (line ends as spaces); returns what it is."""
        vocabulary = Vocabulary(data["symbols"])
        lines = "".join(
            f"{vocabulary.decode(row)}\n".replace("\n", " ")[:-1] + "\n" for row in made
        )
        if isinstance(path, Path):
            with atomic_write(path) as temporary:
                temporary.write_text(lines, encoding="utf-8")
        else:
            path.write(lines)
        return f"{len(made)} lines of {made.shape[1]} symbols"

"""Generated text."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlstm_fast.models import TextGAN
from ganlstm_fast.models.sequence import run_lstm
from ganlstm_fast.training.checkpoint import atomic_write
from ganlstm_fast.training.configs import TextGANConfig
from ganlstm_fast.training.datasets import Vocabulary, load_text, text_windows
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.fabric import OneProcess
from ganlstm_fast.training.outputs import trained
from ganlstm_fast.training.recipes.adam import adam
from ganlstm_fast.training.recipes.base import length_of, update
from ganlstm_fast.training.recipes.gan import Batch, GANRecipe
from ganlstm_fast.training.state import Run, State

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MADE = 1000
# The critics whose LSTM reads forwards only and so cannot see what comes next.
READERS = ("lstm", "attention")


class NextSymbol(nn.Module):
    """What a critic's LSTM expects next: one-hot text -> logits [batch, steps - 1, symbols].

    A language model of the critic's own layers and one that only pretraining needs. A critic that
    has learnt the language tells generated text from real much sooner (as classifiers do: Dai and
    Le, Semi-supervised Sequence Learning, 2015).
    """

    def __init__(self, prepare: nn.Module, lstm: nn.LSTM, symbols: int) -> None:
        super().__init__()
        self.prepare, self.lstm = prepare, lstm
        self.head = nn.Linear(lstm.hidden_size, symbols)

    def forward(self, text: Tensor) -> Tensor:
        return self.head(run_lstm(self.lstm, self.prepare(text[:, :-1]))[0])


def cross_entropy(logits: Tensor, one_hot: Tensor) -> Tensor:
    """The mean over all symbols, both [batch, steps, symbols], in float32."""
    return F.cross_entropy(logits.float().flatten(0, 1), one_hot.flatten(0, 1).argmax(1))


class TextGANRecipe(GANRecipe):
    """Stretches of a text."""

    given = ("seq_len",)
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

    def setup(self, fabric: Fabric | OneProcess) -> None:
        super().setup(fabric)
        self.reader = None
        critic = self.raw.critic
        if self.config.pretrain and self.config.critic in READERS:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.config.seed)
                self.reader = NextSymbol(critic.prepare, critic.lstm, len(self.vocabulary))
            self.reader.to(fabric.device)
            self.adam_r = adam(self.reader, self.config, self.config.lr_pretrain)
            self.reading, self.optimiser_r = fabric.setup(self.reader, self.adam_r)

    def parts(self) -> dict[str, Any]:
        found = super().parts()
        if self.reader is not None:
            found |= {"reader": self.reader.head, "optimiser_r": self.adam_r}
        return found

    def step(self, state: State) -> Tensor:
        pretrain = state.step < self.config.pretrain
        for group in self.optimiser_g.param_groups:
            group["lr"] = self.config.lr_pretrain if pretrain else self.config.lr_g
        return self.likelihood_step(state) if pretrain else super().step(state)

    def likelihood_step(self, state: State) -> Tensor:
        """Generator and critic each learn real text, independently of each other."""
        real, clip = self.draw(state).real, self.config.clip
        loss = self.negative_log_likelihood(real, state)
        norm = update(self.fabric, self.generator, loss, self.optimiser_g, clip)
        self.average.update(self.raw.generator)
        numbers = {"loss_g": loss, "grad_norm_g": norm}
        if self.reader is not None:
            loss = cross_entropy(self.reading(real), real[:, 1:])
            norm = update(self.fabric, self.reading, loss, self.optimiser_r, clip)
            numbers |= {"loss_d": loss, "grad_norm_d": norm}
        zero = loss.new_zeros(())
        row = torch.stack([numbers.get(name, zero).detach().float() for name in self.columns])
        return self.fabric.all_reduce(row, reduce_op="mean")

    def negative_log_likelihood(self, real: Tensor, state: State) -> Tensor:
        """Of ``real`` [share of the batch, steps, symbols], in nats a symbol."""
        noise = self.noise(self.raw.generator, self.config.batch_size, state.generator)
        return cross_entropy(self.generator(state.share(noise), given=real), real)

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
        model: nn.Module,
        config: TextGANConfig,
        data: dict[str, Any],
        count: int,
        seed: int,
        seq_len: int | None = None,
    ) -> Tensor:
        """Numbers of symbols [count, seq_len]."""
        steps = length_of(config, seq_len)
        random = torch.Generator(next(model.parameters()).device).manual_seed(seed)
        return model.generator.sample(count, steps, random).argmax(2).cpu()

    @staticmethod
    def as_result(made: Tensor, data: dict[str, Any]) -> list[str]:
        """The texts of numbers of symbols [n, seq_len]."""
        vocabulary = Vocabulary(data["symbols"])
        return [vocabulary.decode(row) for row in made]

    @staticmethod
    def write(path: Path | TextIO, made: Tensor, data: dict[str, Any]) -> str:
        """Write ``made`` as text, a sequence a line (line ends as spaces); returns what it is."""
        texts = TextGANRecipe.as_result(made, data)
        lines = "".join(text.replace("\n", " ") + "\n" for text in texts)
        if isinstance(path, Path):
            with atomic_write(path) as temporary:
                temporary.write_text(lines, encoding="utf-8")
        else:
            path.write(lines)
        return f"{len(made)} lines of {made.shape[1]} symbols"

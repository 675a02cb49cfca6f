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
from ganlstm_fast.training.errors import UndefinedScore
from ganlstm_fast.training.outputs import trained
from ganlstm_fast.training.recipes.gan import GANRecipe
from ganlstm_fast.training.state import Run
from ganlstm_fast.training.undefined import defined_for

MADE = 1000


class TextGANRecipe(GANRecipe):
    """Stretches of a text."""

    config: TextGANConfig
    draws = True

    def __init__(self, config: TextGANConfig) -> None:
        super().__init__(config)
        text = load_text(config.data)
        self.name = "sonnets" if config.data is None else Path(config.data).stem
        self.vocabulary = Vocabulary.of(text)
        self.samples, self.held = text_windows(text, self.vocabulary, config.seq_len)
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

    def finish(self, run: Run, progress: Any) -> dict[str, Any]:
        """samples.txt, and how far its groups of symbols are from those of the text."""
        config = self.config
        random = torch.Generator(run.state.device).manual_seed(config.seed)
        made = trained(run).sample(MADE, config.seq_len, random).argmax(2).cpu()
        self.write(run.folder / "samples.txt", made, self.data)
        if config.metrics == "none":
            return {}
        count = len(self.vocabulary)
        noise = torch.randint(count, made.shape, generator=torch.Generator().manual_seed(0))
        shuffled = self.samples.flatten()[
            torch.randint(self.samples.numel(), made.shape, generator=random.clone_state())
        ]
        kinds = {"generated": made, "real": self.held, "noise": noise, "shuffled": shuffled}
        return {
            f"distance_of_{n}_grams": defined_for(
                kinds, lambda kind, n=n: jensen_shannon(self.samples, kind, n, count)
            )
            for n in (1, 2, 3)
        }

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


def jensen_shannon(a: Tensor, b: Tensor, n: int, symbols: int) -> float:
    """How far the frequencies of groups of ``n`` symbols differ, from 0 (equal) to 1 (none shared).

    The Jensen-Shannon divergence in bits (Lin, 1991) of the groups in ``a`` and ``b``
    [any number, steps] of numbers below ``symbols``.

    Raises:
        UndefinedScore: no sequences, or sequences shorter than a group.
    """
    for part in (a, b):
        if not len(part) or part.shape[1] < n:
            raise UndefinedScore(
                f"{len(part)} sequences of {part.shape[1]} symbols have no groups of {n}"
            )
    place = symbols ** torch.arange(n)
    groups = [(part.unfold(1, n, 1) * place).sum(-1).flatten() for part in (a, b)]
    # Only groups that are there: of 5,000 symbols there would be 10^11 groups of 3.
    there, number = torch.unique(torch.cat(groups), return_inverse=True)
    counts = [
        torch.bincount(part, minlength=len(there)) for part in number.split(list(map(len, groups)))
    ]
    p, q = (count.double() / count.sum() for count in counts)
    middle = (p + q) / 2
    divergences = [torch.special.xlogy(x, x / middle).nan_to_num().sum() for x in (p, q)]
    return max(0.0, (sum(divergences) / 2 / torch.log(torch.tensor(2.0))).item())

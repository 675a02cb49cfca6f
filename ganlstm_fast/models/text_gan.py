"""A generative adversarial network for sequences of symbols, such as the characters of a text.

Symbols are drawn by the Gumbel-softmax (Jang et al., 2017; Maddison et al., 2017; for GANs: Kusner
and Hernández-Lobato, 2016), so that the critic's gradient reaches the generator through them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganlstm_fast.models.base import normalized, sample_in_batches
from ganlstm_fast.models.critics import make_critic, uses_spectral_norm
from ganlstm_fast.models.gumbel import gumbel_softmax
from ganlstm_fast.models.lstm_generator import LSTMGenerator
from ganlstm_fast.models.sequence import LSTMClass
from ganlstm_fast.nn import FastLSTM
from ganlstm_fast.nn.masks import Lengths, zero_padding
from ganlstm_fast.validation import check_counts


class SymbolEmbedding(nn.Module):
    """One-hot or relaxed symbols [batch, steps, symbols] -> [batch, steps, size], linear."""

    def __init__(self, symbols: int, size: int, spectral_norm: bool) -> None:
        super().__init__()
        self.size = size
        self.linear = normalized(nn.Linear(symbols, size, bias=False), spectral_norm)

    def forward(self, symbols: Tensor) -> Tensor:
        return self.linear(symbols)


class TextGenerator(LSTMGenerator):
    """Noise [batch, steps, noise] -> symbols [batch, steps, channels], each one of ``channels``.

    The sequence is made in one pass: a step's logits know the noise of all steps before it, but not
    the symbols that were drawn there. What hangs together has to come of the noise, and the logits
    have to become sharp. Args: as for :class:`LSTMGenerator`.
    """

    def forward(
        self,
        noise: Tensor,
        *,
        temperature: float = 1.0,
        hard: bool = False,
        lengths: Lengths | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Rows that sum to 1, or one-hot rows with ``hard``; zero after a sequence's end.

        Arguments: as for :func:`gumbel_softmax`.
        """
        logits = self.outputs(noise, lengths=lengths)
        return zero_padding(gumbel_softmax(logits, temperature, hard, generator), lengths)

    def sample(
        self,
        count: int,
        steps: int,
        generator: torch.Generator | None = None,
        batch: int = 1024,
        *,
        temperature: float = 1.0,
        hard: bool = True,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """``count`` sequences [count, steps, channels]; ``.argmax(2)`` gives the symbols' indices.

        One-hot draws from the softmax of the logits, whatever the temperature, unless ``hard`` is
        False.
        """

        def make(rows: slice) -> Tensor:
            options = {"temperature": temperature, "hard": hard, "generator": generator}
            options["lengths"] = None if lengths is None else lengths[rows]
            return self(self.noise(rows.stop - rows.start, steps, generator), **options)

        return sample_in_batches(self, count, batch, make)


class TextGAN(nn.Module):
    """The pair, as ``generator`` and ``critic``; real text enters the critic one-hot::

        real = F.one_hot(indices, symbols).float()  # [batch, steps, symbols]
        fake = gan(gan.generator.noise(batch, steps), temperature=0.5)

    Args:
        symbols: how many there are, 2 or more.
        embedding: the size of the critic's linear embedding of a symbol.
        noise, hidden, layers, lstm, bidirectional, critic: as for
            :class:`~ganlstm_fast.models.LSTMGAN`.
        spectral_norm: likewise, on the embedding too.
    """

    def __init__(
        self,
        symbols: int,
        noise: int = 16,
        hidden: int = 64,
        layers: int = 1,
        lstm: LSTMClass = FastLSTM,
        *,
        embedding: int = 32,
        bidirectional: bool = False,
        critic: str = "lstm",
        spectral_norm: bool | None = None,
    ) -> None:
        super().__init__()
        check_counts(2, symbols=symbols)
        check_counts(embedding=embedding)
        options = {"bidirectional": bidirectional}
        self.generator = TextGenerator(symbols, noise, hidden, layers, lstm, **options)
        norm = uses_spectral_norm(critic, spectral_norm)
        prepare = SymbolEmbedding(symbols, embedding, norm)
        self.critic = make_critic(critic, symbols, hidden, layers, lstm, norm, prepare=prepare)

    def forward(self, noise: Tensor, **options: object) -> Tensor:
        """``options``: those of the generator's forward, such as ``temperature`` and ``hard``."""
        return self.generator(noise, **options)

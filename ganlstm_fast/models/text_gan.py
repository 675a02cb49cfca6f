"""A generative adversarial network for sequences of symbols, such as the characters of a text.

Symbols are drawn by the Gumbel-softmax (Jang et al., 2017; Maddison et al., 2017; for GANs: Kusner
and Hernández-Lobato, 2016), so that the critic's gradient reaches the generator through them.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlstm_fast.models.base import normalized, sample_in_batches
from ganlstm_fast.models.critics import make_critic, uses_spectral_norm
from ganlstm_fast.models.gumbel import gumbel_softmax
from ganlstm_fast.models.lstm_generator import LSTMGenerator
from ganlstm_fast.models.sequence import LSTMClass
from ganlstm_fast.nn import FastLSTM
from ganlstm_fast.nn.masks import Lengths, zero_padding
from ganlstm_fast.ops.validation import check_counts


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

    With ``feedback`` a step reads the symbol that was drawn before it, as the generators of SeqGAN
    (Yu et al., 2017) and RelGAN (Nie et al., 2019) do, and the gradient flows back through what was
    drawn. Such a generator is a language model too: see ``given``. Without it the sequence is made
    in one pass: a step's logits know the noise of all steps before it, but not the symbols that
    were drawn there. So the coherence of a text has to come from the noise, and the logits have to
    become sharp.

    Args:
        channels, noise, hidden, layers, lstm, bidirectional: as for :class:`LSTMGenerator`.
        feedback: see above; not with ``bidirectional``.

    Raises:
        ValueError: ``feedback`` and ``bidirectional``.
    """

    def __init__(
        self,
        channels: int,
        noise: int = 16,
        hidden: int = 32,
        layers: int = 1,
        lstm: LSTMClass = FastLSTM,
        *,
        bidirectional: bool = False,
        feedback: bool = False,
    ) -> None:
        if feedback and bidirectional:
            raise ValueError("bidirectional: expected False with feedback, got True")
        options = {"bidirectional": bidirectional, "condition": channels if feedback else 0}
        super().__init__(channels, noise, hidden, layers, lstm, **options)
        self.feedback = feedback

    def forward(
        self,
        noise: Tensor,
        *,
        temperature: float = 1.0,
        hard: bool = False,
        lengths: Lengths | None = None,
        generator: torch.Generator | None = None,
        given: Tensor | None = None,
    ) -> Tensor:
        """Rows that sum to 1, or one-hot rows with ``hard``; zero after a sequence's end.

        Args:
            temperature, hard, generator: as for :func:`gumbel_softmax`.
            given: [batch, steps, channels], one-hot symbols of a text. Nothing is drawn then, and
                the result is the logits of each symbol after those before it (teacher forcing,
                Williams and Zipser, 1989), for training by maximum likelihood.

        Raises:
            ValueError: ``given`` for a generator without ``feedback``.
        """
        draw = partial(gumbel_softmax, temperature=temperature, hard=hard, generator=generator)
        if given is not None:
            if not self.feedback:
                raise ValueError("given: expected None for a generator without feedback")
            before = F.pad(given[:, :-1], (0, 0, 1, 0))
            return self.outputs(torch.cat((noise, before), 2), lengths=lengths)
        if not self.feedback:
            return zero_padding(draw(self.outputs(noise, lengths=lengths)), lengths)
        symbol, state, drawn = noise.new_zeros(len(noise), 1, self.head.out_features), None, []
        for step in noise.split(1, 1):
            outputs, state = self.lstm(torch.cat((step, symbol), 2), state)
            symbol = draw(self.head(outputs))
            drawn.append(symbol)
        return zero_padding(torch.cat(drawn, 1), lengths)

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
        feedback: as for :class:`TextGenerator`.
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
        feedback: bool = False,
        critic: str = "lstm",
        spectral_norm: bool | None = None,
    ) -> None:
        super().__init__()
        check_counts(2, symbols=symbols)
        check_counts(embedding=embedding)
        options = {"bidirectional": bidirectional, "feedback": feedback}
        self.generator = TextGenerator(symbols, noise, hidden, layers, lstm, **options)
        norm = uses_spectral_norm(critic, spectral_norm)
        prepare = SymbolEmbedding(symbols, embedding, norm)
        self.critic = make_critic(critic, symbols, hidden, layers, lstm, norm, prepare=prepare)

    def forward(self, noise: Tensor, **options: object) -> Tensor:
        """``options``: those of the generator's forward, such as ``temperature`` and ``hard``."""
        return self.generator(noise, **options)

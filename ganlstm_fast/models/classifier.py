"""An LSTM that reads a sequence of numbers or symbols and predicts its class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganlstm_fast.models.base import eval_mode
from ganlstm_fast.models.sequence import LSTMClass, SequenceEncoder, check_symbols
from ganlstm_fast.nn import FastLSTM
from ganlstm_fast.nn.masks import Lengths
from ganlstm_fast.ops.validation import check_counts


class LSTMClassifier(nn.Module):
    """Sequence [batch, steps, channels] -> logits [batch, classes], for ``F.cross_entropy``.

    With ``symbols`` the sequence is [batch, steps] int64, such as the characters of a text.

    Args:
        channels: values a step; with ``symbols``, how many numbers each symbol is embedded in.
        classes: how many, 2 or more.
        symbols: how many there are, numbered from 0; None for sequences of numbers.
        hidden, layers, bidirectional, dropout, attention, lstm: of the LSTM that reads the
            sequence, as for :class:`~ganlstm_fast.models.sequence.SequenceEncoder`.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        symbols: int | None = None,
        hidden: int = 64,
        layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.0,
        attention: str | None = None,
        lstm: LSTMClass = FastLSTM,
    ) -> None:
        super().__init__()
        check_counts(2, classes=classes)
        options = {"bidirectional": bidirectional, "dropout": dropout, "attention": attention}
        self.embedding = None
        if symbols is not None:
            check_counts(channels=channels, symbols=symbols)
            self.embedding = nn.Embedding(symbols, channels)
        self.encoder = SequenceEncoder(channels, hidden, layers, lstm=lstm, **options)
        self.head = nn.Linear(self.encoder.size, classes)

    def forward(self, sequence: Tensor, *, lengths: Lengths | None = None) -> Tensor:
        """``lengths`` [batch] for a padded batch: steps after a sequence's end are not read.

        Raises:
            TypeError, ValueError: symbols of the wrong type, shape, or (on the CPU) number.
        """
        if self.embedding is not None:
            check_symbols("sequence", sequence, self.embedding.num_embeddings)
            sequence = self.embedding(sequence)
        return self.head(self.encoder(sequence, lengths))

    @torch.no_grad()
    def predict_proba(self, sequence: Tensor, *, lengths: Lengths | None = None) -> Tensor:
        """The classes' probabilities [batch, classes], without dropout and without a gradient."""
        with eval_mode(self):
            return self(sequence, lengths=lengths).softmax(1)

"""What the models of sequences share: an LSTM with lengths, its inputs, its summary."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ganlstm_fast.nn import AdditiveAttention, DotProductAttention, FastLSTM
from ganlstm_fast.nn.masks import Lengths
from ganlstm_fast.ops.validation import check_choice, check_counts, check_lengths, describe

LSTMClass = Callable[..., nn.LSTM]

ATTENTIONS = {"additive": AdditiveAttention, "dot": DotProductAttention}


def make_attention(name: str, features: int, **options: int) -> nn.Module:
    """The attention layer called ``name``: ``"additive"`` or ``"dot"``."""
    check_choice("attention", name, ATTENTIONS)
    return ATTENTIONS[name](features, **options)


def check_symbols(name: str, symbols: object, count: int) -> None:
    """Check that ``symbols`` is [batch, steps] int64; on the CPU its values too, 0..count - 1.

    Raises:
        TypeError: not an int64 tensor. ValueError: another shape, or a value out of range.
    """
    if not isinstance(symbols, Tensor) or symbols.dtype != torch.int64:
        raise TypeError(f"{name}: expected an int64 tensor, got {describe(symbols)}")
    if symbols.dim() != 2:
        raise ValueError(f"{name}: expected shape (batch, steps), got {tuple(symbols.shape)}")
    if symbols.device.type == "cpu" and symbols.numel():
        low, high = (int(value) for value in symbols.aminmax())
        if low < 0 or high >= count:
            worst = low if low < 0 else high
            raise ValueError(f"{name}: expected values in 0..{count - 1}, got {worst}")


def run_lstm(lstm: nn.LSTM, x: Tensor, lengths: Lengths | None = None) -> tuple[Tensor, Tensor]:
    """Outputs [batch, steps, features] and last hidden states [layers * directions, batch, hidden].

    For any ``batch_first`` LSTM with torch's interface: one that does not take ``lengths`` is given
    a packed sequence. Outputs after a sequence's end are zero.
    """
    if lengths is None:
        outputs, (last, _) = lstm(x)
    elif isinstance(lstm, FastLSTM):
        outputs, (last, _) = lstm(x, lengths=lengths)
    else:
        lengths = check_lengths(lengths, x.size(0), x.size(1)).cpu()
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        outputs, (last, _) = lstm(packed)
        outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=x.size(1))
    return outputs, last


def join(x: Tensor, condition: Tensor | None) -> Tensor:
    """``x`` [batch, steps, a] with ``condition`` [batch, b] beside each step, or ``x`` alone."""
    if condition is None:
        return x
    return torch.cat((x, condition.unsqueeze(1).expand(-1, x.size(1), -1)), 2)


class ValuesAndChanges(nn.Module):
    """Series [batch, steps, channels] in [0, 1] -> [batch, steps, size], size = 2 * channels.

    Each value beside its change since the step before, both scaled to about unit size: within
    [0, 1] they are so small that a critic of bounded slope is slow to see them.
    """

    VALUE_SCALE = 4.0
    CHANGE_SCALE = 8.0

    def __init__(self, channels: int) -> None:
        super().__init__()
        check_counts(channels=channels)
        self.size = 2 * channels

    def forward(self, series: Tensor) -> Tensor:
        values = self.VALUE_SCALE * (series - 0.5)
        changes = F.pad(self.CHANGE_SCALE * series.diff(dim=1), (0, 0, 1, 0))
        return torch.cat((values, changes), 2)


class SequenceEncoder(nn.Module):
    """A sequence [batch, steps, channels] -> its summary [batch, size].

    The summary is the last layer's state after each direction's last step; with attention, followed
    by the outputs pooled with that state as the query (Bahdanau et al., 2015).

    Args:
        channels: of the sequence.
        hidden, layers, bidirectional: of the LSTM.
        dropout: of the LSTM between its layers, and of the summary.
        attention: None, ``"additive"`` or ``"dot"``.
        lstm: the layer's class, with the constructor of ``torch.nn.LSTM``.
    """

    def __init__(
        self,
        channels: int,
        hidden: int = 64,
        layers: int = 1,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        attention: str | None = None,
        lstm: LSTMClass = FastLSTM,
    ) -> None:
        super().__init__()
        check_counts(channels=channels, hidden=hidden, layers=layers)
        options = {"bidirectional": bidirectional, "dropout": dropout if layers > 1 else 0.0}
        self.lstm = lstm(channels, hidden, num_layers=layers, batch_first=True, **options)
        self.directions = 1 + bidirectional
        self.size = hidden * self.directions
        self.attention = None
        if attention is not None:
            query = {"query_features": self.size}
            self.attention = make_attention(attention, self.size, **query)
            self.size *= 2
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Lengths | None = None) -> Tensor:
        outputs, last = run_lstm(self.lstm, x, lengths)
        summary = last[-self.directions :].transpose(0, 1).flatten(1)
        if self.attention is not None:
            pooled, _ = self.attention(outputs, summary, lengths=lengths)
            summary = torch.cat((summary, pooled), 1)
        return self.dropout(summary)

"""Critics of sequences: LSTM, bidirectional LSTM, LSTM with attention, convolutional.

All are called as ``critic(series, condition, lengths=lengths)`` and give scores [batch], linear in
their ``features(...)`` [batch, size], which the projection of a label and the reconstruction of
:mod:`ganlstm_fast.models.anomaly` use too. Steps after a sequence's end contribute nothing: their
values change neither scores nor gradients, and their own gradient is zero. Differentiable twice, as
a gradient penalty needs.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ganlstm_fast.models.base import normalized
from ganlstm_fast.models.conv_critic import ConvCritic
from ganlstm_fast.models.sequence import (
    LSTMClass,
    ValuesAndChanges,
    join,
    make_attention,
    run_lstm,
)
from ganlstm_fast.nn import FastLSTM
from ganlstm_fast.nn.masks import Lengths, masked_mean, zero_padding
from ganlstm_fast.ops.validation import check_choice, check_counts


class LSTMCritic(nn.Module):
    """Series [batch, steps, channels] in [0, 1] -> scores [batch]: the mean of a score a step.

    With attention the mean is weighted, by weights that the outputs give.

    Args:
        channels: values a step.
        hidden, layers, bidirectional: of the LSTM.
        lstm: the layer's class, with the constructor of ``torch.nn.LSTM``.
        attention: None, ``"additive"`` or ``"dot"``.
        spectral_norm: on the LSTM's weights, as ``SNLSTM`` has it, and on the last layer's. A
            ``torch.nn.LSTM`` then iterates several times a forward, since it reads its weights so
            often, unless it runs inside of ``spectral_norm_step``.
        condition: features of a condition, read at each step beside the values.
        prepare: makes the LSTM's input of the series; None is
            :class:`~ganlstm_fast.models.sequence.ValuesAndChanges`. Has the attribute ``size``.
    """

    def __init__(
        self,
        channels: int,
        hidden: int = 32,
        layers: int = 1,
        lstm: LSTMClass = FastLSTM,
        *,
        bidirectional: bool = False,
        attention: str | None = None,
        spectral_norm: bool = False,
        condition: int = 0,
        prepare: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_counts(channels=channels, hidden=hidden, layers=layers)
        self.prepare = ValuesAndChanges(channels) if prepare is None else prepare
        options = {"num_layers": layers, "batch_first": True, "bidirectional": bidirectional}
        inputs = self.prepare.size + condition
        self.lstm = normalized(lstm(inputs, hidden, **options), spectral_norm)
        self.size = hidden * (1 + bidirectional)
        self.attention = None if attention is None else make_attention(attention, self.size)
        self.head = normalized(nn.Linear(self.size, 1), spectral_norm)

    def _outputs(self, series: Tensor, condition: Tensor | None, lengths: Lengths | None) -> Tensor:
        prepared = self.prepare(zero_padding(series, lengths))
        return run_lstm(self.lstm, join(prepared, condition), lengths)[0]

    def _pool(self, outputs: Tensor, lengths: Lengths | None) -> Tensor:
        if self.attention is None:
            return masked_mean(outputs, lengths)
        return self.attention(outputs, lengths=lengths)[0]

    def features(
        self, series: Tensor, condition: Tensor | None = None, *, lengths: Lengths | None = None
    ) -> Tensor:
        """The pooled outputs [batch, size]."""
        return self._pool(self._outputs(series, condition, lengths), lengths)

    def forward(
        self, series: Tensor, condition: Tensor | None = None, *, lengths: Lengths | None = None
    ) -> Tensor:
        outputs = self._outputs(series, condition, lengths)
        if self.attention is None:
            # Not the score of the mean, which is the same up to rounding: runs resumed from earlier
            # versions continue with the same bits.
            return masked_mean(self.head(outputs), lengths).squeeze(1)
        return self.head(self._pool(outputs, lengths)).squeeze(1)


# The options of LSTMCritic that make each kind.
_LSTM_KINDS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "bilstm": {"bidirectional": True},
    "attention": {"attention": "additive"},
}
CRITICS = (*_LSTM_KINDS, "conv")


def uses_spectral_norm(kind: str, spectral_norm: bool | None) -> bool:
    """Whether a critic of a kind in ``CRITICS`` has spectral norm; None: where it is usual."""
    check_choice("critic", kind, CRITICS)
    return kind == "conv" if spectral_norm is None else spectral_norm


def make_critic(
    kind: str,
    channels: int,
    hidden: int,
    layers: int,
    lstm: LSTMClass,
    spectral_norm: bool,
    **options: Any,
) -> LSTMCritic | ConvCritic:
    """The critic of a kind in ``CRITICS``; ``options`` are others that both classes have.

    ``layers`` are an LSTM's; the convolutional critic keeps its own number.
    """
    options["spectral_norm"] = spectral_norm
    if kind == "conv":
        return ConvCritic(channels, hidden, **options)
    return LSTMCritic(channels, hidden, layers, lstm, **options, **_LSTM_KINDS[kind])

"""An LSTM that reads a sequence and forecasts the values that follow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlstm_fast.models.sequence import LSTMClass, SequenceEncoder
from ganlstm_fast.nn import FastLSTM
from ganlstm_fast.nn.masks import Lengths
from ganlstm_fast.ops.validation import check_counts, check_tensor


def quantile_loss(prediction: Tensor, target: Tensor, quantiles: Sequence[float]) -> Tensor:
    """``mean(max(q e, (q - 1) e))`` with ``e = target - prediction`` (Koenker and Bassett, 1978).

    Smallest where the prediction for q is the q-quantile of the target.

    Args:
        prediction: [..., len(quantiles)], floating. target: [...].
        quantiles: each between 0 and 1.

    Raises:
        TypeError, ValueError: a wrong shape or dtype.
    """
    check_tensor("prediction", prediction)
    check_tensor("target", target, tuple(prediction.shape[:-1]))
    q = prediction.new_tensor(quantiles)
    check_tensor("quantiles", q, tuple(prediction.shape[-1:]))
    error = target.unsqueeze(-1) - prediction
    return torch.maximum(q * error, (q - 1) * error).mean()


class LSTMForecaster(nn.Module):
    """Sequence [batch, steps, channels] -> the values after it [batch, horizon, targets].

    With ``quantiles`` [batch, horizon, targets, quantiles]; nothing keeps these from crossing, so
    sort them where their order matters.

    Args:
        channels: values a step of the sequence.
        horizon: how many steps are forecast.
        targets: values a step of the forecast; None is ``channels``.
        quantiles: the quantiles to forecast, each between 0 and 1; None forecasts the mean.
        hidden, layers, bidirectional, dropout, attention, lstm: of the LSTM that reads the
            sequence, as for :class:`~ganlstm_fast.models.sequence.SequenceEncoder`.
        residual: forecast the difference from the last value instead of the value itself, so that
            an untrained model is near "the same as last time"; the targets are then the channels.
    """

    def __init__(
        self,
        channels: int,
        horizon: int = 1,
        *,
        targets: int | None = None,
        quantiles: Sequence[float] | None = None,
        hidden: int = 64,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        attention: str | None = None,
        residual: bool = False,
        lstm: LSTMClass = FastLSTM,
    ) -> None:
        super().__init__()
        targets = channels if targets is None else targets
        check_counts(horizon=horizon, targets=targets)
        if residual and targets != channels:
            raise ValueError(f"residual: expected False with {targets} targets of {channels}")
        if quantiles is not None and not (quantiles and all(0 < q < 1 for q in quantiles)):
            raise ValueError(f"quantiles: expected numbers between 0 and 1, got {quantiles!r}")
        options = {"bidirectional": bidirectional, "dropout": dropout, "attention": attention}
        self.encoder = SequenceEncoder(channels, hidden, layers, lstm=lstm, **options)
        self.quantiles = None if quantiles is None else tuple(quantiles)
        self.residual = residual
        self.shape = (horizon, targets, *([] if quantiles is None else [len(quantiles)]))
        self.head = nn.Linear(self.encoder.size, int(torch.Size(self.shape).numel()))

    def forward(self, sequence: Tensor, *, lengths: Lengths | None = None) -> Tensor:
        """``lengths`` [batch] for a padded batch: steps after a sequence's end are not read."""
        out = self.head(self.encoder(sequence, lengths)).unflatten(1, self.shape)
        if not self.residual:
            return out
        last = sequence[:, -1]
        if lengths is not None:
            ends = torch.as_tensor(lengths, dtype=torch.int64, device=sequence.device) - 1
            last = sequence[torch.arange(len(sequence), device=sequence.device), ends]
        return out + (last[:, None] if self.quantiles is None else last[:, None, :, None])

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean squared error, or :func:`quantile_loss` where there are quantiles; a scalar.

        Args:
            prediction: what the forward returned. target: [batch, horizon, targets].

        Raises:
            TypeError, ValueError: a target of another shape, or not floating.
        """
        if self.quantiles is not None:
            return quantile_loss(prediction, target, self.quantiles)
        check_tensor("target", target, tuple(prediction.shape))
        return F.mse_loss(prediction, target)

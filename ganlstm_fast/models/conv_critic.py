"""A convolutional critic of sequences."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ganlstm_fast.models.base import normalized
from ganlstm_fast.models.sequence import ValuesAndChanges, join
from ganlstm_fast.nn.masks import Lengths, masked_mean, zero_padding
from ganlstm_fast.ops.validation import check_counts, check_lengths


class ConvCritic(nn.Module):
    """Series [batch, steps, channels] in [0, 1] -> scores [batch].

    Convolutions over time of 5 steps and stride 2 (Radford et al., 2016, in one dimension), the
    channels doubling, with LeakyReLU 0.2 and without any normalisation of activations, so that the
    scores of one series do not depend on another; then the mean over what is left of the steps. A
    padded series has the score that it has alone.

    Args:
        channels: values a step.
        hidden: channels of the first convolution.
        layers: how many convolutions; the last one sees 2 ** (layers + 2) - 3 steps at a time.
        spectral_norm: on all weights.
        condition, prepare: as for :class:`~ganlstm_fast.models.LSTMCritic`.
    """

    def __init__(
        self,
        channels: int,
        hidden: int = 32,
        layers: int = 3,
        *,
        spectral_norm: bool = True,
        condition: int = 0,
        prepare: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_counts(channels=channels, hidden=hidden, layers=layers)
        self.prepare = ValuesAndChanges(channels) if prepare is None else prepare
        sizes = [self.prepare.size + condition, *(hidden * 2**i for i in range(layers))]
        self.convs = nn.ModuleList(
            normalized(nn.Conv1d(a, b, 5, stride=2, padding=2), spectral_norm)
            for a, b in pairwise(sizes)
        )
        self.size = sizes[-1]
        self.head = normalized(nn.Linear(self.size, 1), spectral_norm)

    def features(
        self, series: Tensor, condition: Tensor | None = None, *, lengths: Lengths | None = None
    ) -> Tensor:
        """The last convolution's outputs, averaged over the steps: [batch, size]."""
        if lengths is not None:
            lengths = check_lengths(lengths, series.size(0), series.size(1)).to(series.device)
        x = join(self.prepare(zero_padding(series, lengths)), condition)
        for conv in self.convs:
            # The convolution pads the batch's end with zeros too, so a padded sequence scores as it
            # does alone.
            x = conv(zero_padding(x, lengths).transpose(1, 2)).transpose(1, 2)
            x = F.leaky_relu(x, 0.2)
            lengths = None if lengths is None else (lengths + 1) // 2
        return masked_mean(x, lengths)

    def forward(
        self, series: Tensor, condition: Tensor | None = None, *, lengths: Lengths | None = None
    ) -> Tensor:
        return self.head(self.features(series, condition, lengths=lengths)).squeeze(1)

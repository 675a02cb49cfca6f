"""A generator of series: an LSTM that turns a sequence of noise into one of values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganlstm_fast.models.base import sample_in_batches
from ganlstm_fast.models.sequence import LSTMClass, join, run_lstm
from ganlstm_fast.nn import FastLSTM
from ganlstm_fast.nn.masks import Lengths, zero_padding
from ganlstm_fast.ops.validation import check_counts


class LSTMGenerator(nn.Module):
    """Noise [batch, steps, noise] -> series [batch, steps, channels] in [0, 1].

    Args:
        channels, noise: values a step of the series and of the noise.
        hidden, layers, bidirectional: of the LSTM.
        lstm: the layer's class, with the constructor of ``torch.nn.LSTM``.
        condition: features of a condition, read at each step beside the noise.
    """

    # The sigmoid is stretched by this much on either side and clamped, so that the ends of the
    # range, such as a day without rain, are reached and not only approached.
    STRETCH = 0.02

    def __init__(
        self,
        channels: int,
        noise: int = 16,
        hidden: int = 32,
        layers: int = 1,
        lstm: LSTMClass = FastLSTM,
        *,
        bidirectional: bool = False,
        condition: int = 0,
    ) -> None:
        super().__init__()
        check_counts(channels=channels, noise=noise, hidden=hidden, layers=layers)
        self.noise_channels = noise
        options = {"num_layers": layers, "batch_first": True, "bidirectional": bidirectional}
        self.lstm = lstm(noise + condition, hidden, **options)
        self.head = nn.Linear(hidden * (1 + bidirectional), channels)

    def noise(self, batch: int, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise [batch, steps, noise], tied by :meth:`tie`."""
        like = self.head.weight
        shape = (batch, steps, self.noise_channels)
        return self.tie(
            torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)
        )

    def tie(self, noise: Tensor) -> Tensor:
        """Noise [batch, steps, noise] whose first half of the channels is the same at all steps.

        That half carries what a series keeps, such as its season; it is taken from the first step.
        """
        kept = self.noise_channels // 2
        return torch.cat(
            (noise[:, :1, :kept].expand(-1, noise.size(1), -1), noise[..., kept:]), dim=2
        )

    def outputs(
        self, noise: Tensor, condition: Tensor | None = None, lengths: Lengths | None = None
    ) -> Tensor:
        """The last layer's outputs [batch, steps, channels], before they are mapped to [0, 1]."""
        return self.head(run_lstm(self.lstm, join(noise, condition), lengths)[0])

    def forward(
        self, noise: Tensor, condition: Tensor | None = None, *, lengths: Lengths | None = None
    ) -> Tensor:
        """``condition`` is [batch, condition]; after a sequence's end the series is zero."""
        out = torch.sigmoid(self.outputs(noise, condition, lengths))
        out = ((1 + 2 * self.STRETCH) * out - self.STRETCH).clamp(0, 1)
        return zero_padding(out, lengths)

    def sample(
        self,
        count: int,
        steps: int,
        generator: torch.Generator | None = None,
        batch: int = 1024,
        **inputs: Lengths | None,
    ) -> Tensor:
        """``count`` (1 or more) series [count, steps, channels], made ``batch`` at a time.

        ``inputs`` are further ones of the forward, such as ``lengths``, with ``count`` rows each.
        """

        def make(rows: slice) -> Tensor:
            noise = self.noise(rows.stop - rows.start, steps, generator)
            some = {name: None if value is None else value[rows] for name, value in inputs.items()}
            return self(noise, **some)

        return sample_in_batches(self, count, batch, make)

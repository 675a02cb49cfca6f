"""A generative adversarial network for series: an LSTM generator and an LSTM critic.

RCGAN's layout (Esteban, Hyland and Rätsch, 2017): the generator turns a sequence of noise into a
sequence of values, one a step, and the critic reads the whole sequence.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlstm_fast.nn import FastLSTM


class LSTMGenerator(nn.Module):
    """Noise [batch, steps, noise] -> series [batch, steps, channels] in [0, 1].

    Args:
        channels, noise: values a step of the series and of the noise.
        hidden, layers: of the LSTM.
        lstm: the layer's class, with the constructor of ``torch.nn.LSTM``.
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
        lstm: Callable[..., nn.LSTM] = FastLSTM,
    ) -> None:
        super().__init__()
        self.noise_channels = noise
        self.lstm = lstm(noise, hidden, num_layers=layers, batch_first=True)
        self.head = nn.Linear(hidden, channels)

    def noise(self, batch: int, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise [batch, steps, noise].

        The first half of the channels is the same at all steps of a series: it carries what a
        series keeps, such as its season. The rest is drawn anew at each step.
        """
        like = self.head.weight
        kept = self.noise_channels // 2
        shape = (batch, steps, self.noise_channels)
        draw = torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)
        return torch.cat((draw[:, :1, :kept].expand(-1, steps, -1), draw[..., kept:]), dim=2)

    def forward(self, noise: Tensor) -> Tensor:
        out = torch.sigmoid(self.head(self.lstm(noise)[0]))
        return ((1 + 2 * self.STRETCH) * out - self.STRETCH).clamp(0, 1)

    @torch.no_grad()
    def sample(
        self, count: int, steps: int, generator: torch.Generator | None = None, batch: int = 1024
    ) -> Tensor:
        """``count`` (1 or more) series [count, steps, channels], made ``batch`` at a time."""
        parts = [
            self(self.noise(min(batch, count - start), steps, generator))
            for start in range(0, count, batch)
        ]
        return torch.cat(parts)


class LSTMCritic(nn.Module):
    """Series [batch, steps, channels] in [0, 1] -> scores [batch]: the mean of a score a step.

    The LSTM reads each value beside its change since the step before, both scaled to about unit
    size: within [0, 1] they are so small that a critic of bounded slope is slow to see them.

    Args: as for :class:`LSTMGenerator`.
    """

    VALUE_SCALE = 4.0
    CHANGE_SCALE = 8.0

    def __init__(
        self,
        channels: int,
        hidden: int = 32,
        layers: int = 1,
        lstm: Callable[..., nn.LSTM] = FastLSTM,
    ) -> None:
        super().__init__()
        self.lstm = lstm(2 * channels, hidden, num_layers=layers, batch_first=True)
        self.head = nn.Linear(hidden, 1)

    def forward(self, series: Tensor) -> Tensor:
        values = self.VALUE_SCALE * (series - 0.5)
        changes = F.pad(self.CHANGE_SCALE * series.diff(dim=1), (0, 0, 1, 0))
        return self.head(self.lstm(torch.cat((values, changes), 2))[0]).mean((1, 2))


class LSTMGAN(nn.Module):
    """The pair, as ``generator`` and ``critic``; the arguments are theirs. To make series::

        fake = gan(gan.generator.noise(32, 24))  # [32, 24, channels]

    and to score them ``gan.critic(fake)``, [32].
    """

    def __init__(
        self,
        channels: int,
        noise: int = 16,
        hidden: int = 32,
        layers: int = 1,
        lstm: Callable[..., nn.LSTM] = FastLSTM,
    ) -> None:
        super().__init__()
        self.generator = LSTMGenerator(channels, noise, hidden, layers, lstm)
        self.critic = LSTMCritic(channels, hidden, layers, lstm)

    def forward(self, noise: Tensor) -> Tensor:
        return self.generator(noise)

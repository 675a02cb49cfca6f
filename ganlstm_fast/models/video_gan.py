"""A generative adversarial network for videos: an LSTM that writes frames' codes, and a DCGAN.

MoCoGAN's layout (Tulyakov, Liu, Yang and Kautz, 2018): part of the noise is the same at all frames
of a video and says what is seen, an LSTM turns the rest into motion, and one generator of images
makes every frame. The critic is the sum of one that judges frames and one that judges their order.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganlstm_fast.models.base import sample_in_batches
from ganlstm_fast.models.dcgan import DCCritic, DCGenerator
from ganlstm_fast.models.lstm_generator import LSTMGenerator
from ganlstm_fast.models.sequence import LSTMClass, run_lstm
from ganlstm_fast.nn import FastLSTM
from ganlstm_fast.ops.validation import check_counts, check_tensor


class VideoGenerator(nn.Module):
    """Noise [batch, frames, noise] -> videos [batch, frames, channels, size, size] in [-1, 1].

    Args:
        size, channels, width: of a frame, as for :class:`DCGenerator`.
        noise: values a frame; the first half is the same at all frames, see
            :meth:`LSTMGenerator.tie`, and is part of each frame's code, beside the LSTM's outputs.
        hidden, layers, lstm: of the LSTM, which puts out ``hidden`` values a frame.
    """

    def __init__(
        self,
        size: int = 16,
        channels: int = 1,
        noise: int = 32,
        hidden: int = 64,
        width: int = 16,
        layers: int = 1,
        lstm: LSTMClass = FastLSTM,
    ) -> None:
        super().__init__()
        self.codes = LSTMGenerator(hidden, noise, hidden, layers, lstm)
        self.kept = noise // 2
        self.images = DCGenerator(size, channels, self.kept + hidden, width)

    def noise(self, batch: int, frames: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise [batch, frames, noise]."""
        return self.codes.noise(batch, frames, generator)

    def forward(self, noise: Tensor) -> Tensor:
        check_tensor("noise", noise, (None, None, self.codes.noise_channels))
        codes = torch.cat((noise[..., : self.kept], self.codes.outputs(noise)), 2)
        # All frames are one batch of images; in training their batch norm is over all of them.
        return self.images(codes.flatten(0, 1)).unflatten(0, noise.shape[:2])

    def sample(
        self, count: int, frames: int, generator: torch.Generator | None = None, batch: int = 64
    ) -> Tensor:
        """``count`` (1 or more) videos, made ``batch`` at a time, in eval mode."""

        def make(rows: slice) -> Tensor:
            return self(self.noise(rows.stop - rows.start, frames, generator))

        return sample_in_batches(self, count, batch, make)


class VideoCritic(nn.Module):
    """Videos [batch, frames, channels, size, size] -> scores [batch].

    The mean over the frames of two scores: that of a :class:`DCCritic`, which sees a frame and its
    change since the one before (of the first frame: 0), and that of an LSTM that reads the last
    feature maps of all frames so far. Differentiable twice, as a gradient penalty needs.

    Args:
        size, channels, width, norm: as for :class:`DCCritic`, ``channels`` of a frame.
        hidden, layers, lstm: of the LSTM.
    """

    def __init__(
        self,
        size: int = 16,
        channels: int = 1,
        hidden: int = 64,
        width: int = 16,
        layers: int = 1,
        lstm: LSTMClass = FastLSTM,
        *,
        norm: str | None = "spectral",
    ) -> None:
        super().__init__()
        check_counts(hidden=hidden, layers=layers)
        self.video = (channels, size, size)
        self.images = DCCritic(size, 2 * channels, width, norm)
        options = {"num_layers": layers, "batch_first": True}
        self.lstm = lstm(self.images.head.in_features, hidden, **options)
        self.head = nn.Linear(hidden, 1)

    def forward(self, videos: Tensor) -> Tensor:
        check_tensor("videos", videos, (None, None, *self.video))
        change = torch.cat((torch.zeros_like(videos[:, :1]), videos.diff(dim=1)), 1)
        frames = torch.cat((videos, change), 2)
        features = self.images.features(frames.flatten(0, 1))
        of_frames = self.images.head(features).unflatten(0, videos.shape[:2])
        outputs, _ = run_lstm(self.lstm, features.unflatten(0, videos.shape[:2]))
        return (of_frames + self.head(outputs)).mean((1, 2))


class VideoGAN(nn.Module):
    """The pair, as ``generator`` and ``critic``. To make videos::

        fake = gan(gan.generator.noise(8, 12))  # [8, 12, channels, size, size]

    and to score them ``gan.critic(fake)``, [8].

    The arguments are those of :class:`VideoGenerator` and :class:`VideoCritic`.
    """

    def __init__(
        self,
        size: int = 16,
        channels: int = 1,
        noise: int = 32,
        hidden: int = 64,
        width: int = 16,
        layers: int = 1,
        lstm: LSTMClass = FastLSTM,
        *,
        norm: str | None = "spectral",
    ) -> None:
        super().__init__()
        self.generator = VideoGenerator(size, channels, noise, hidden, width, layers, lstm)
        self.critic = VideoCritic(size, channels, hidden, width, layers, lstm, norm=norm)

    def forward(self, noise: Tensor) -> Tensor:
        return self.generator(noise)

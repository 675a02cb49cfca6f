"""Sounds as frames of short-time spectra, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Frames overlap by half of the window, with which a Hann window keeps all of a sound.
OVERLAP = 2
# Magnitudes further below the loudest than this, in dB, count as silence.
RANGE = 60.0
# The momentum of the fast Griffin-Lim algorithm, and how often it goes back and forth.
MOMENTUM = 0.99
ITERATIONS = 64


@dataclass(frozen=True)
class Spectrogram:
    """Sounds [n, samples] as frames [n, steps, bins] in [0, 1], and back.

    A frame is the magnitudes of a short-time Fourier transform in dB: 1 for ``loudest``, 0 for 60
    dB less and for all that is softer.

    Attributes:
        window: samples of the Hann window, even; frames are half of it apart.
        samples: of a sound, a multiple of ``hop``.
        loudest: the magnitude that is 1.
    """

    window: int
    samples: int
    loudest: float

    @classmethod
    def fit(cls, waves: Tensor, window: int) -> Spectrogram:
        """The one whose loudest magnitude is that of ``waves`` [n, samples]."""
        found = cls(window, waves.shape[1], 1.0)
        loudest = max(float(found._transform(part).abs().max()) for part in waves.split(256))
        return cls(window, waves.shape[1], loudest)

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self.window // OVERLAP

    @property
    def steps(self) -> int:
        """Frames of a sound."""
        return self.samples // self.hop + 1

    @property
    def bins(self) -> int:
        """Values of a frame, from 0 Hz to half of the rate."""
        return self.window // 2 + 1

    def frames(self, waves: Tensor) -> Tensor:
        """``waves`` [n, samples] float32 -> [n, steps, bins]."""
        least = self.loudest * 10 ** (-RANGE / 20)
        magnitudes = self._transform(waves).abs().clamp(least, self.loudest)
        return (1 + 20 / RANGE * (magnitudes / self.loudest).log10()).transpose(1, 2)

    def magnitudes(self, frames: Tensor) -> Tensor:
        """``frames`` [n, steps, bins] -> [n, bins, steps], 0 where a frame has 0."""
        exponent = RANGE / 20 * (frames.transpose(1, 2) - 1)
        return torch.where(frames.transpose(1, 2) > 0, self.loudest * 10**exponent, 0)

    def waves(self, frames: Tensor, seed: int = 0, iterations: int = ITERATIONS) -> Tensor:
        """``frames`` [n, steps, bins] -> sounds [n, samples], with estimated phases.

        The fast Griffin-Lim algorithm (Perraudin, Balazs and Sondergaard, A fast Griffin-Lim
        algorithm, 2013) starts from random phases and brings the spectra close to ``frames``, which
        need not be those of any sound. A sound does not depend on the others of the call.

        Args:
            seed: of the phases to begin with.
            iterations: 0 or more.
        """
        magnitudes = self.magnitudes(frames.float())
        random = torch.Generator().manual_seed(seed)
        phases = 2 * math.pi * torch.rand(magnitudes.shape[1:], generator=random)
        turns = torch.polar(torch.ones_like(phases), phases).to(frames.device).expand_as(magnitudes)
        before = torch.zeros_like(turns)
        for _ in range(iterations):
            found = self._transform(self._inverse(magnitudes * turns))
            ahead = found + MOMENTUM * (found - before)
            turns, before = ahead / ahead.abs().clamp_min(1e-12), found
        return self._inverse(magnitudes * turns)

    def _transform(self, waves: Tensor) -> Tensor:
        window = torch.hann_window(self.window, device=waves.device)
        options = {"hop_length": self.hop, "window": window, "return_complex": True}
        return torch.stft(waves, self.window, **options)

    def _inverse(self, spectra: Tensor) -> Tensor:
        window = torch.hann_window(self.window, device=spectra.device)
        return torch.istft(spectra, self.window, self.hop, window=window, length=self.samples)

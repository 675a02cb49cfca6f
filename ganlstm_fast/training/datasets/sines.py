"""Sine waves, the synthetic data set of TimeGAN."""

from __future__ import annotations

import torch
from torch import Tensor


def sines(
    count: int = 10_000,
    steps: int = 24,
    channels: int = 5,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Independent series of sine waves: [count, steps, channels] float32 in [0, 1].

    Channel c of a series is ``(1 + sin(frequency_c t + phase_c)) / 2`` at t = 0, 1, ..., where its
    frequency and phase are uniform on [0, 0.1].

    Source: the authors' code of Yoon, Jarrett and van der Schaar, Time-series Generative
    Adversarial Networks, NeurIPS 2019 (``data_loading.py``). The paper states other ranges than
    this code, which produced its figures and those of later papers.

    Args:
        generator: of the random numbers, on the CPU; None is torch's own.
    """
    shape = (2, count, 1, channels)
    frequency, phase = 0.1 * torch.rand(shape, generator=generator, dtype=torch.float64)
    t = torch.arange(steps, dtype=torch.float64)[:, None]
    return ((1 + torch.sin(frequency * t + phase)) / 2).float()

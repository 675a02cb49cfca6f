"""Reads the parameter and the norm of a layer under a spectral norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def original(layer: nn.Module) -> Tensor:
    return layer.parametrizations.weight.original


def largest_singular_value(layer: nn.Module) -> float:
    dim = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    return float(torch.linalg.matrix_norm(layer.weight.detach().movedim(dim, 0).flatten(1), 2))

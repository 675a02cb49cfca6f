"""Padded batches of sequences: which steps are valid, and sums over those alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ganlstm_fast.ops.validation import check_lengths

__all__ = ["Lengths", "masked_mean", "step_mask", "zero_padding"]

Lengths = Tensor | Sequence[int]


def step_mask(lengths: Lengths, batch: int, steps: int, device: torch.device) -> Tensor:
    """True at the valid steps: bool (batch, steps) on ``device``.

    Args:
        lengths: (batch,) integers in 1..steps; those on a GPU are not checked, which would
            synchronise.

    Raises:
        TypeError, ValueError: wrong lengths.
    """
    lengths = check_lengths(lengths, batch, steps).to(device)
    return torch.arange(steps, device=device) < lengths.unsqueeze(1)


def zero_padding(values: Tensor, lengths: Lengths | None) -> Tensor:
    """``values`` (B, T, F) with zeros after each sequence's end, whatever stood there, NaN too.

    The gradient of what stood there is zero. Differentiable to any order. Errors as
    :func:`step_mask`.
    """
    if lengths is None:
        return values
    mask = step_mask(lengths, values.size(0), values.size(1), values.device)
    return values.masked_fill(~mask.unsqueeze(2), 0)


def masked_mean(values: Tensor, lengths: Lengths | None) -> Tensor:
    """The mean of ``values`` (B, T, F) over the valid steps, (B, F).

    Differentiable to any order. Errors as :func:`step_mask`.
    """
    if lengths is None:
        return values.mean(1)
    mask = step_mask(lengths, values.size(0), values.size(1), values.device).unsqueeze(2)
    return values.masked_fill(~mask, 0).sum(1) / mask.sum(1)

"""The two operators of a gradient penalty in plain PyTorch: differentiable to any order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ganlstm_fast.ops.gradient_penalty.philox import uniform


def interpolate(real: Tensor, fake: Tensor, seed: Tensor) -> Tensor:
    """``fake + a (real - fake)`` with one ``a`` in [0, 1) a sample.

    Args:
        seed: int64, one element, on the tensors' device.
    """
    drawn = torch.float64 if real.dtype == torch.float64 else torch.float32
    a = uniform(seed, real.shape[0], drawn).view(-1, *[1] * (real.dim() - 1))
    return torch.lerp(fake.to(drawn), real.to(drawn), a).to(real.dtype)


def squared_norms(grads: Sequence[Tensor]) -> Tensor:
    """The squared norm of each sample's gradient, all tensors together: (B,), float32 at least."""
    total = None
    for grad in grads:
        wide = grad.to(torch.promote_types(grad.dtype, torch.float32))
        square = wide.unsqueeze(-1).flatten(1).square().sum(1)
        total = square if total is None else total + square
    return total  # type: ignore[return-value]


def penalty(grads: Sequence[Tensor], center: float, one_sided: bool) -> Tensor:
    """See :func:`ganlstm_fast.penalty`; arguments are not checked here."""
    square = squared_norms(grads)
    if center == 0:
        # Not through the norm: at a zero gradient its root would hide the curvature, which is 2.
        return square.mean()
    # sqrt has no derivative at 0, so it gets a 1 there, and `where` does not take that value.
    norm = torch.where(square > 0, square, torch.ones_like(square)).sqrt()
    excess = torch.where(square > 0, norm, torch.zeros_like(norm)) - center
    if one_sided:
        excess = excess.clamp_min(0)
    return excess.square().mean()

"""The Gumbel-softmax (Jang et al., 2017; Maddison et al., 2017)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gumbel_softmax(
    logits: Tensor,
    temperature: float = 1.0,
    hard: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """``softmax((logits + g) / temperature)`` over the last dimension, g drawn from Gumbel's.

    As ``F.gumbel_softmax``, with the random numbers drawn from ``generator``.

    Args:
        logits: [..., symbols], floating.
        temperature: above 0; the lower, the closer to one-hot, and the larger the gradients.
        hard: one-hot values with the gradient of the soft ones ("straight-through"), else soft.

    Raises:
        ValueError: a wrong ``temperature``.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature: expected a number above 0, got {temperature!r}")
    # The same numbers in every dtype; one of exactly 0 has an infinite logarithm.
    draw = torch.empty_like(logits, dtype=torch.float32).exponential_(generator=generator)
    wide = torch.promote_types(logits.dtype, torch.float32)
    gumbel = -draw.clamp_min(torch.finfo(torch.float32).tiny).to(wide).log()
    soft = ((logits + gumbel) / temperature).softmax(-1).to(logits.dtype)
    if not hard:
        return soft
    one_hot = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1)
    # In this order the rounding is undone, and the values are 0 and 1 to the last bit.
    return (one_hot - soft.detach()) + soft

"""The random numbers of ``interpolate`` in plain PyTorch: Philox4x32-10.

Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011. The kernels have the same numbers
(``csrc/gradient_penalty/philox.h``).
"""

from __future__ import annotations

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_STEPS = 0x9E3779B9, 0xBB67AE85


def _product(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """The high and the low word of a product of words, which wraps around in int64."""
    product = a * b
    return (product >> 32) & WORD, product & WORD


def uniform(seed: Tensor, batch: int, dtype: torch.dtype) -> Tensor:
    """One number in [0, 1) for each sample: (batch,), on the seed's device.

    The sample's number is the generator's counter and ``seed``, int64 of one element, its key.

    Args:
        dtype: float32 for 24 random bits, float64 for 53, which begin with the same 24.
    """
    counter = torch.arange(batch, device=seed.device)
    c0, c1 = counter & WORD, counter >> 32
    c2 = c3 = torch.zeros_like(counter)
    seed = seed.reshape(())
    key0, key1 = seed & WORD, (seed >> 32) & WORD
    for _ in range(10):
        high0, low0 = _product(c0, MULTIPLIERS[0])
        high1, low1 = _product(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0
        key0, key1 = (key0 + KEY_STEPS[0]) & WORD, (key1 + KEY_STEPS[1]) & WORD
    if dtype == torch.float64:
        return (((c0 >> 5) << 26) + (c1 >> 6)).to(dtype) * 2.0**-53
    return (c0 >> 8).to(dtype) * 2.0**-24

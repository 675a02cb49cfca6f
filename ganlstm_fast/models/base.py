"""What the models share: layers by option, and sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from ganlstm_fast.nn import spectral_norm
from ganlstm_fast.nn.sn_lstm import spectral_norm_lstm
from ganlstm_fast.ops.validation import check_counts

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def normalized(layer: ModuleT, on: bool) -> ModuleT:
    """The layer with spectral norm on its weight (on all of them for an LSTM) if ``on``.

    Applied to the finished layer, so that u and v fit the weights that it was initialised with.
    """
    if not on:
        return layer
    return spectral_norm_lstm(layer) if isinstance(layer, nn.LSTM) else spectral_norm(layer)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Every part of ``module`` in eval mode in the block, and as it was after it."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@torch.no_grad()
def sample_in_batches(
    generator: nn.Module, count: int, batch: int, make: Callable[[slice], Tensor]
) -> Tensor:
    """``make(rows)`` for the rows 0..count, ``batch`` at a time, in eval mode.

    So a sample does not depend on those beside it (batch norm), and sampling leaves no trace.

    Raises:
        TypeError, ValueError: ``count`` or ``batch`` is not an integer of 1 or more.
    """
    check_counts(count=count, batch=batch)
    with eval_mode(generator):
        starts = range(0, count, batch)
        return torch.cat([make(slice(start, min(start + batch, count))) for start in starts])


class VectorGenerator(nn.Module):
    """A generator whose noise is one vector a sample, [batch, noise]."""

    def __init__(self, noise: int) -> None:
        super().__init__()
        check_counts(noise=noise)
        self.noise_size = noise

    def noise(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise [batch, noise]."""
        like, shape = next(self.parameters()), (batch, self.noise_size)
        return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)

    def sample(
        self, count: int, generator: torch.Generator | None = None, batch: int = 1024
    ) -> Tensor:
        """``count`` (1 or more) samples, made ``batch`` at a time, in eval mode."""
        return sample_in_batches(
            self, count, batch, lambda rows: self(self.noise(rows.stop - rows.start, generator))
        )

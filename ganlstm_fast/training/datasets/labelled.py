"""Samples with a label each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

HELD_OUT = 5


@dataclass(frozen=True)
class Labelled:
    """Samples with a label each.

    Attributes:
        inputs: [n, ...] float32, or [n, steps] int64 numbers of symbols.
        labels: [n] int64, the class of each.
        classes: the names of the classes, by number.
        lengths: [n] int64, how many steps of each of ``inputs`` [n, steps, ...] count; the
            others are zero. None: all do.
    """

    inputs: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    lengths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, index: Tensor) -> Labelled:
        """The samples ``index``: int64 numbers, or a bool for each sample."""
        lengths = None if self.lengths is None else self.lengths[index]
        return Labelled(self.inputs[index], self.labels[index], self.classes, lengths)


def split_by_class(samples: Labelled) -> tuple[Labelled, Labelled]:
    """To train on, and held out: every fifth sample of each class, in their order."""
    held = torch.zeros(len(samples), dtype=torch.bool)
    for label in range(len(samples.classes)):
        held[(samples.labels == label).nonzero()[HELD_OUT - 1 :: HELD_OUT, 0]] = True
    return samples.take(~held), samples.take(held)

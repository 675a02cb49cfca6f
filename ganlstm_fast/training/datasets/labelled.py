"""Samples with a label each."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Labelled:
    """Samples with a label each.

    Attributes:
        inputs: [n, ...] float32.
        labels: [n] int64, the class of each.
        classes: the names of the classes, by number.
        lengths: [n] int64, how many steps of each of ``inputs`` [n, steps, channels] count; the
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

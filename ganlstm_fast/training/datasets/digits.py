"""The handwritten digits that come with scikit-learn, as images and as sequences.

1,797 digits of 8x8 pixels with 17 levels of grey: Alpaydin and Kaynak, Optical Recognition of
Handwritten Digits, UCI Machine Learning Repository, 1998.

Every fifth digit of each class, in the order of the set, is held out, whatever the version of a
library or the seed: 1,442 to train on and 355 to test. Both have digits of all writers.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ganlstm_fast.training.datasets.labelled import Labelled, split_by_class

SIDE = 8


def digit_images(size: int = 28) -> tuple[Labelled, Labelled]:
    """Digits as images to train on and to test: [n, 1, size, size] in [-1, 1], the ground at -1.

    Enlarged from 8x8 pixels by bilinear interpolation.

    Raises:
        ValueError: ``size`` below 8.
    """
    if size < SIDE:
        raise ValueError(f"size: expected {SIDE} or more, got {size}")
    digits = _digits()
    images = F.interpolate(digits.inputs[:, None], size=(size, size), mode="bilinear")
    return split_by_class(Labelled(2 * images - 1, digits.labels, digits.classes))


def digit_rows() -> tuple[Labelled, Labelled]:
    """Digits as sequences to train on and to test: [n, 8, 8] in [0, 1], a step a row of pixels."""
    return split_by_class(_digits())


def digit_columns() -> tuple[Labelled, Labelled]:
    """Digits as sequences of different lengths, to train on and to test.

    ``inputs`` [n, 8, 8] in [0, 1] have a column of pixels a step, without the empty columns at both
    sides; ``lengths`` are from 3 to 8. (All digits fill the height, so that their rows would all
    give 8 steps.)
    """
    digits = _digits()
    columns = digits.inputs.transpose(1, 2)
    filled = columns.amax(2) > 0
    first = filled.int().argmax(1)
    lengths = SIDE - filled.flip(1).int().argmax(1) - first
    step = torch.arange(SIDE)
    source = (first[:, None] + step).clamp(max=SIDE - 1)
    moved = torch.take_along_dim(columns, source[..., None], 1)
    moved = moved * (step < lengths[:, None])[..., None]
    return split_by_class(Labelled(moved, digits.labels, digits.classes, lengths))


def _digits() -> Labelled:
    table = _table()
    images = torch.from_numpy(table[:, :-1].reshape(-1, SIDE, SIDE)).float() / 16
    return Labelled(images, torch.from_numpy(table[:, -1]).long(), tuple("0123456789"))


def _table() -> np.ndarray:
    """[1797, 65] float64: a row a digit, its pixels and what it is."""
    found = importlib.util.find_spec("sklearn")
    if found is not None and found.submodule_search_locations:
        # Read here, since to load scikit-learn for it takes a second.
        file = Path(found.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
        if file.exists():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack((digits.data, digits.target))

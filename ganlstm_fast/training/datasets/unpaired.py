"""Images of two kinds, a and b, without pairs: digits in two styles, or two folders."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ganlstm_fast.training.datasets.digits import digit_images
from ganlstm_fast.training.datasets.image_folder import ImageFolder
from ganlstm_fast.training.datasets.labelled import HELD_OUT, Labelled
from ganlstm_fast.training.errors import InputError

# To train on, and held out.
Split = tuple[Labelled, Labelled]

# The level of ink at which the edge of a stroke is, and how sharp it is drawn.
EDGE, SHARPNESS = 0.5, 6.0
# Columns that a digit of style b leans for each row, and the factor that shrinks it to make room.
SLANT, SHRUNK = 0.15, 1.1
# Ink between the outlines. (Without any, the inside of a stroke looks like that of a zero's ring.
# The cycle loss then cannot tell whether a translation exchanges the two.)
CORE = 0.4


def styled_digits(size: int = 28) -> tuple[Split, Split]:
    """Digits in solid strokes (a), and slanted in grey strokes with an outline (b).

    They are [n, 1, size, size] in [-1, 1]. No digit is in both: of each class the first is drawn in
    style a, the second in style b, and so on, among those to train on as among those held out.

    Raises:
        ValueError: ``size`` below 8.
    """
    halves = [_halves(part) for part in digit_images(size)]
    splits = []
    for parts, style in zip(zip(*halves, strict=True), (solid, slanted_outlines), strict=True):
        train, test = (Labelled(style(p.inputs), p.labels, p.classes) for p in parts)
        splits.append((train, test))
    return splits[0], splits[1]


def solid(images: Tensor) -> Tensor:
    """Style a of digits [n, 1, height, width] in [-1, 1], the ground at -1."""
    return 2 * _strokes(images / 2 + 0.5) - 1


def slanted_outlines(images: Tensor) -> Tensor:
    """Style b of such digits."""
    theta = torch.tensor([[SHRUNK, SLANT, 0.0], [0.0, SHRUNK, 0.0]]).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, images.shape, align_corners=False)
    strokes = _strokes(F.grid_sample(images / 2 + 0.5, grid, align_corners=False))
    # Between what grows by a pixel and what shrinks by one; by more in larger images.
    reach = max(1, round(images.shape[-1] / 28))
    size = 2 * reach + 1
    grown, shrunk = (sign * F.max_pool2d(sign * strokes, size, 1, reach) for sign in (1, -1))
    return 2 * (grown - (1 - CORE) * shrunk).clamp(0, 1) - 1


def _strokes(ink: Tensor) -> Tensor:
    return (SHARPNESS * (ink - EDGE) + 0.5).clamp(0, 1)


def _halves(digits: Labelled) -> Split:
    second = torch.zeros(len(digits), dtype=torch.bool)
    for label in range(len(digits.classes)):
        second[(digits.labels == label).nonzero()[1::2, 0]] = True
    return digits.take(~second), digits.take(second)


def hold_out(folder: ImageFolder, path: str | Path) -> Split:
    """Every fifth image of a folder held out; of fewer than five images the last one.

    Raises:
        InputError: a single image.
    """
    count = len(folder)
    if count < 2:
        raise InputError(f"{path} has one image that can be read; at least 2 are needed")
    held = torch.arange(count) % HELD_OUT == min(HELD_OUT, count) - 1
    labels = torch.zeros(count, dtype=torch.int64) if folder.labels is None else folder.labels
    images = Labelled(folder.images, labels, folder.classes)
    return images.take(~held), images.take(held)

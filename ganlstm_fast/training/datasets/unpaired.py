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

# Columns that a digit of style b leans for each row, and how much smaller it is, to have the room.
SLANT, SHRUNK = 0.35, 1.15
# The level of ink at which its outline is, and how sharp the edge is made before it is found.
EDGE, SHARPNESS = 0.45, 6.0


def styled_digits(size: int = 28) -> tuple[Split, Split]:
    """Digits as they are (a), and slanted and outlined (b): [n, 1, size, size] in [-1, 1].

    No digit is in both: of each class the first is drawn in style a, the second in style b, and so
    on, among those to train on as among those held out.

    Raises:
        ValueError: ``size`` below 8.
    """
    halves = [_halves(part) for part in digit_images(size)]
    a, b = zip(*halves, strict=True)
    return a, tuple(
        Labelled(slanted_outlines(part.inputs), part.labels, part.classes) for part in b
    )


def slanted_outlines(images: Tensor) -> Tensor:
    """Style b of digits [n, 1, height, width] in [-1, 1], the ground at -1."""
    theta = torch.tensor([[SHRUNK, SLANT, 0.0], [0.0, SHRUNK, 0.0]]).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, images.shape, align_corners=False)
    ink = F.grid_sample(images / 2 + 0.5, grid, align_corners=False)
    solid = (SHARPNESS * (ink - EDGE) + 0.5).clamp(0, 1)
    # Between what grows by a pixel and what shrinks by one; by more in larger images.
    reach = max(1, round(images.shape[-1] / 28))
    size = 2 * reach + 1
    grown, shrunk = (sign * F.max_pool2d(sign * solid, size, 1, reach) for sign in (1, -1))
    return 2 * (grown - shrunk).clamp(0, 1) - 1


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

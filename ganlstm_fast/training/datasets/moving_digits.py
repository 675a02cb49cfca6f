"""Videos of handwritten digits that move and bounce off the edges, made.

As Moving MNIST has them (Srivastava, Mansimov and Salakhutdinov, Unsupervised Learning of Video
Representations using LSTMs, 2015), one digit a video, of those that come with scikit-learn.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ganlstm_fast.training.datasets.digits import SIDE, digit_images
from ganlstm_fast.training.datasets.labelled import Labelled

# The side of a digit, and pixels that it moves a frame, as shares of a frame's side.
DIGIT = 0.5
SPEEDS = (0.04, 0.1)


def moving_digits(
    frames: int = 12, size: int = 16, a_digit: int = 4, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Videos to train on and to test, which have different digits.

    A digit of half a frame's side starts at a random place and moves at a constant speed, drawn
    evenly from 4% to 10% of the side a frame, in a random direction; at an edge it bounces. Places
    are not rounded to pixels.

    Args:
        frames: of a video, 1 or more.
        size: pixels of a frame's side, 16 or more.
        a_digit: videos of each digit.
        seed: of places, speeds and directions.

    Returns:
        uint8 [1442 * a_digit, frames, 1, size, size] to train on, and 355 * a_digit of them to
        test; 0 is the ground.

    Raises:
        ValueError: ``size`` below 16.
    """
    if size < 2 * SIDE:
        raise ValueError(f"size: expected {2 * SIDE} or more, got {size}")
    random = torch.Generator().manual_seed(seed)
    train, test = digit_images(SIDE)
    return tuple(_videos(part, frames, size, a_digit, random) for part in (train, test))


def _videos(
    digits: Labelled, frames: int, size: int, a_digit: int, random: torch.Generator
) -> Tensor:
    images = (digits.inputs / 2 + 0.5).repeat_interleave(a_digit, 0)
    centres = _paths(len(images), frames, random)
    made = [
        _drawn(image, centre, size)
        for image, centre in zip(images.split(256), centres.split(256), strict=True)
    ]
    return torch.cat(made)


def _paths(count: int, frames: int, random: torch.Generator) -> Tensor:
    """[count, frames, 2] the digits' centres, x and y in [-room, room], in a frame of [-1, 1]."""
    room = 1 - DIGIT
    start = 2 * torch.rand(count, 1, 2, generator=random) - 1
    angle = 2 * math.pi * torch.rand(count, generator=random)
    low, high = SPEEDS
    speed = 2 * (low + (high - low) * torch.rand(count, generator=random))
    step = speed[:, None] * torch.stack((angle.cos(), angle.sin()), 1)
    free = room * start + torch.arange(frames)[:, None] * step[:, None]
    # Off a mirror at either edge: the path is a triangle wave of where it would be without them.
    return room - ((free + room) % (4 * room) - 2 * room).abs()


def _drawn(images: Tensor, centres: Tensor, size: int) -> Tensor:
    """``images`` [n, 1, 8, 8] at ``centres`` [n, frames, 2]: uint8 [n, frames, 1, size, size]."""
    count, frames = centres.shape[:2]
    theta = torch.zeros(count, frames, 2, 3)
    theta[..., 0, 0] = theta[..., 1, 1] = 1 / DIGIT
    theta[..., 2] = -centres / DIGIT
    shape = (count * frames, 1, size, size)
    grid = F.affine_grid(theta.flatten(0, 1), shape, align_corners=False)
    pictures = images.repeat_interleave(frames, 0)
    drawn = F.grid_sample(pictures, grid, padding_mode="zeros", align_corners=False)
    return (255 * drawn).round().byte().unflatten(0, (count, frames))

"""Pictures of videos: animations, and sheets with a row of frames for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ganlstm_fast.training.checkpoint import atomic_write
from ganlstm_fast.training.datasets.image_folder import pillow
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.pictures import grid
from ganlstm_fast.training.plots import drawing, save_figure

# How long a frame is shown, and the least pixels that its side is shown with.
MILLISECONDS = 100
SHOWN = 84


def write_animation(path: Path, parts: Sequence[Tensor]) -> None:
    """Write videos as one GIF that plays for ever: the videos of each part as a square, the parts
    beside each other. Pillow makes equal frames in a row one that is shown for longer.

    Args:
        parts: [n, frames, channels, height, width] in [-1, 1] each, n the same in all.

    Raises:
        ModuleNotFoundError: Pillow is not installed. InputError: the file cannot be written.
    """
    image = pillow()
    columns, size = max(1, round(len(parts[0]) ** 0.5)), parts[0].shape[-1]
    times = max(1, round(SHOWN / size))
    pictures = []
    for k in range(parts[0].shape[1]):
        squares = [grid(videos[:, k], columns) for videos in parts]
        gap = np.full((len(squares[0]), 4, 3), 255, dtype=np.uint8)
        between = [gap] * len(squares)
        row = [part for pair in zip(between, squares, strict=True) for part in pair][1:]
        sheet = np.concatenate(row, 1).repeat(times, 0).repeat(times, 1)
        pictures.append(image.fromarray(sheet))
    options = {"duration": MILLISECONDS, "loop": 0, "save_all": True}
    with atomic_write(path) as temporary:
        pictures[0].save(temporary, format="GIF", append_images=pictures[1:], **options)


def write_frames(path: Path, videos: Tensor) -> None:
    """Write videos as one PNG, a row each, frame beside frame."""
    sheet = grid(videos.flatten(0, 1), videos.shape[1])
    with atomic_write(path) as temporary:
        pillow().fromarray(sheet).save(temporary, format="PNG")


def write_videos(path: Path, videos: Tensor) -> None:
    """Write videos as a GIF or as a PNG, by the ending of ``path``.

    Raises:
        InputError: another ending.
    """
    writers = {
        ".gif": lambda: write_animation(path, [videos]),
        ".png": lambda: write_frames(path, videos),
    }
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise InputError(f"-o: expected a file that ends with {' or '.join(writers)}, got {path}")
    writer()


def plot_videos(path: Path, real: Tensor, generated: Tensor, shown: int = 6) -> None:
    """The frames of some real videos above those of generated ones, a row a video."""
    shown = min(shown, len(real), len(generated))
    frames = real.shape[1]
    with drawing(9, 0.75 + 2 * shown * 8.6 / frames) as figure:
        parts = (("Real", real[:shown]), ("Generated", generated[:shown]))
        for ax, (title, videos) in zip(figure.subplots(2, 1), parts, strict=True):
            ax.imshow(grid(videos.flatten(0, 1), frames), interpolation="nearest")
            ax.set_title(f"{title}, {shown} videos of {frames} frames", fontweight="bold")
            ax.set_axis_off()
        save_figure(figure, path)

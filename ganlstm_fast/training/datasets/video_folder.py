"""A folder of videos as a tensor."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ganlstm_fast.training.datasets.image_folder import (
    files_in,
    load_image,
    opened,
    to_pixels,
)
from ganlstm_fast.training.errors import InputError

ANIMATION = ".gif"


@dataclass(frozen=True)
class VideoFolder:
    """The videos of a folder.

    Attributes:
        videos: [n, frames, channels, size, size] uint8.
        source: [n] int64, which of ``names`` each is of: long ones are cut into several.
        names: of the files, or folders of frames, below the folder.
        skipped: for each file that cannot be read, a line that names it and says why.
    """

    videos: Tensor
    source: Tensor
    names: tuple[str, ...]
    skipped: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.videos)


def load_video_folder(
    path: str | Path, size: int, channels: int = 1, frames: int = 12
) -> VideoFolder:
    """Read all videos in a folder and below: GIF files, and folders of frames.

    Each GIF file is a video. So are the other images of one folder together, a frame each, in the
    order of their names, in which numbers count as numbers (``9.png`` is before ``10.png``). Frames
    are cut to squares and resized as images are. A video is cut into pieces of ``frames`` frames
    that follow each other; the frames left at its end are dropped. The frames' durations are
    ignored. All is held in memory, a byte a pixel.

    Args:
        path: the folder. Files whose names start with a dot are left out.
        size, channels: of a frame, as for
            :func:`~ganlstm_fast.training.datasets.image_folder.load_image`.
        frames: of a piece.

    Raises:
        InputError: no such folder, no video that can be read in it, or a video that has a single
            frame or fewer than ``frames``; one line that names it.
        ModuleNotFoundError: Pillow is not installed.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give a folder of videos")
    files = files_in(folder)
    parts: dict[Path, list[Path]] = {}
    for file in files:
        animated = file.suffix.lower() == ANIMATION
        parts.setdefault(file if animated else file.parent, []).append(file)
    with ThreadPoolExecutor() as pool:
        read = pool.map(partial(_read, size=size, channels=channels), parts, parts.values())
        found = list(zip(parts, read, strict=True))
    skipped = tuple(str(error) for _, video in found for error in video if _is_error(error))
    videos = {part: torch.stack(kept) for part, video in found if (kept := _frames(video))}
    if not videos:
        reason = f"; of {len(skipped)} files none can be read: {skipped[0]}" if skipped else ""
        raise InputError(f"{folder} has no video, as a GIF file or as a folder of frames{reason}")
    for part, video in videos.items():
        _check_length(part, len(video), frames)
    pieces = [video[: len(video) // frames * frames].split(frames) for video in videos.values()]
    counts = torch.tensor([len(piece) for piece in pieces])
    return VideoFolder(
        torch.stack([frame for piece in pieces for frame in piece]),
        torch.arange(len(pieces)).repeat_interleave(counts),
        tuple(str(part.relative_to(folder)) for part in videos),
        skipped,
    )


def _read(part: Path, files: Sequence[Path], size: int, channels: int) -> list[Tensor | InputError]:
    """The frames of a video, uint8 [channels, size, size] each, or why there is none."""
    if part.suffix.lower() == ANIMATION and part.is_file():
        return _attempt(lambda: _animation(part, size, channels))
    frames: list[Tensor | InputError] = []
    for file in sorted(files, key=_by_number):
        frames += _attempt(lambda file=file: [_bytes(load_image(file, size, channels))])
    return frames


def _attempt(read: Callable[[], list[Tensor]]) -> list[Tensor | InputError]:
    try:
        return list(read())
    except InputError as error:
        return [error]


def _animation(file: Path, size: int, channels: int) -> list[Tensor]:
    with opened(file) as image:
        frames = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            frames.append(_bytes(to_pixels(image, file, size, channels)))
        return frames


def _bytes(pixels: Tensor) -> Tensor:
    """[-1, 1] as bytes, the pixels that they were read from."""
    return (127.5 * (pixels + 1)).round().byte()


def _by_number(file: Path) -> list[tuple[int, int, str]]:
    """A key that sorts ``frame9`` before ``frame10``."""
    pieces = re.split(r"(\d+)", file.name)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in pieces if p]


def _is_error(frame: object) -> bool:
    return isinstance(frame, InputError)


def _frames(video: list[Tensor | InputError]) -> list[Tensor]:
    return [frame for frame in video if isinstance(frame, Tensor)]


def _check_length(part: Path, count: int, frames: int) -> None:
    if count == 1:
        raise InputError(f"{part} has a single frame: it is an image and not a video; take it out")
    if count < frames:
        raise InputError(
            f"{part} has {count} frames, fewer than `frames={frames}`; "
            f"give `frames={count}`, or take it out"
        )

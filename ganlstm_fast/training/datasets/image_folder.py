"""A folder of images as a tensor."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ganlstm_fast.training.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder.

    Attributes:
        images: [n, channels, size, size] float32 in [-1, 1].
        labels: [n] int64, the class of each; None where the folder has no sub-folders.
        classes: the names of the sub-folders, sorted.
        skipped: for each file that is not an image, a line that names it and says why.
    """

    images: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    skipped: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)


def load_image(path: str | Path, size: int, channels: int = 3) -> Tensor:
    """Read an image: its largest square around the centre, resized to [channels, size, size].

    It is rotated as its metadata says, transparent parts become white, and an animation gives its
    first picture. Images of one channel may have 16 bits a pixel.

    Args:
        channels: 3, or 1 for levels of grey.

    Returns:
        float32 in [-1, 1].

    Raises:
        InputError: the file is missing, is not an image, is cut off, or holds numbers of unknown
            range; one line that names it.
        ModuleNotFoundError: Pillow is not installed.
    """
    if channels not in MODES:
        raise ValueError(f"channels: expected 1 or 3, got {channels}")
    with opened(path) as image:
        return to_pixels(image, path, size, channels)


def pillow() -> Any:
    """Pillow's module ``Image``; raises ModuleNotFoundError, and says what to install."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'images need Pillow, which is not installed: pip install "ganlstm_fast[images]"',
            name=error.name,
        ) from error
    return Image


@contextmanager
def opened(path: str | Path) -> Iterator[PILImage]:
    """Open an image or animation; what goes wrong in the block is an InputError that names it."""
    image = pillow()
    try:
        with image.open(path) as file:
            yield file
    except (InputError, ModuleNotFoundError):
        raise
    except image.UnidentifiedImageError:
        raise InputError(f"{path} cannot be read as an image: its format is not known") from None
    except Exception as error:
        # What a decoder raises on a spoilt file is not documented, and may run over several lines.
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(f"{path} cannot be read as an image: {reason}") from None


def to_pixels(image: PILImage, path: str | Path, size: int, channels: int) -> Tensor:
    """The picture of an open file as :func:`load_image` gives it; ``path`` is for the message."""
    pillow_image = pillow()
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        # Its conversion to 8 bits clips instead of scaling.
        image = pillow_image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise InputError(
            f"{path}: its pixels are numbers of mode {image.mode}, of unknown range; "
            "save it with 8 or 16 bits"
        )
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        ground = pillow_image.new("RGBA", image.size, "white")
        image = pillow_image.alpha_composite(ground, image)
    image = ImageOps.fit(image.convert(MODES[channels]), (size, size))
    pixels = torch.from_numpy(np.array(image)).view(size, size, channels)
    return pixels.permute(2, 0, 1) / 127.5 - 1


def files_in(folder: Path, endings: tuple[str, ...] = ENDINGS) -> list[Path]:
    """The files at any depth with these endings, sorted, without hidden files and folders."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in endings
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        and file.is_file()
    )


def load_image_folder(path: str | Path, size: int, channels: int = 3) -> ImageFolder:
    """Read all images in a folder, or in its sub-folders, which are then their classes.

    It ignores files with other endings than those of images, and those whose names start with a
    dot. All images are held in memory: 20,000 of 64 pixels and 3 channels take 1 GB.

    Args:
        path: the folder. In its sub-folders images may lie at any depth.
        size, channels: as for :func:`load_image`.

    Raises:
        InputError: no such folder, no image that can be read in it, or images both in it and in
            its sub-folders.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give a folder of images")
    files = files_in(folder)
    direct = [file for file in files if file.parent == folder]
    if direct and len(direct) < len(files):
        raise InputError(
            f"{folder} has images both in it ({direct[0].name}) and in sub-folders; move them to "
            "sub-folders, one for each class, or all into one folder"
        )

    def read(file: Path) -> Tensor | InputError:
        try:
            return load_image(file, size, channels)
        except InputError as error:
            return error

    # Pillow leaves the interpreter's lock while it decodes and resizes.
    with ThreadPoolExecutor() as pool:
        found = dict(zip(files, pool.map(read, files), strict=True))
    images = {file: image for file, image in found.items() if isinstance(image, Tensor)}
    skipped = tuple(str(error) for error in found.values() if isinstance(error, InputError))
    if not images:
        reason = f"; of {len(skipped)} files none can be read: {skipped[0]}" if skipped else ""
        raise InputError(f"{folder} has no image ({', '.join(ENDINGS)}){reason}")
    names = [file.relative_to(folder).parts[0] for file in images]
    classes = () if direct else tuple(sorted(set(names)))
    labels = None if direct else torch.tensor([classes.index(name) for name in names])
    return ImageFolder(torch.stack(tuple(images.values())), labels, classes, skipped)

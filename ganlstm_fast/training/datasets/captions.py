"""Images with a text each: digits described by measurements, or a folder's captions."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ganlstm_fast.training.datasets.digits import digit_images
from ganlstm_fast.training.datasets.image_folder import load_image
from ganlstm_fast.training.datasets.labelled import Labelled
from ganlstm_fast.training.errors import InputError

FILE = "captions.csv"
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WEIGHTS = ("thin", "", "thick")
SLANTS = ("leaning left", "upright", "leaning right")
# Of weight, number and slant.
FORMS = (
    "a {0} {1}, {2}",
    "{1}, {0}, {2}",
    "a {2} {1} in {0} strokes",
    "the digit {1}: {0} and {2}",
)


@dataclass(frozen=True)
class Words:
    """The words of texts and their numbers, from 0: everything but letters separates words.

    Attributes:
        words: sorted, in small letters.
    """

    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Words:
        return cls(tuple(sorted({word for text in texts for word in cls.split(text)})))

    @staticmethod
    def split(text: str) -> list[str]:
        return re.findall(r"[^\W\d_]+|\d+", text.lower())

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The words' numbers [n, steps] int64, padded with 0, and their counts [n] int64.

        Raises:
            InputError: a text without a word, or with a word that is not known.
        """
        number = {word: n for n, word in enumerate(self.words)}
        rows = []
        for text in texts:
            split = self.split(text)
            if not split:
                raise InputError(f"the text {text!r} has no word")
            unknown = [word for word in split if word not in number]
            if unknown:
                known = ", ".join(self.words[:40]) + (", ..." if len(self) > 40 else "")
                raise InputError(
                    f"the text {text!r} has a word that is not known, {unknown[0]!r}; "
                    f"known are {known}"
                )
            rows.append(torch.tensor([number[word] for word in split]))
        lengths = torch.tensor([len(row) for row in rows])
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths


@dataclass(frozen=True)
class Captioned:
    """Images with a text each.

    Attributes:
        images: [n, channels, size, size] float32 in [-1, 1].
        texts: of each.
        looks: [n, 2] int64 of digits, the places of the texts' words in ``WEIGHTS`` and ``SLANTS``;
            None: not known.
        labels: [n] int64, which digit it is; None: likewise.
    """

    images: Tensor
    texts: tuple[str, ...]
    looks: Tensor | None = None
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)


def weight_and_slant(images: Tensor) -> Tensor:
    """How thick the strokes of digits are, and how far they lean to the right.

    Args:
        images: [n, 1, height, width] in [-1, 1], the ground at -1.

    Returns:
        [n, 2]: the mean of the ink, from 0 to 1; and the slope of the line that fits the ink's
        columns as a function of its rows, upwards, from the second moments. 0 for an empty image.
    """
    ink = (images[:, 0].double() + 1).clamp(0, 2) / 2
    total = ink.sum((1, 2)).clamp_min(1e-12)
    y = torch.arange(ink.shape[1], dtype=torch.float64)[:, None]
    x = torch.arange(ink.shape[2], dtype=torch.float64)[None, :]

    def mean(values: Tensor) -> Tensor:
        return (ink * values).sum((1, 2)) / total

    column, row = mean(x.expand_as(ink)), mean(y.expand_as(ink))
    dx, dy = x - column[:, None, None], y - row[:, None, None]
    slant = -mean(dx * dy) / mean(dy.square()).clamp_min(1e-12)
    return torch.stack((ink.mean((1, 2)), slant), 1)


def captioned_digits(size: int = 28) -> tuple[Captioned, Captioned]:
    """Digits with a text such as "a thin seven, leaning right", to train on and held out.

    A digit in the lowest third of its class by :func:`weight_and_slant` is thin, or leans left; one
    in the highest third is thick, or leans right. (Ones have less ink than eights, and sevens lean
    more than ones.) The form of the text is drawn, the same each time.

    """
    train, test = digit_images(size)
    measured = weight_and_slant(train.inputs)
    thirds = torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)
    limits = torch.stack(
        [torch.quantile(measured[train.labels == c], thirds, dim=0).T for c in range(len(NUMBERS))]
    )
    random = torch.Generator().manual_seed(0)
    return _described(train, limits, random), _described(test, limits, random)


def _described(digits: Labelled, limits: Tensor, random: torch.Generator) -> Captioned:
    looks = (weight_and_slant(digits.inputs)[..., None] > limits[digits.labels]).sum(2)
    forms = torch.randint(len(FORMS), (len(digits),), generator=random).tolist()
    rows = zip(digits.labels.tolist(), looks.tolist(), forms, strict=True)
    texts = tuple(describe_digit(label, *look, form) for label, look, form in rows)
    return Captioned(digits.inputs, texts, looks, digits.labels)


def describe_digit(label: int, weight: int, slant: int, form: int = 0) -> str:
    """The text of a digit: places in ``NUMBERS``, ``WEIGHTS``, ``SLANTS`` and ``FORMS``."""
    word = WEIGHTS[weight] or "medium"
    return FORMS[form].format(word, NUMBERS[label], SLANTS[slant])


def load_captions(path: str | Path, size: int, channels: int = 3) -> Captioned:
    """A folder of images and ``captions.csv``, whose columns ``file`` and ``caption`` name them.

    Raises:
        InputError: no such folder or file, a column that is missing, an empty caption, or an image
            that cannot be read; one line that names the file and its line.
    """
    folder = Path(path)
    table = folder / FILE
    if not table.is_file():
        raise InputError(
            f"{table} is not there; give a folder of images with {FILE}, whose columns are file "
            "and caption"
        )
    images, texts = [], []
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            missing = {"file", "caption"} - set(rows.fieldnames or ())
            if missing:
                raise InputError(f"{table} has no column {' and '.join(sorted(missing))}")
            for row in rows:
                text = (row["caption"] or "").strip()
                if not Words.split(text):
                    raise InputError(f"{table}, line {rows.line_num}: the caption has no word")
                images.append(load_image(folder / (row["file"] or ""), size, channels))
                texts.append(text)
    except UnicodeDecodeError:
        raise InputError(f"{table} is not in UTF-8") from None
    if len(images) < 2:
        raise InputError(f"{table} names {len(images)} images; at least 2 are needed")
    return Captioned(torch.stack(images), tuple(texts))

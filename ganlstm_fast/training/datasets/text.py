"""Text as windows of symbols."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.windows import Stretches, windows

BUNDLED = Path(__file__).with_name("sonnets.txt")


def load_text(path: str | Path | None = None) -> str:
    """Read a text file in UTF-8, its lines' ends as ``\\n``.

    Args:
        path: the file; None is 40 sonnets of Shakespeare (``sonnets.SOURCE.md``).

    Raises:
        InputError: no such file, one without text, or one that is not UTF-8.
    """
    file = BUNDLED if path is None else Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not text in UTF-8: {error.reason}") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    if not text:
        raise InputError(f"{file} is empty")
    if not text.strip():
        raise InputError(f"{file} has no text, only spaces and line ends")
    return text


@dataclass(frozen=True)
class Vocabulary:
    """The symbols of a text and their numbers, from 0.

    Attributes:
        symbols: one character each, sorted.
    """

    symbols: str

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """The characters that stand in ``text``."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, text: str) -> Tensor:
        """The numbers [len(text)] int64 of the characters.

        Raises:
            InputError: a character that is none of the symbols.
        """
        number = {symbol: n for n, symbol in enumerate(self.symbols)}
        unknown = sorted(set(text) - set(number))
        if unknown:
            raise InputError(f"the text has symbols that are not in the vocabulary: {unknown[:8]}")
        return torch.tensor([number[c] for c in text], dtype=torch.int64)

    def decode(self, numbers: Tensor) -> str:
        """The inverse of :meth:`encode`."""
        return "".join(self.symbols[n] for n in numbers.tolist())


def text_windows(
    text: str,
    vocabulary: Vocabulary,
    seq_len: int,
    held_out: float = 0.1,
    name: str = "the text",
) -> tuple[Tensor, Tensor]:
    """All stretches of ``seq_len`` symbols, to train on and held out; the two share no symbol.

    Args:
        held_out: the share of the text, at its end, that the held-out windows come from.
        name: what errors call the text.

    Returns:
        Twice [n, seq_len] int64, numbers of ``vocabulary``. Views: nothing is copied.

    Raises:
        InputError: a symbol that is not in ``vocabulary``, or a text too short for a window on
            both sides.
    """
    every = windows(vocabulary.encode(text)[:, None], seq_len)[..., 0]
    held, rows = int(held_out * len(text)), Stretches.whole(len(text))
    if not rows.has_room(seq_len, held):
        raise InputError(
            f"{name} has {len(text)} symbols, too few for windows of {seq_len} both before and "
            f"in its last {held}; give `seq_len={max(2, held)}` or less, or more text"
        )
    train, test = rows.split(seq_len, held)
    return every[: len(train)], every[test[0] :]

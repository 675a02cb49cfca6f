"""Splits of windows that share no row, and how many rows are held out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.windows import Stretches, in_words, stretches_of, windows


def time_folds(rows: int | Stretches, seq_len: int, folds: int = 5) -> list[tuple[Tensor, Tensor]]:
    """Split windows into train and held-out ones that share no row, ``folds`` times.

    The rows of each stretch are cut into blocks of about four windows, dealt to the folds in turn,
    so that each fold holds pieces from the whole length of the data (all seasons). A window is
    held out in a fold if all of its rows belong to that fold, and is trained on if none of them
    does; one that crosses an edge is in neither.

    Args:
        rows: the number of rows of one series without gaps, or the stretches.

    Returns:
        For each fold the numbers [n], among all :func:`windows`, of the windows trained on, and of
        those held out.

    Raises:
        InputError: too few rows for every fold to hold a window out.
    """
    known = stretches_of(rows)
    block = min(4 * seq_len, known.rows // folds)
    least = folds * (seq_len + 1)
    too_few = (
        f"{known.rows} rows are too few to hold out windows of {seq_len} that share no row with "
        f"the others; at least {least} are needed"
    )
    if block < seq_len + 1:
        raise InputError(too_few)
    fold_of_row = _blocks(known, seq_len, block) % folds
    inside = windows(fold_of_row[:, None], seq_len, known)[..., 0]
    split = []
    for fold in range(folds):
        hits = (inside == fold).sum(1)
        split.append(((hits == 0).nonzero()[:, 0], (hits == seq_len).nonzero()[:, 0]))
    if any(not len(part) for parts in split for part in parts):
        raise InputError(f"{too_few} in each of several stretches")
    return split


def _blocks(known: Stretches, seq_len: int, block: int) -> Tensor:
    """[rows] int64: the number of the block of about ``block`` rows that each row is in."""
    if len(known.starts) == 1:
        return torch.arange(known.rows) // block
    numbers, count = [], 0
    for length in (known.stops - known.starts).tolist():
        # Of equal length, so that a block at a stretch's end is not too short for a window.
        pieces = max(1, round(length / block))
        numbers.append(count + torch.arange(length) * pieces // length)
        # A stretch that is too short for a window does not use up a fold's turn.
        count += pieces if length >= seq_len else 0
    return torch.cat(numbers)


def series_folds(
    count: int, folds: int = 5, generator: torch.Generator | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Split ``count`` independent series at random, so that each is held out in one fold.

    Only for series that share no row: windows of one series need :func:`time_folds`.

    Returns:
        For each fold the indices [n] of the series trained on, and those held out.

    Raises:
        InputError: fewer than two series for each fold.
    """
    if count < 2 * folds:
        raise InputError(f"{count} series are too few to hold some out; at least {2 * folds}")
    fold_of_series = torch.randperm(count, generator=generator) % folds
    return [
        ((fold_of_series != f).nonzero()[:, 0], (fold_of_series == f).nonzero()[:, 0])
        for f in range(folds)
    ]


def split_by_time(
    rows: int | Stretches, seq_len: int, held_out: int, context: int = 0
) -> tuple[Tensor, Tensor]:
    """:meth:`Stretches.split` of a number of rows of one series, or of stretches."""
    return stretches_of(rows).split(seq_len, held_out, context)


def evenly(count: int, at_most: int) -> Tensor:
    """[min(count, at_most)] int64: which of ``count`` are taken, from the first to the last."""
    return torch.linspace(0, count - 1, min(count, at_most)).long()


def last_rows(asked: int | None, stretches: Stretches, usual: int, share: int) -> Tensor:
    """[series] int64: how many rows at the end of each series are held out.

    Args:
        asked: the setting; None: ``usual``, but at most one row in ``share``.
    """
    if asked is not None:
        return torch.full_like(stretches.lengths, asked)
    return (stretches.lengths // share).clamp_max(usual)


def held_out_words(held: Tensor) -> str:
    """What is held out of each series, [series] int64, in words."""
    least, most = int(held.min()), int(held.max())
    if len(held) == 1:
        return f"the last {most} rows are held out"
    count = f"{most}" if least == most else f"{least} to {most}"
    return f"the last {count} rows of each series are held out"


def check_room(known: Stretches, held: Tensor, fits: Callable[..., bool], **sizes: int) -> None:
    """Raise InputError, with settings that work, unless ``fits(held, **sizes)``.

    Args:
        held: [series] int64, rows that are held out of each.
        fits: takes what is held out, and numbers of rows by the settings' names.
    """
    if fits(held, **sizes):
        return
    given = {"held_out": int(held.max()), **sizes}
    shares = [int(known.lengths.max()) // share for share in (2, 3, 4, 5)]
    least = [count for count in shares if 0 < count < given["held_out"]]
    raise InputError(
        f"{in_words(known)} have no room for windows to train on and held-out ones with "
        f"{_options(given)}; {_what_works(fits, given, least)}"
    )


def _options(settings: dict[str, int]) -> str:
    return " ".join(f"`{name}={value}`" for name, value in settings.items())


def _what_works(fits: Callable[..., bool], given: dict[str, int], least: list[int]) -> str:
    """The first settings that fit: with ``least`` rows held out, then also with shorter windows."""
    sizes = {name: value for name, value in given.items() if name != "held_out"}
    while True:
        for held in (given["held_out"], *least):
            if fits(held, **sizes):
                changed = {"held_out": held, **sizes}
                return f"{_options({k: v for k, v in changed.items() if v != given[k]})} works"
        longest = max(sizes, key=sizes.__getitem__)
        if sizes[longest] <= 2:
            return "give more data"
        sizes[longest] = max(2, sizes[longest] * 3 // 4)

"""Windows of a series with labels, and pairs of a history and what followed."""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ganlstm_fast.training.data import load_dates
from ganlstm_fast.training.datasets.labelled import Labelled
from ganlstm_fast.training.splits import split_by_time
from ganlstm_fast.training.windows import Stretches, windows, windows_at

MONTHS = tuple(calendar.month_name[1:])


def load_months(path: str | Path | None = None, column: str = "date") -> Tensor:
    """The months [rows] int64, January as 0, of the rows that ``load_series(path)`` reads.

    Raises:
        InputError: as :func:`ganlstm_fast.training.data.load_dates`.
    """
    return torch.tensor(load_dates(path, column).month.to_numpy() - 1, dtype=torch.int64)


def labelled_windows(
    rows: Tensor,
    labels: Tensor,
    seq_len: int,
    held_out: int = 365,
    classes: Sequence[str] = MONTHS,
) -> tuple[Labelled, Labelled]:
    """All windows, with the label of their middle row, to train on and held out.

    The held-out windows lie in the last ``held_out`` rows, the others before; none share a row.

    Args:
        rows: [rows, channels].
        labels: [rows] int64, such as :func:`load_months` gives.
        seq_len: rows in a window; the middle row is number ``seq_len // 2`` from 0.
        classes: the names of the labels, by number.

    Returns:
        Twice ``inputs`` [n, seq_len, channels] and ``labels`` [n].

    Raises:
        ValueError: not a label for each row, or a label that is not in ``classes``.
        InputError: too few rows for a window on both sides.
    """
    if labels.shape != rows.shape[:1]:
        raise ValueError(f"labels: expected shape ({len(rows)},), got {tuple(labels.shape)}")
    if not ((labels >= 0) & (labels < len(classes))).all():
        raise ValueError(
            f"labels: expected 0 to {len(classes) - 1}, "
            f"got {labels.min().item()} to {labels.max().item()}"
        )
    every = Labelled(
        windows(rows, seq_len),
        labels[seq_len // 2 : len(rows) - (seq_len - 1) + seq_len // 2],
        tuple(classes),
    )
    train, test = split_by_time(len(rows), seq_len, held_out)
    return every.take(train), every.take(test)


@dataclass(frozen=True)
class Pairs:
    """Stretches of a series, and what followed each.

    Attributes:
        history: [n, history, channels].
        future: [n, horizon, channels].
        starts: [n] int64, the row at which each ``future`` starts.
    """

    history: Tensor
    future: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.history)


def forecast_pairs(
    rows: Tensor,
    history: int,
    horizon: int,
    held_out: int | Tensor = 365,
    stretches: Stretches | None = None,
) -> tuple[Pairs, Pairs]:
    """All pairs of ``history`` rows and the ``horizon`` rows after them.

    The futures of the held-out pairs lie in the last ``held_out`` rows, and start at each of them
    from which there is a whole one; their histories may reach back further. No training pair shares
    a row with any of them: training uses the first ``rows - held_out - history`` rows, and so
    should the fit of a scaler.

    Args:
        rows: [rows, channels].
        held_out: rows at the end of each series, one number or [series] int64.
        stretches: of the rows; None: all follow each other.

    Returns:
        The pairs to train on, and those held out. A pair lies in one stretch.

    Raises:
        InputError: too few rows for a pair on both sides.
    """
    length, known = history + horizon, stretches or Stretches.whole(len(rows))
    pairs = []
    for first in known.split(length, held_out, context=history):
        both = windows_at(rows, length, first)
        pairs.append(Pairs(both[:, :history], both[:, history:], first + history))
    return pairs[0], pairs[1]

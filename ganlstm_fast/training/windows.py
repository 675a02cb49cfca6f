"""Windows of series, and the rows that they may be taken from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ganlstm_fast.training.errors import InputError


@dataclass(frozen=True)
class Stretches:
    """The runs of rows that follow each other without a gap, of one series or several.

    They cover all rows of a table, in order. A window lies in one of them.

    Attributes:
        starts, stops: [n] int64, the first row of each and the one after its last.
        series: [n] int64, the number of the series that each is of, not decreasing.
        count: how many series there are, also those without rows.
    """

    starts: Tensor
    stops: Tensor
    series: Tensor
    count: int

    @classmethod
    def whole(cls, rows: int) -> Stretches:
        """All of ``rows`` rows follow each other."""
        return cls.of([(0, rows, 0)])

    @classmethod
    def of(cls, runs: Iterable[tuple[int, int, int]]) -> Stretches:
        """Stretches of some ``(start, stop, series)``."""
        starts, stops, series = torch.tensor(list(runs), dtype=torch.int64).reshape(-1, 3).unbind(1)
        return cls(starts, stops, series, int(series.max()) + 1 if len(series) else 0)

    @property
    def rows(self) -> int:
        return int(self.stops[-1]) if len(self.stops) else 0

    @property
    def longest(self) -> int:
        return int((self.stops - self.starts).max()) if len(self.stops) else 0

    @cached_property
    def lengths(self) -> Tensor:
        """[series] int64, how many rows each series has."""
        rows = torch.zeros(self.count, dtype=torch.int64)
        return rows.index_add(0, self.series, self.stops - self.starts)

    @cached_property
    def of_row(self) -> Tensor:
        """[rows] int64, the stretch that each row is in."""
        return torch.arange(len(self.starts)).repeat_interleave(self.stops - self.starts)

    def first_rows(self, seq_len: int) -> Tensor:
        """[n] int64, in order: the rows at which a window of ``seq_len`` rows can start."""
        counts = (self.stops - self.starts - seq_len + 1).clamp_min(0)
        number = torch.arange(len(counts)).repeat_interleave(counts)
        before = counts.cumsum(0) - counts
        return self.starts[number] + torch.arange(len(number)) - before[number]

    def left(self, count: int | Tensor) -> Tensor:
        """[rows] bool: which rows are not among the last ``count`` of their series."""
        return self._in_series() < (self.lengths - count)[self.series[self.of_row]]

    def part(self, kept: Tensor) -> Stretches:
        """Those of a table that has only the rows ``kept`` [rows] bool."""
        number = self.of_row[kept]
        row = kept.nonzero()[:, 0]
        edge = (number[1:] != number[:-1]) | (row[1:] != row[:-1] + 1)
        first = torch.zeros(min(1, len(row)), dtype=torch.int64)
        starts = torch.cat((first, edge.nonzero()[:, 0] + 1))
        stops = torch.cat((starts[1:], first + len(row)))
        return Stretches(starts, stops, self.series[number[starts]], self.count)

    def _in_series(self) -> Tensor:
        """[rows] int64, which row of its series each is."""
        first = self.lengths.cumsum(0) - self.lengths
        return torch.arange(self.rows) - first[self.series[self.of_row]]

    def split(
        self, seq_len: int, held_out: int | Tensor, context: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Split windows into those before and those in the last rows of each series.

        Args:
            seq_len: rows in a window.
            held_out: rows at the end of each series for which the later windows are, the same
                number or [series] int64.
            context: rows at the start of a window that may come from before the last ``held_out``
                rows. They are then left out of what is trained on.

        Returns:
            The first row [n] int64 of each window to train on, and of each window held out; none
            of one side shares a row with the other. Without its context a held-out window starts
            at any of the last ``held_out`` rows of its series from which there is a whole one.

        Raises:
            InputError: no window on one of the two sides.
        """
        first = self.first_rows(seq_len)
        series = self.series[self.of_row[first]]
        cut = (self.lengths - held_out - context)[series]
        place = self._in_series()[first]
        train, held = first[place + seq_len <= cut], first[place >= cut]
        if not len(train) or not len(held):
            raise InputError(
                f"{in_words(self)} cannot be split into windows of {seq_len} before and in "
                f"the last {int(torch.as_tensor(held_out).max())}, with {context} of context; give "
                "more data or shorter windows"
            )
        return train, held

    def has_room(self, seq_len: int, held_out: int | Tensor, context: int = 0) -> bool:
        """Whether :meth:`split` finds windows for both sides."""
        try:
            self.split(seq_len, held_out, context)
        except InputError:
            return False
        return True


def left_over(known: Stretches, seq_len: int) -> list[str]:
    """Notes on the stretches that are too short for a window of ``seq_len`` rows."""
    lengths = known.stops - known.starts
    short = lengths[lengths < seq_len]
    if not len(short):
        return []
    where = "a stretch" if len(short) == 1 else f"{len(short)} stretches"
    return [f"{int(short.sum())} rows in {where} of fewer than {seq_len} are in no window"]


def stretches_of(rows: int | Stretches) -> Stretches:
    return rows if isinstance(rows, Stretches) else Stretches.whole(rows)


def in_words(stretches: Stretches) -> str:
    if len(stretches.starts) == 1:
        return f"{stretches.rows} steps"
    return (
        f"{stretches.rows} steps in {len(stretches.starts)} stretches (the longest of "
        f"{stretches.longest})"
    )


def windows(values: Tensor, seq_len: int, stretches: Stretches | None = None) -> Tensor:
    """All windows of ``seq_len`` rows: [rows, channels] -> [n, seq_len, channels].

    Args:
        stretches: of the rows; None: all follow each other. Then there are n = rows - seq_len + 1
            windows, and nothing is copied.

    Raises:
        InputError: no stretch has ``seq_len`` rows.
    """
    known = stretches_of(values.shape[0] if stretches is None else stretches)
    if known.longest < seq_len:
        if len(known.starts) > 1:
            raise InputError(
                f"the longest of the data's {len(known.starts)} stretches without a gap has "
                f"{known.longest} rows, fewer than one window of {seq_len}; give "
                f"`seq_len={max(2, known.longest)}` or less, `gaps=cross`, so that windows cross "
                "gaps in time, or `fill=interpolate` rather than drop"
            )
        raise InputError(
            f"the data has {known.longest} rows, fewer than one window of {seq_len}; "
            f"give `seq_len={max(2, known.longest)}` or less, or more data"
        )
    every = values.unfold(0, seq_len, 1).transpose(1, 2)
    return every if len(known.starts) == 1 else every[known.first_rows(seq_len)]


def windows_at(values: Tensor, seq_len: int, first: Tensor) -> Tensor:
    """[n, seq_len, channels]: the windows of ``values`` [rows, channels] from at ``first``."""
    if not len(first):
        return values.new_empty((0, seq_len, values.shape[1]))
    return values.unfold(0, seq_len, 1).transpose(1, 2)[first]

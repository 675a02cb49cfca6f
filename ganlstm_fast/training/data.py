"""Tables of numbers for training: series in the order of time, and their scale."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.tables.columns import choose
from ganlstm_fast.training.tables.fill import without_missing
from ganlstm_fast.training.tables.gaps import find_gaps, in_words
from ganlstm_fast.training.tables.given import TableLike
from ganlstm_fast.training.tables.long import find_series, refuse_long
from ganlstm_fast.training.tables.order import by_series, find_times, order_rows, runs
from ganlstm_fast.training.tables.read import BUNDLED, Table, read_table
from ganlstm_fast.training.tables.records import names
from ganlstm_fast.training.tables.steps import Step, find_step
from ganlstm_fast.training.windows import Stretches

if TYPE_CHECKING:
    import pandas as pd

BUNDLED_UNITS = {"precipitation": "mm", "temp_max": "°C", "temp_min": "°C", "wind": "m/s"}


@dataclass(frozen=True)
class Series:
    """A table of numbers, one row a time step, the rows of each series in the order of time.

    Attributes:
        values: [rows, channels] float64, in the units of the file.
        columns: the channels' names.
        name: the file's name without its ending, or the kind of table.
        units: the units of the columns for which they are known.
        stretches: the runs of rows that windows may be taken from.
        file_rows: [rows] int64, which row of the file each is, from 0.
        times: [rows] datetime64[ns]; None where no column says them.
        series: the names of the series, in order; none where the file has one without a name.
        notes: what was detected in the file, in a few words each.
        time_column: the name of the column that says the times; None without one.
        step: the usual time from a row to the next; None where it is not known.
    """

    values: Tensor
    columns: tuple[str, ...]
    name: str
    units: dict[str, str]
    stretches: Stretches
    file_rows: Tensor
    times: np.ndarray | None = None
    series: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    time_column: str | None = None
    step: Step | None = None

    @property
    def fingerprint(self) -> str:
        """A hash of names, values and stretches: tables with the same one train the same."""
        digest = hashlib.sha256("\n".join(self.columns).encode())
        digest.update(self.values.numpy().tobytes())
        # Without gaps the hash equals that of versions that had no gaps, so their checkpoints
        # resume.
        if len(self.stretches.starts) > 1:
            digest.update(self.stretches.starts.numpy().tobytes())
        return digest.hexdigest()

    def names_of(self, rows: Tensor) -> list[str]:
        """The names of the series that ``rows`` int64 are of."""
        number = self.stretches.series[self.stretches.of_row[rows]]
        return [self.series[k] for k in number.tolist()]


def load_series(
    data: TableLike | None = None,
    columns: Sequence[str] | None = None,
    *,
    date_column: str | None = None,
    series_column: str | None = None,
    gaps: str = "cut",
    fill: str | None = None,
) -> Series:
    """Read a text file whose first line names its columns, or a table in memory.

    A file's encoding, delimiter and decimal sign are detected. Rows are sorted by series, and by
    time where there is a column of dates.

    Args:
        data: the file, or a DataFrame, an array or a tensor; None is the bundled daily weather of
            Seattle, 2012 to 2015 (``seattle_weather.SOURCE.md``: precipitation in mm, temperatures
            in degrees Celsius, wind in m/s).
        columns: the columns to keep, in this order; None keeps all columns of numbers except those
            that number the rows.
        date_column: says when a row was; None: the first whose cells are all dates, if there is
            one; ``none``: rows are in order as they stand.
        series_column: says which series a row is of, where there are several; None: refuse a file
            that looks as if it held several; ``none``: there is one.
        gaps: ``cut``: rows before and after a gap in time are of different stretches; ``cross``:
            they follow each other.
        fill: what is done about missing values. ``interpolate``: a straight line over time (over
            rows without dates) from the value before to the one after, in one stretch; at its ends
            the nearest value. ``previous``: the value before in the series, in its first rows the
            one after. ``drop``: their rows are left out, and those before and after are of
            different stretches. None: a missing value is an error.

    Raises:
        InputError: no such file, no table in it, a line with too few or too many fields, no column
            of numbers, an unknown column, text among the numbers of a column, a value that is
            infinite, one that is missing without ``fill``, a series in which a column has no value
            to fill from, dates or numbers that can be read in two ways, a time that stands
            twice in a series (the message says in which lines).
    """
    data = BUNDLED if data is None else data
    table = read_table(data, columns=columns, series_column=series_column)
    return series_of(table, columns, date_column, series_column, gaps, fill)


def series_of(
    table: Table,
    columns: Sequence[str] | None,
    date_column: str | None,
    series_column: str | None,
    gaps: str,
    fill: str | None,
    beside: Sequence[str] = (),
) -> Series:
    """The series in ``table``; the arguments are those of :func:`load_series`.

    Args:
        beside: columns with another role, which are left out.
    """
    number, found = find_series(table, series_column)
    told = {*beside, *([series_column] if found and series_column else [])}
    times, said = find_times(table, date_column, told)
    told |= set(said)
    if series_column is None:
        refuse_long(table, times, told)
    order, times, sorted_notes = order_rows(table, number, times, said)
    chosen, left_out = choose(table, columns, told, order, number[order])
    notes = [*table.notes]
    if found:
        notes.append(f"{len(found)} series by {series_column}")
    stretches, broken = _stretches(table, number[order], times, order, gaps)
    step = None if times is None else find_step(by_series(number[order], times))
    values, kept, filled = without_missing(table, chosen, fill, order, times, stretches, found)
    if not kept.all():
        stretches, values, order = stretches.part(torch.from_numpy(kept)), values[kept], order[kept]
        times = None if times is None else times[kept]
    notes += [*sorted_notes, *broken, *left_out, *filled]
    units = BUNDLED_UNITS if table.file == BUNDLED else {}
    return Series(
        torch.from_numpy(np.ascontiguousarray(values)),
        tuple(chosen),
        table.name,
        {c: units[c] for c in chosen if c in units},
        stretches,
        torch.from_numpy(order.astype(np.int64)),
        times,
        found,
        tuple(notes),
        said[0] if said else None,
        step,
    )


def _stretches(
    table: Table, number: np.ndarray, times: np.ndarray | None, order: np.ndarray, gaps: str
) -> tuple[Stretches, list[str]]:
    """The stretches of rows in ``order``, and notes on the gaps between them."""
    breaks, steps = [], []
    if times is not None:
        start = 0
        for part in by_series(number, times):
            found, step = find_gaps(part)
            breaks.append(found + start)
            steps.append(step)
            start += len(part)
    at = np.concatenate(breaks) if breaks else np.zeros(0, dtype=np.int64)
    cut = at if gaps == "cut" else at[:0]
    stretches = Stretches.of((start, stop, int(number[start])) for start, stop in runs(number, cut))
    steps = list(dict.fromkeys(step for step in steps if step))
    notes = [f"rows {steps[0]}"] if len(steps) == 1 else []
    if len(at):
        length = (times[at] - times[at - 1]).astype("timedelta64[ns]").astype(np.int64)
        where = table.at(order[at[length.argmax()]][None])
        count = "a gap" if len(at) == 1 else f"{len(at)} gaps"
        which = "" if len(at) == 1 else "the longest "
        notes.append(
            f"{count} in time ({which}{in_words(int(length.max()))} before {where}), which "
            + ("windows do not cross" if gaps == "cut" else "windows cross")
        )
    return stretches, notes


def load_dates(path: str | Path | None = None, column: str = "date") -> pd.DatetimeIndex:
    """The dates of the rows that :func:`load_series` reads from the same file.

    Args:
        path: the CSV file; None is the bundled weather.
        column: the column of dates.

    Raises:
        InputError: as :func:`load_series`, or no such column.
    """
    import pandas as pd

    return pd.DatetimeIndex(load_series(path, date_column=column).times)


@dataclass(frozen=True)
class MinMaxScaler:
    """Maps each channel's range in the data to [0, 1], and back.

    A channel that is constant in the data it was fitted to is not learnt: it is left out of what is
    scaled, and comes back as that constant.

    Attributes:
        minimum, maximum: [channels] float64.
        learnt: [channels] bool, which channels are scaled.
    """

    minimum: Tensor
    maximum: Tensor
    learnt: Tensor

    @classmethod
    def fit(cls, values: Tensor) -> MinMaxScaler:
        """The scaler for ``values`` [..., channels]."""
        flat = values.reshape(-1, values.shape[-1]).double()
        minimum, maximum = flat.amin(0), flat.amax(0)
        return cls(minimum, maximum, maximum > minimum)

    @property
    def _span(self) -> Tensor:
        span = self.maximum - self.minimum
        return torch.where(span > 0, span, 1)

    def scale(self, values: Tensor) -> Tensor:
        """``values`` [..., channels] in data units -> float32 [..., learnt channels], the fitted
        data in [0, 1]."""
        return ((values.double() - self.minimum) / self._span)[..., self.learnt].float()

    def unscale(self, scaled: Tensor) -> Tensor:
        """The inverse of :meth:`scale`, [..., channels] float64, constant ones as they are."""
        values = self.minimum.expand(*scaled.shape[:-1], -1).clone()
        values[..., self.learnt] += scaled.double() * self._span[self.learnt]
        # Models of earlier versions learnt constants too, and generate values near them.
        return torch.where(self.maximum > self.minimum, values, self.minimum)

    def changed(self, values: Tensor) -> Tensor:
        """[..., channels] bool: where ``values`` are not the constant of a channel not learnt."""
        return (values != self.minimum) & ~self.learnt


def constant_columns(
    columns: Sequence[str], values: Tensor, scaler: MinMaxScaler, source: str
) -> list[str]:
    """Notes on the columns that ``scaler``, fitted to rows of ``values``, leaves out.

    Args:
        columns: the channels' names.
        values: [rows, channels], all rows that there are.
        source: the data, for an error.

    Raises:
        InputError: no column is left to learn.
    """
    later = scaler.changed(values).any(0)
    notes = []
    for rows, kind in (("every row", ~scaler.learnt & ~later), ("every row trained on", later)):
        found = {columns[c]: f"{scaler.minimum[c]:.6g}" for c in kind.nonzero()[:, 0].tolist()}
        if not found:
            continue
        which = [f"{name} ({value})" for name, value in found.items()]
        said = f"columns {names(which)} are the same"
        if len(found) == 1:
            said = "column {} is {}".format(*next(iter(found.items())))
        notes.append(f"{said} in {rows}: left out of training")
    if not scaler.learnt.any():
        why = " and ".join(note.removesuffix(": left out of training") for note in notes)
        raise InputError(
            f"{source} has nothing to learn: {why}; give other data, or choose other `columns`"
        )
    return notes

"""The table of a file or in memory, each column as numbers where they are."""

from __future__ import annotations

import io
import os
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ganlstm_fast.training.errors import InputError, did_you_mean
from ganlstm_fast.training.tables.given import (
    WORDS,
    TableLike,
    frame_of,
    is_table,
    name_of,
    plain_numbers,
    plain_texts,
    shown,
    stands_in,
)
from ganlstm_fast.training.tables.numbers import with_numbers
from ganlstm_fast.training.tables.records import Records, at_lines, at_rows, names, split_records
from ganlstm_fast.training.tables.text import read_text

if TYPE_CHECKING:
    import pandas as pd

BUNDLED = Path(__file__).parents[1] / "seattle_weather.csv"
_AHEAD: dict[Path, Table] = {}


@dataclass(frozen=True)
class Table:
    """What stands in a file, or in a table in memory.

    Attributes:
        file: where it was read from; of a table in memory, how messages name it.
        name: the file's name without its ending, or the kind of table.
        frame: a row for each record; text columns as text, all others as numbers.
        lines: [rows] int64, the line of the file at which each row starts; of a table in memory
            the row, from 0.
        unnamed: the columns without a name, which are called ``Unnamed: 0`` and so on.
        notes: how the file was read.
    """

    file: Path | str
    name: str
    frame: pd.DataFrame
    lines: np.ndarray
    unnamed: tuple[str, ...]
    notes: list[str]

    @property
    def of_file(self) -> bool:
        return isinstance(self.file, Path)

    def at(self, rows: np.ndarray) -> str:
        """The lines of ``rows`` (int64 numbers, or a bool for each) in words."""
        places = np.sort(self.lines[rows])
        return at_lines(places) if self.of_file else at_rows(places)

    def require(self, *columns: str) -> None:
        """Raise InputError if a name is not that of a column."""
        known = self.frame.columns
        unknown = [column for column in columns if column not in known]
        if unknown:
            near = did_you_mean(unknown[0], known)
            raise InputError(
                f"{self.file} has no column {names(unknown)}; it has {names(known)}{near}"
            )


def read_table(
    data: TableLike,
    *,
    as_text: bool = False,
    columns: Sequence[str] | None = None,
    series_column: str | None = None,
) -> Table:
    """The table in a file or in memory. Empty lines at a file's end are dropped.

    Args:
        data: the file, or a DataFrame, an array or a tensor.
        as_text: leave all columns as text, numbers too.
        columns, series_column: name what an array has no name for
            (:func:`~ganlstm_fast.training.tables.given.frame_of`).

    Raises:
        InputError: no such file, or no table in it whose columns and numbers are clear; a table
            that has to be given again, because checkpoints hold none.
    """
    if is_table(data):
        return _in_memory(data, frame_of(data, columns, series_column), as_text)
    if not isinstance(data, str | os.PathLike):
        raise InputError(f"`data`: expected {WORDS}, got {reprlib.repr(data)}")
    if stands_in(data):
        raise InputError(
            f"the run was trained on {data}, which its checkpoint does not hold; give the same "
            "as `data`"
        )
    file = Path(data)
    ahead = None if as_text else _AHEAD.pop(file, None)
    return _read_file(file, as_text=as_text) if ahead is None else ahead


def require_columns(file: Path, columns: Sequence[str]) -> None:
    """Raise InputError where a file's table has no column of a name.

    The table is kept for the :func:`read_table` that follows, which need not read the file again.
    """
    _AHEAD[file] = _read_file(file)
    _AHEAD[file].require(*columns)


def _read_file(file: Path, *, as_text: bool = False) -> Table:
    text, notes = read_text(file)
    records = split_records(text, file)
    named = [name or f"Unnamed: {k}" for k, name in enumerate(records.names)]
    if len(set(named)) < len(named):
        raise InputError(
            f"{file}: a column has the name that one without a name gets ({names(records.names)}); "
            "give each column a different name"
        )
    frame = _frame(records, named, file, as_text=as_text)
    filled = np.flatnonzero(frame.notna().any(axis=1).to_numpy())
    rows = filled[-1] + 1 if len(filled) else 0
    if not rows:
        raise InputError(f"{file} has no rows below its line of column names")
    frame, lines = frame.iloc[:rows], records.lines[:rows]

    def texts() -> pd.DataFrame:
        return _frame(records, named, file, as_text=True).iloc[:rows]

    frame, said = (frame, []) if as_text else with_numbers(frame, texts, lines, file)
    unnamed = tuple(n for n, name in zip(named, records.names, strict=True) if n != name)
    return Table(file, name_of(file), frame, lines, unnamed, [*notes, *records.notes, *said])


def _in_memory(data: TableLike, frame: pd.DataFrame, as_text: bool) -> Table:
    read = plain_texts if as_text else plain_numbers
    return Table(shown(data), name_of(data), read(frame), np.arange(len(frame)), (), [])


def _frame(
    records: Records, named: list[str], file: Path, *, as_text: bool = False
) -> pd.DataFrame:
    import pandas as pd

    # Without a name for every field pandas would take the first ones for an index.
    surplus = [f"\0{k}" for k in range(records.width - len(named))]
    if not len(records.lines):
        return pd.DataFrame(columns=named)
    # A table with a single column and an empty last line ends without a line for pandas.
    try:
        frame = pd.read_csv(
            io.StringIO(records.body),
            sep=records.delimiter,
            header=None,
            names=named + surplus,
            index_col=False,
            # Blank lines are kept, so that a row's number gives its line in the file.
            skip_blank_lines=False,
            skipinitialspace=True,
            low_memory=False,
            dtype=str if as_text else None,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file} is not a CSV file: {reason}") from None
    if len(frame) != len(records.lines):
        raise InputError(
            f"{file} cannot be read reliably: it has {len(records.lines)} or {len(frame)} records; "
            "look at its quotes and line ends"
        )
    return frame[named]

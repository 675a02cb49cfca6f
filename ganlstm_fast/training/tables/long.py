"""Tables that hold several series: which each row is of, and how to tell such a table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.tables.given import NONE
from ganlstm_fast.training.tables.numbers import is_text
from ganlstm_fast.training.tables.order import repeated, said
from ganlstm_fast.training.tables.read import Table

if TYPE_CHECKING:
    import pandas as pd

# Pieces of a date, which start again without a new series.
PIECES = re.compile(
    r"(?i)(year|yr|quarter|month|mnth|week(day)?|day(_?of_?\w+)?|hour|hr|min(ute)?|sec(ond)?)s?"
)
# Names of columns that say which series a row is of.
NAMES = re.compile(
    r"(?i)(.*[ _])?id|series|unit|unit[ _]n.*|machine|device|asset|engine|sample|symbol|ticker"
)


class SeveralSeries(InputError):
    """A table looks as if it held several series, and no column of them was given.

    Args:
        message: what is wrong and what to do.
        why: why it looks so.
    """

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


def find_series(table: Table, column: str | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """The number of each row's series [rows] int64, and what the file calls them, as they come.

    Args:
        column: that says it; None or ``none``: all rows are of one, without a name.
    """
    import pandas as pd

    frame = table.frame
    if column is None or column == NONE:
        return np.zeros(len(frame), dtype=np.int64), ()
    table.require(column)
    empty = np.flatnonzero(frame[column].isna().to_numpy())
    if len(empty):
        raise InputError(f"{table.file}: column {column} is empty in {table.at(empty)}")
    number, found = pd.factorize(frame[column])
    return number.astype(np.int64), tuple(map(str, found))


def refuse_long(table: Table, times: np.ndarray | None, told: set[str]) -> None:
    """Raises SeveralSeries where the rows look like those of several series and none was named."""
    import pandas as pd

    frame = table.frame
    ids = [c for c in frame.columns if c not in told and _may_name_series(frame[c])]
    found, why = None, ""
    for name in ids:
        distinct = frame[name].nunique()
        if NAMES.fullmatch(name) and 2 <= distinct <= len(frame) / 2:
            found, why = name, f"column {name} has {distinct} values"
            break
    if found is None and times is None:
        found, why = _restarts(table, ids)
    elif found is None:
        twice = repeated(np.zeros(len(frame), dtype=np.int64), times)
        if len(twice):
            # Numbers tell few repeats apart by chance.
            often = len(twice) >= len(frame) / 2
            ids = [c for c in ids if is_text(frame[c]) or often]
            pairs = (pd.DataFrame({"time": times, "name": frame[c].to_numpy()}) for c in ids)
            apart = [c for c, pair in zip(ids, pairs, strict=True) if not pair.duplicated().any()]
            apart = [c for c in apart if frame[c].nunique() <= len(frame) / 2]
            found = min(
                apart, key=lambda c: (not is_text(frame[c]), frame[c].nunique()), default=None
            )
            why = f"{said(times[twice[0]])} stands in {table.at(twice[:2])}"
    if found is not None:
        raise SeveralSeries(
            f"{table.file} holds several series: {why}; give `series_column={found}`, so that no "
            f"window runs from one into the next, or `series_column={NONE}` if it is one series",
            why,
        )


def _may_name_series(column: pd.Series) -> bool:
    import pandas as pd

    return is_text(column) or pd.api.types.is_integer_dtype(column)


def _restarts(table: Table, ids: list[str]) -> tuple[str | None, str]:
    """A column that changes just where another, which counts up, starts again; and why."""
    frame = table.frame
    for counter in ids:
        if is_text(frame[counter]) or PIECES.fullmatch(counter):
            continue
        values = frame[counter].to_numpy()
        starts = np.append(False, np.diff(values) != 1)
        at = np.flatnonzero(starts)
        if not len(at) or len(at) > len(values) / 3 or (values[at] != values[0]).any():
            continue
        for name in ids:
            codes = frame[name].to_numpy()
            if name != counter and np.array_equal(codes[1:] != codes[:-1], starts[1:]):
                return name, f"{counter} starts again in {table.at(at)}, where {name} changes"
    return None, ""

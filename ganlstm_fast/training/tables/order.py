"""When the rows of a table were, and the order that follows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.tables.dates import ORDERS, read_clock, read_dates
from ganlstm_fast.training.tables.gaps import DAY, HOUR, clocks_may_change
from ganlstm_fast.training.tables.given import NONE
from ganlstm_fast.training.tables.numbers import is_text
from ganlstm_fast.training.tables.read import Table

if TYPE_CHECKING:
    import pandas as pd

HOURS = ("hour", "hr")


def find_times(
    table: Table, column: str | None, others: set[str]
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The time of each row, and the columns that say it.

    Args:
        column: of dates; None: the first text column in which every cell is a date; ``none``: no
            column. A column of the time of day, or of hours, beside it is added to whole days.
        others: columns with another role.

    Returns:
        [rows] datetime64[ns] or None.

    Raises:
        InputError: no such column, cells in it that are not dates, or dates whose day may be the
            month.
    """
    frame = table.frame
    if column == NONE:
        return None, ()
    if column is not None:
        table.require(column)
    tried = [column] if column is not None else [c for c in frame.columns if c not in others]
    partly = None
    for name in tried:
        if not is_text(frame[name]) and column is None:
            continue
        dates = read_dates(_as_text(frame[name]))
        good = ~np.isnat(dates.times)
        whole = good.all() and len(dates.orders) == 1
        if whole:
            return _with_clock(table, name, dates.times, others)
        filled = frame[name].notna().to_numpy()
        if column is not None or (partly is None and good.sum() >= 0.5 * max(1, filled.sum())):
            partly = name, dates
    if partly is None:
        return None, ()
    name, dates = partly
    bad = np.flatnonzero(np.isnat(dates.times))
    leave = (
        "" if column is not None else f"; or give `date_column={NONE}` to take rows as they come"
    )
    if len(bad):
        raise InputError(
            f"{table.file}: column {name} holds something other than dates such as 2012-01-31: "
            f"{str(frame[name].iloc[bad[0]])!r} ({table.at(bad)}){leave}"
        )
    orders = " or ".join(ORDERS[order] for order in dates.orders)
    first = table.at(np.zeros(1, dtype=np.int64))
    raise InputError(
        f"{table.file}: the dates of column {name}, such as {frame[name].iloc[0]!r} ({first}), may "
        f"have {orders}; write them as 2012-01-31{leave}"
    )


def _as_text(column: pd.Series) -> pd.Series:
    import pandas as pd

    if is_text(column) or not pd.api.types.is_integer_dtype(column):
        return column
    return column.astype(str)


def _with_clock(
    table: Table, name: str, times: np.ndarray, others: set[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    if (times.astype(np.int64) % DAY).any():
        return times, (name,)
    for other in table.frame.columns:
        column = table.frame[other]
        if other == name or other in others:
            continue
        if is_text(column):
            clock = read_clock(column)
            if clock is not None:
                return times + clock, (name, other)
        elif other.lower() in HOURS and column.isin(range(25)).all():
            hours = column.to_numpy().astype(np.int64)
            return times + hours.astype("timedelta64[h]"), (name, other)
    return times, (name,)


def order_rows(
    table: Table, series: np.ndarray, times: np.ndarray | None, columns: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Rows by series and time.

    Args:
        series: [rows] int64. times: [rows] datetime64[ns]. columns: that say the times.

    Returns:
        [rows] int64, the row of the file at each place; [rows] the times there, or None; notes.

    Raises:
        InputError: two rows of a series have the same time, except in the hour that is repeated
            when daylight saving ends.
    """
    grouped = np.argsort(series, kind="stable")
    if times is None:
        return grouped, None, []
    steps = _steps(series[grouped], times[grouped])
    rows, newest_first = np.arange(len(series)), (steps < 0).sum() > (steps > 0).sum()
    if newest_first:
        rows = rows[::-1]
    order = rows[np.lexsort((times[rows], series[rows]))]
    wrong = repeated(series, times)
    if len(wrong):
        one = series.max() == 0
        raise InputError(
            f"{table.file}: {' '.join(columns)} says {said(times[wrong[0]])} twice "
            f"{'' if one else 'in a series '}({table.at(wrong[:2])}); cut or average such rows"
            + (", name the column of their series as `series_column`" if one else "")
            + f", or give `date_column={NONE}` to take rows as they come"
        )
    s, t = series[order], times[order].astype(np.int64)
    second = np.append(False, (t[1:] == t[:-1]) & (s[1:] == s[:-1]))
    # The repeated hour comes after all of the first one, and before the next hour.
    late = np.where(second, t // HOUR * HOUR + HOUR - 1, t)
    order = order[np.lexsort((t, late, s))]
    notes = []
    if not np.array_equal(order, grouped):
        how = "newest first" if newest_first else "in another order"
        notes.append(f"sorted by {' and '.join(columns)}, rows come {how}")
    return order, times[order], notes


def _steps(series: np.ndarray, times: np.ndarray) -> np.ndarray:
    return np.diff(times.astype(np.int64))[np.diff(series) == 0]


def said(time: np.datetime64) -> str:
    text = str(time.astype("datetime64[s]")).replace("T", " ")
    return text.removesuffix(" 00:00:00")


def repeated(series: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Rows, by series and time, whose time another row of the series has.

    None where those are only the times of the hour that comes twice when clocks are set back.
    """
    order = np.lexsort((times, series))
    s, t = series[order], times[order].astype(np.int64)
    same = (s[1:] == s[:-1]) & (t[1:] == t[:-1])
    twice = np.append(False, same) | np.append(same, False)
    if not twice.any():
        return order[twice]
    steps = _steps(s, times[order])
    step = np.median(steps[steps > 0]) if (steps > 0).any() else DAY
    thrice = (same[1:] & same[:-1]).any()
    autumn = not thrice and step <= HOUR and clocks_may_change(t[twice]).all()
    return order[:0] if autumn else order[twice]


def runs(series: np.ndarray, breaks: np.ndarray) -> Iterator[tuple[int, int]]:
    """First row and end of each run of one series, cut before the rows ``breaks``."""
    edges = np.union1d(np.flatnonzero(np.diff(series)) + 1, breaks)
    edges = np.concatenate(([0], edges, [len(series)])).astype(np.int64)
    yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)


def by_series(series: np.ndarray, times: np.ndarray) -> list[np.ndarray]:
    """The times of each series, of rows by series."""
    whole = np.zeros(0, dtype=np.int64)
    return [times[start:stop] for start, stop in runs(series, whole)]

"""The columns of a table that are learnt, and why the others are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.tables.numbers import is_text, parses
from ganlstm_fast.training.tables.read import Table
from ganlstm_fast.training.tables.records import names

if TYPE_CHECKING:
    import pandas as pd


def choose(
    table: Table,
    columns: Sequence[str] | None,
    told: set[str],
    order: np.ndarray,
    series: np.ndarray,
) -> tuple[list[str], list[str]]:
    """The columns to learn, and notes on those left out.

    Args:
        columns: that were asked for; None: all columns of numbers, except those that number the
            rows.
        told: columns of times, series or classes.
        order: [rows] int64, the rows as they are learnt.
        series: [rows] int64, the series of each place of ``order``.

    Raises:
        InputError: an unknown column, text in one that was asked for, or, where none was, a column
            that is mostly numbers, or no column of numbers.
    """
    if columns is not None:
        return _asked_for(table, columns), []
    left: dict[str, str] = {}
    counts: dict[str, str] = {}
    kept, notes = [], []
    for place, name in enumerate(table.frame.columns):
        if name in told:
            continue
        column = table.frame[name]
        reason = _no_numbers(table, column)
        if reason is not None:
            left[name] = reason
            continue
        if _is_index(table, place):
            left[name] = "numbers of rows without a name"
            continue
        if name in table.unnamed:
            raise InputError(
                f"{table.file}: column {place + 1} has values but no name; name it in the first "
                "line, or choose other `columns`"
            )
        kept.append(name)
        step = _step(column.to_numpy(dtype=np.float64), order, series)
        if step is not None:
            counts[name] = f"counts {'up' if step > 0 else 'down'} by {abs(step):g}"
        elif _grows(column, order, series):
            notes.append(f"{name} only grows: choose the other columns if it is a time")
    if len(counts) < len(kept):
        left |= counts
        kept = [name for name in kept if name not in counts]
    if not kept:
        said = [f"{name}: {reason}" for name, reason in left.items()] or [*map(str, told)]
        expected = (
            "; expected names in the first line and numbers below, separated by commas, semicolons "
            "or tabs"
        )
        raise InputError(
            f"{table.file} has no column of numbers ({names(said)}){expected * table.of_file}"
        )
    if left:
        # As they stand in the file.
        said = [f"{c} ({left[c]})" for c in table.frame.columns if c in left]
        notes.insert(0, f"left out: {names(said)}")
    return kept, notes


def _asked_for(table: Table, columns: Sequence[str]) -> list[str]:
    import pandas as pd

    if not columns:
        raise InputError("`columns`: expected at least one name")
    if len(set(columns)) != len(columns):
        raise InputError(f"`columns`: a name stands twice in {', '.join(columns)}")
    table.require(*columns)
    for name in columns:
        column = table.frame[name]
        if is_text(column) or pd.api.types.is_bool_dtype(column):
            filled = column.dropna()
            wrong = filled[~parses(filled)] if is_text(column) else filled
            where = np.flatnonzero(column.index.isin(wrong.index))
            raise InputError(
                f"{table.file}: column {name} holds something other than numbers"
                + (f", such as {str(wrong.iloc[0])!r} ({table.at(where)})" if len(wrong) else "")
            )
    return list(columns)


def _no_numbers(table: Table, column: pd.Series) -> str | None:
    """Why a column holds no numbers, or None if it does."""
    import pandas as pd

    filled = column.dropna()
    if filled.empty:
        return "empty"
    if pd.api.types.is_bool_dtype(column):
        return "true or false"
    if not is_text(column):
        return None
    number = parses(filled)
    if number.mean() < 0.5:
        return f"text such as {str(filled.iloc[0])[:20]!r}"
    wrong = filled[~number]
    if wrong.empty:
        # All are numbers, but some have a point and some other signs; the minority is wrong.
        plain = pd.to_numeric(filled.astype(str).str.strip(), errors="coerce").notna()
        kinds = filled[plain], filled[~plain]
        wrong = min((kind for kind in kinds if len(kind)), key=len)
    where = np.flatnonzero(column.index.isin(wrong.index))
    count = f"{len(filled) - len(wrong)} numbers and {len(wrong)} of other kinds"
    raise InputError(
        f"{table.file}: column {column.name} has {count}, such as {str(wrong.iloc[0])!r} "
        f"({table.at(where)}); write numbers there, cut the lines, or name the `columns` to "
        "learn"
    )


def _is_index(table: Table, place: int) -> bool:
    """Whether a column is the index that pandas wrote, now or before the file was read again."""
    import pandas as pd

    name = str(table.frame.columns[place])
    first = place == 0 and name in table.unnamed
    again = name.startswith("Unnamed: ") and name not in table.unnamed
    return (first or again) and pd.api.types.is_integer_dtype(table.frame.iloc[:, place])


def _steps(values: np.ndarray, series: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # Infinite values are reported later.
        return np.diff(values)[np.diff(series) == 0]


def _step(values: np.ndarray, order: np.ndarray, series: np.ndarray) -> float | None:
    """The step by which a column goes up or down in every row, in the file or in the order."""
    in_file = np.zeros(len(series), dtype=np.int64)
    for found in (_steps(values, in_file), _steps(values[order], series)):
        found = found[~np.isnan(found)]  # Beside a missing value.
        if len(found) < 4 or not np.isfinite(found).all() or found[0] == 0:
            continue
        largest = np.nanmax(np.abs(values))
        if np.allclose(found, found[0], rtol=1e-6, atol=1e-12 * largest):
            return float(np.median(found))
    return None


def _grows(column: pd.Series, order: np.ndarray, series: np.ndarray) -> bool:
    import pandas as pd

    if not pd.api.types.is_integer_dtype(column):
        return False
    steps = _steps(column.to_numpy()[order], series)
    return len(steps) > 2 and bool((steps > 0).all())


def numbers_of(table: Table, chosen: list[str], *, missing: bool) -> np.ndarray:
    """[rows, channels] float64 of the columns ``chosen``, NaN where a value is missing.

    Raises:
        InputError: an infinite value, or, unless ``missing`` is allowed, a missing one; the message
            names the lines.
    """
    values = table.frame[chosen].to_numpy(dtype=np.float64, copy=True)
    bad = np.isinf(values) if missing else ~np.isfinite(values)
    if bad.any():
        kind = "infinite values" if missing else "missing or infinite values"
        advice = "cut them" if missing else "give `fill` (interpolate, previous or drop)"
        where = [c for c, wrong in zip(chosen, bad.any(axis=0), strict=True) if wrong]
        raise InputError(
            f"{table.file}: {kind} in {names(where)}, {table.at(bad.any(axis=1))}; {advice}, "
            "or choose other `columns`"
        )
    return values

"""Missing values: filled from the rows around them, or their rows left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.tables.columns import numbers_of
from ganlstm_fast.training.tables.gaps import steps_between
from ganlstm_fast.training.tables.read import Table
from ganlstm_fast.training.tables.records import names
from ganlstm_fast.training.windows import Stretches

if TYPE_CHECKING:
    import pandas as pd

WORDS = {"interpolate": "by interpolation", "previous": "with the previous ones"}


def without_missing(
    table: Table,
    chosen: list[str],
    fill: str | None,
    order: np.ndarray,
    times: np.ndarray | None,
    stretches: Stretches,
    series: tuple[str, ...],
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The numbers of the columns ``chosen``, with none missing.

    Args:
        fill: ``interpolate``: on a straight line over time, or over rows where there are no times,
            between the values before and after in the same stretch, and at its ends the nearest; a
            stretch without any takes the nearest of its series. ``previous``: the value before in
            the series, in its first rows the one after. ``drop``: the rows are left out. None:
            none may be missing.
        order: [rows] int64, the row of the file at each place.
        times: [rows] datetime64[ns] in that order, or None.
        stretches: of the rows in that order.
        series: what the file calls the series; none where there is one without a name.

    Returns:
        [rows, channels] float64 in that order; [rows] bool, which of the rows are kept; notes.

    Raises:
        InputError: an infinite value; a missing one without ``fill``; a series in which a column
            has no value, or a series that ``drop`` would leave without rows.
    """
    import pandas as pd

    values = numbers_of(table, chosen, missing=fill is not None)[order]
    missing = np.isnan(values)
    complete = ~missing.any(axis=1)
    if complete.all():
        return values, complete, []
    number = stretches.series[stretches.of_row].numpy()
    frame = pd.DataFrame(values, columns=chosen)
    for k, known in frame.groupby(number):
        of_series = f" of {series[k]}" if series else ""
        empty = [c for c in chosen if known[c].isna().all()]
        if empty:
            raise InputError(
                f"{table.file}: no row{of_series} has a value of {names(empty)}, so that "
                f"`fill={fill}` has none to start from; choose other `columns`"
            )
        if fill == "drop" and not complete[known.index].any():
            raise InputError(
                f"{table.file}: each row{of_series} has a missing value, so that "
                "`fill=drop` leaves none; give `fill=interpolate`, or choose other `columns`"
            )
    counts = {c: int(n) for c, n in zip(chosen, missing.sum(axis=0), strict=True) if n}
    if fill == "drop":
        rows = int((~complete).sum())
        what = f"{rows} row{'s' if rows > 1 else ''} with missing values in {names([*counts])}"
        return values, complete, [f"left out {what} ({table.at(order[~complete])})"]
    if fill == "interpolate":
        frame = _interpolated(frame, times, stretches)
    frame = frame.groupby(number).ffill().groupby(number).bfill()
    total = sum(counts.values())
    said = names([f"{c} ({n})" for c, n in counts.items()])
    note = f"filled {total} missing value{'s' if total > 1 else ''} {WORDS[fill]}: {said}"
    return frame.to_numpy(copy=True), np.ones_like(complete), [note]


def _interpolated(
    frame: pd.DataFrame, times: np.ndarray | None, stretches: Stretches
) -> pd.DataFrame:
    """``frame`` with what can be interpolated within a stretch."""
    found = frame.copy()
    for start, stop in zip(stretches.starts.tolist(), stretches.stops.tolist(), strict=True):
        part = frame.iloc[start:stop]
        if not part.isna().any(axis=None):
            continue
        if times is not None:
            steps = steps_between(times[start:stop].astype("datetime64[ns]").astype(np.int64))
            part = part.set_axis(np.append(0, steps.cumsum()))
        part = part.interpolate(method="index", limit_direction="both")
        found.iloc[start:stop] = part.to_numpy()
    return found

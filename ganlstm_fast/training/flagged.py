"""Which rows of a file are flagged by the scores of its windows, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ganlstm_fast.training.tables.order import said
from ganlstm_fast.training.tables.records import names

if TYPE_CHECKING:
    import pandas as pd

# At most this many stretches of rows are named.
MOST = 5


def flagged_words(table: pd.DataFrame) -> str:
    """A line that sums up ``table``, a result of :func:`~ganlstm_fast.training.using.score`."""
    threshold, changed = table.attrs["threshold"], table.attrs["changed"]
    if threshold is None:
        return (
            "no window is flagged: the run has no threshold, which ganlstm-fast evaluate RUN finds"
        )
    count = int(table["flagged"].sum())
    lie, have = ("lie", "have") if count > 1 else ("lies", "has")
    line = f"{count or 'none'} of {len(table)} windows {lie} above the threshold of {threshold:.3g}"
    if changed:
        line += f", or {have} a change of {names(changed)}, constant in training"
    if not count:
        return line
    rows = flagged_rows(table)
    lead = "" if len(rows) == 1 else ", the worst first"
    return f"{line}{lead}: {names([_words(row) for row in rows.to_dict('records')], MOST)}"


def flagged_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the file in flagged windows, those of windows that overlap as one line.

    Returns:
        ``series``, empty where there is one; ``first_row`` and ``last_row``, the smaller one first;
        ``first_time`` and ``last_time`` where ``table`` has them; ``total``, the highest of its
        windows, from high to low.
    """
    flagged = table[table["flagged"].to_numpy()]
    ends = flagged[["first_row", "last_row"]]
    # A file with its newest row first has the last row of a window above its first.
    found = flagged.assign(first_row=ends.min(axis=1), last_row=ends.max(axis=1))
    found["series"] = "" if table.columns[0] == "first_row" else flagged.iloc[:, 0].astype(str)
    found = found.sort_values(["series", "first_row"])
    reach = found.groupby("series")["last_row"].cummax().groupby(found["series"]).shift()
    apart = ~(found["first_row"] <= reach)
    ways = {
        "series": "first",
        "first_row": "min",
        "last_row": "max",
        "first_time": "min",
        "last_time": "max",
        "total": "max",
    }
    merged = found.groupby(apart.cumsum()).agg({c: ways[c] for c in ways if c in found})
    return merged.sort_values("total", ascending=False, ignore_index=True)


def _words(row: dict[str, Any]) -> str:
    words = f"{row['series']} rows".lstrip() + f" {row['first_row']} to {row['last_row']}"
    if "first_time" in row:
        words += f" ({_time(row['first_time'])} to {_time(row['last_time'])})"
    return words


def _time(time: Any) -> str:
    return said(time.to_datetime64()) if hasattr(time, "to_datetime64") else str(time)

"""Dates and times in the forms that people write."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

_CLOCK = (
    r"(?P<H>\d{1,2})[:.](?P<M>\d{2})(?:[:.](?P<S>\d{2})(?:[.,](?P<F>\d{1,9}))?)?"
    r"\s*(?P<half>[AaPp]\.?[Mm]\.?)?"
)
_TIME = rf"(?:[T ,]\s*{_CLOCK})?\s*(?P<zone>Z|UTC|GMT|[+-]\d{{2}}:?(?:\d{{2}})?)?"
_WORD = r"[A-Za-z]{3,9}\.?"
# The patterns before the time of day, each with the orders that its three numbers may have.
_FORMS = (
    (r"(?P<a>\d{4})(?P<sep>[-/.]?)(?P<b>\d{2})(?P=sep)(?P<c>\d{2})", ("ymd",)),
    (r"(?P<a>\d{4})[-/.](?P<b>\d{1,2})[-/.](?P<c>\d{1,2})", ("ymd",)),
    (r"(?P<a>\d{4})[-/.](?P<b>\d{2})(?P<c>)", ("ymd",)),
    (r"(?P<c>)(?P<a>\d{1,2})[-/.](?P<b>\d{4})", ("myd",)),
    (r"(?P<a>\d{1,2})\.(?P<b>\d{1,2})\.(?P<c>\d{4}|\d{2})", ("dmy",)),
    (r"(?P<a>\d{1,2})(?P<sep>[-/])(?P<b>\d{1,2})(?P=sep)(?P<c>\d{4})", ("dmy", "mdy")),
    (r"(?P<a>\d{2})(?P<sep>[-/])(?P<b>\d{2})(?P=sep)(?P<c>\d{2})", ("dmy", "mdy", "ymd")),
    (r"(?P<a>\d{1,2})(?P<sep>[-/])(?P<b>\d{1,2})(?P=sep)(?P<c>\d{2})", ("dmy", "mdy")),
    (
        rf"(?:{_WORD},?\s+)?(?P<a>\d{{1,2}})[-/. ]+(?P<b>{_WORD})[-/. ,]+(?P<c>\d{{4}}|\d{{2}})",
        ("dmy",),
    ),
    (
        rf"(?:{_WORD},?\s+)?(?P<a>{_WORD})[- ]+(?P<b>\d{{1,2}})(?:st|nd|rd|th)?,?\s+(?P<c>\d{{4}})",
        ("mdy",),
    ),
    (rf"(?P<c>)(?P<a>{_WORD})[-/ ,]+(?P<b>\d{{4}})", ("myd",)),
    (rf"(?P<a>\d{{4}})[- ](?P<b>{_WORD})(?:[- ](?P<c>\d{{1,2}}))?", ("ymd",)),
)
_QUARTER = r"(?P<y>\d{4})[- ]?Q(?P<q>[1-4])|Q(?P<r>[1-4])[- ](?P<z>\d{4})"
_MONTHS = {
    name.lower(): k
    for names in (calendar.month_name, calendar.month_abbr)
    for k, name in enumerate(names)
} | {"sept": 9}
ORDERS = {"dmy": "the day first", "mdy": "the month first", "ymd": "the year first"}


@dataclass(frozen=True)
class Dates:
    """A text column as dates.

    Attributes:
        times: [rows] datetime64[ns] of the first reading; not a time where a cell is no date.
        orders: of day, month and year that fit equally well but give different dates: one if the
            column is unambiguous, none if no cell is a date.
    """

    times: np.ndarray
    orders: tuple[str, ...]

    @property
    def share(self) -> float:
        """The part of the cells that are dates."""
        return float(np.mean(~np.isnat(self.times)))


def read_dates(column: pd.Series) -> Dates:
    """The dates in a text column; cells that are empty or no date are not a time."""
    import pandas as pd

    number, texts = pd.factorize(column.astype(object))
    texts = pd.Series([str(text).strip() for text in texts], dtype=object)
    quick = _iso(texts)
    if quick is not None:
        return Dates(np.append(quick, np.datetime64("NaT"))[number], ("ymd",))
    readings: dict[str, np.ndarray] = {}
    left = np.ones(len(texts), dtype=bool)
    for form, orders in _FORMS:
        if not left.any():
            break
        parts = texts[left].str.extract(rf"^{form}{_TIME}$")
        hit = parts["a"].notna().to_numpy()
        where = np.flatnonzero(left)[hit]
        if not len(where):
            continue
        left[where] = False
        for order in orders:
            known = readings.setdefault(order, np.full(len(texts), "NaT", "datetime64[ns]"))
            known[where] = _times(parts[hit], order)
    quarters = _quarters(texts)
    if not np.isnat(quarters).all():
        readings["quarter"] = quarters
    if not readings:
        return Dates(np.full(len(column), "NaT", "datetime64[ns]"), ())
    in_file = {order: np.append(t, np.datetime64("NaT"))[number] for order, t in readings.items()}
    order, others = _best(in_file)
    return Dates(in_file[order], (order, *others))


def _iso(texts: pd.Series) -> np.ndarray | None:
    """The times if all texts are dates of ISO 8601, by pandas's much faster reader."""
    import pandas as pd

    if not texts.str.fullmatch(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}.*)?").all():
        return None
    times = pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=True)
    if times.isna().any():
        return None
    return times.dt.tz_localize(None).to_numpy().astype("datetime64[ns]")


def _best(readings: dict[str, np.ndarray]) -> tuple[str, list[str]]:
    """The order with the most dates, and those that fit equally well but give other dates.

    If several fit, and only one of them puts the file's rows in order, that one is taken.
    """
    count = {order: int((~np.isnat(found)).sum()) for order, found in readings.items()}
    best = max(count, key=count.__getitem__)
    fit = [best]
    for order, found in readings.items():
        known = [readings[other] for other in fit]
        new = not any(np.array_equal(found, other, equal_nan=True) for other in known)
        if order in ORDERS and count[order] == count[best] and new:
            fit.append(order)
    in_order = [order for order in fit if _is_sorted(readings[order])]
    if len(in_order) == 1:
        return in_order[0], []
    return best, fit[1:]


def _is_sorted(times: np.ndarray) -> bool:
    steps = np.diff(times[~np.isnat(times)].astype(np.int64))
    # A few rows are in order by chance.
    return (steps != 0).sum() >= 4 and bool((steps >= 0).all() or (steps <= 0).all())


def _times(parts: pd.DataFrame, order: str) -> np.ndarray:
    """[n] datetime64[ns] of the pieces of some dates; not a time where one is out of range."""

    place = dict(zip(order, ("a", "b", "c"), strict=True))
    year = _whole(parts[place["y"]], 0)
    short = parts[place["y"]].str.len().to_numpy() == 2
    # As POSIX has it: 69 to 99 are of the last century.
    year = np.where(short, np.where(year < 69, 2000, 1900) + year, year)
    words = parts[place["m"]].str.rstrip(".").str.lower()
    month = np.array([_MONTHS.get(w, 0) if w.isalpha() else int(w) for w in words])
    day = _whole(parts[place["d"]], 1)
    hour, minute, second = (_whole(parts[c], 0) for c in "HMS")
    half = parts["half"].fillna("").str[:1].str.lower()
    ok = (half == "").to_numpy() | ((hour >= 1) & (hour <= 12))
    hour = np.where(
        (half == "p").to_numpy(),
        hour % 12 + 12,
        np.where((half == "a").to_numpy(), hour % 12, hour),
    )
    fraction = _whole(parts["F"].str.ljust(9, "0"), 0)
    ok &= (month >= 1) & (month <= 12) & (day >= 1) & (hour < 24) & (minute < 60) & (second < 60)
    ok &= (year >= 1678) & (year <= 2261)
    first = np.where(ok, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    length = ((first + 1).astype("datetime64[D]") - first.astype("datetime64[D]")).astype(int)
    ok &= day <= length
    seconds = (hour * 60 + minute) * 60 + second - 60 * _offset(parts["zone"])
    times = first.astype("datetime64[D]").astype("datetime64[ns]")
    times = times + (day - 1).astype("timedelta64[D]") + seconds.astype("timedelta64[s]")
    times = times + fraction.astype("timedelta64[ns]")
    return np.where(ok, times, np.datetime64("NaT"))


def _whole(column: pd.Series, missing: int) -> np.ndarray:
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce")
    return numbers.fillna(missing).to_numpy(dtype=np.int64)


def _offset(zone: pd.Series) -> np.ndarray:
    """Minutes east of Greenwich."""

    def minutes(text: object) -> int:
        if not isinstance(text, str) or text[0] not in "+-":
            return 0
        digits = text[1:].replace(":", "").ljust(4, "0")
        return int(text[0] + "1") * (60 * int(digits[:2]) + int(digits[2:]))

    return np.array([minutes(text) for text in zone], dtype=np.int64)


def _quarters(texts: pd.Series) -> np.ndarray:
    parts = texts.str.extract(f"^(?:{_QUARTER})$")
    year = _whole(parts["y"].fillna(parts["z"]), 0)
    quarter = _whole(parts["q"].fillna(parts["r"]), 1)
    months = (
        ((year - 1970) * 12 + 3 * (quarter - 1)).astype("datetime64[M]").astype("datetime64[ns]")
    )
    return np.where(year > 0, months, np.datetime64("NaT"))


def read_clock(column: pd.Series) -> np.ndarray | None:
    """[rows] timedelta64[ns] since midnight, if every cell is a time of day such as 18:30."""
    cells = column.astype(object)
    if cells.isna().any() or not len(cells):
        return None
    first = str(cells.iloc[0]).strip()
    if re.fullmatch(_CLOCK, first) is None:
        return None
    parts = cells.astype(str).str.strip().str.extract(f"^{_CLOCK}$")
    if parts["H"].isna().any():
        return None
    dated = parts.assign(a="1970", b="01", c="01", zone="Z")
    times = _times(dated, "ymd")
    return None if np.isnat(times).any() else times - np.datetime64(0, "ns")

"""The usual time from a row to the next: onwards to rows that follow, and back to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ganlstm_fast.training.tables.gaps import (
    DAY,
    HOUR,
    LEAST_STEP,
    in_months,
    is_regular,
    months_between,
    phase_of,
    places_of_weeks,
    steps_between,
    usual_places,
)

MINUTE, SECOND = 60 * 10**9, 10**9
YEAR = 365.25 * DAY
WEEKDAYS = "1111100"
_UNITS = ((7 * DAY, "week"), (DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"), (SECOND, "second"))
# The simple forecasts beside the last row, by the length of a step and how many rows they go back.
_OF_LENGTH = {
    7 * DAY: {"same week last year": 52},
    DAY: {"same day last year": 365},
    HOUR: {"same hour yesterday": 24, "same hour last week": 168},
}
_OF_MONTHS = {1: {"same month last year": 12}, 3: {"same quarter last year": 4}}


@dataclass(frozen=True)
class Step:
    """The usual time from a row to the next.

    Attributes:
        length: in ns; 0 where it is some months.
        months: how many; 0 where it is a length.
        day: of months: the day of the month on which rows are, 31 for the last one; 0: the day of
            the row before.
        weekday: of months: ``first`` or ``last`` where rows are on that weekday of the month.
        week: a 1 for each place of a week, in steps from a Monday, at which there are rows, and a 0
            for each other; empty where there are rows at all places.
        phase: ns from a Monday, 00:00, to the first place.
    """

    length: int = 0
    months: int = 0
    day: int = 0
    weekday: str = ""
    week: str = ""
    phase: int = 0

    @property
    def unit(self) -> tuple[float, str]:
        """The length as a number and a unit, such as ``(15, "minute")``."""
        if self.months == 3:
            return 1, "quarter"
        if self.months:
            years, rest = divmod(self.months, 12)
            return (self.months, "month") if rest else (years, "year")
        for unit, name in _UNITS:
            if self.length % unit == 0:
                return self.length // unit, name
        return self.length / SECOND, "second"

    def as_long_as(self, other: Step) -> bool:
        """Whether both are as long."""
        return (self.length, self.months) == (other.length, other.months)

    def after(self, last: np.datetime64, count: int) -> np.ndarray:
        """The times of the ``count`` rows that follow one at ``last``: [count] datetime64[ns].

        They leave out the nights and weekends that the data leaves out, but no holidays.
        """
        if self.months:
            return self._months_after(last, count)
        last = last.astype("datetime64[ns]")
        ahead = np.arange(1, count + 1)
        if self.week:
            usual = np.array(list(self.week)) == "1"
            weeks = -(-count // usual.sum()) + 1
            place = places_of_weeks(last.astype(np.int64), self.length, self.phase)
            ahead = np.arange(1, weeks * len(usual) + 1)
            ahead = ahead[usual[(place + ahead) % len(usual)]][:count]
        return last + (ahead * self.length).astype("timedelta64[ns]")

    def _months_after(self, last: np.datetime64, count: int) -> np.ndarray:
        import pandas as pd

        start, day = pd.Timestamp(last), {"day": self.day} if self.day else {}
        ahead = range(self.months, (count + 1) * self.months, self.months)
        if not self.weekday:
            times = [start + pd.DateOffset(months=k, **day) for k in ahead]
        else:
            kind = pd.offsets.BMonthBegin if self.weekday == "first" else pd.offsets.BMonthEnd
            times = [start + pd.DateOffset(months=k, day=1) + kind(0) for k in ahead]
        return np.array(times, dtype="datetime64[ns]")

    def _seasons(self) -> dict[str, int]:
        """The simple forecasts that go back a day, a week or a year, and by how many rows."""
        if self.months:
            rows = 12 // self.months if 12 % self.months == 0 else 0
            return _OF_MONTHS.get(self.months, {"same time last year": rows})
        if self.week:
            a_week = self.week.count("1")
            if self.length < DAY:
                return {f"about a week before ({a_week} rows)": a_week}
            rows = round(a_week * YEAR / (7 * DAY))
            return {f"about a year before ({rows} rows)": rows}
        if self.length in _OF_LENGTH:
            return _OF_LENGTH[self.length]
        if self.length > DAY:
            return _back(self.length, YEAR, "about a year before")
        if self.length >= MINUTE:
            found = _back(self.length, DAY, "same time yesterday", "about a day before")
            if self.length > HOUR:
                found |= _back(self.length, 7 * DAY, "same time last week", "about a week before")
            return found
        return _back(self.length, HOUR, "an hour before", "about an hour before")


def _back(length: int, span: float, exact: str, about: str = "") -> dict[str, int]:
    """``span`` before, by its name, and how many rows of ``length`` that is."""
    rows = round(span / length)
    return {exact if about and span % length == 0 else f"{about or exact} ({rows} rows)": rows}


def baselines(step: Step | None, period: int | None = None) -> dict[str, int]:
    """The simple forecasts that others are compared with, by name: how many rows they go back.

    Args:
        step: of the data; None: not known.
        period: rows, which take the place of the day, week or year that the step has.

    Returns:
        First the last row before, as 1.
    """
    seasons = step._seasons() if step else {}
    # Where weekends are missing holidays may be too, so a number of rows is not a length of time.
    count, unit = step.unit if step and not step.week else (1, "row")
    if period is not None:
        known = [name for name, rows in seasons.items() if rows == period]
        seasons = {known[0] if known else f"{_many(period * count, unit)} before": period}
    if step and step.week == WEEKDAYS:
        unit = "weekday"
    if (count, unit) == (1, "day"):
        first = "same as yesterday"
    else:
        first = f"same as {f'the {unit}' if count == 1 else _many(count, unit)} before"
    return {first: 1, **{name: rows for name, rows in seasons.items() if rows > 1}}


def _many(count: float, unit: str) -> str:
    return f"{count:g} {unit}" if count == 1 else f"{count:g} {unit}s"


def find_step(series: Sequence[np.ndarray]) -> Step | None:
    """The usual step of some series; None where they differ, or rows come unevenly.

    Args:
        series: of each the times [rows] datetime64[ns], in order. One of fewer than three rows says
            nothing.
    """
    lengths = {_length(times) for times in series if len(times) >= 3}
    found = lengths.pop() if len(lengths) == 1 else None
    if found is None:
        return None
    length, months = found
    times = np.concatenate(series).astype("datetime64[ns]")
    if months:
        return Step(months=months, **_day_of_month(times))
    if DAY % length or length < LEAST_STEP:
        return Step(length)
    t = times.astype(np.int64)
    phase = phase_of(t, length)
    place = np.sort(places_of_weeks(t, length, phase), kind="stable")
    place = place[np.append(True, np.diff(place) > 0)]
    usual = usual_places(place, DAY // length)
    # A weekend that has not come yet is not known to be left out.
    if usual[np.arange(place[0], place[-1] + 1) % len(usual)].all():
        return Step(length)
    return Step(length, week="".join("01"[place] for place in usual.astype(int)), phase=phase)


def _length(times: np.ndarray) -> tuple[int, int] | None:
    """The usual step of a series in ns, or in months; None where there is none."""
    steps = steps_between(times.astype("datetime64[ns]").astype(np.int64))
    if in_months(steps):
        months, usual = months_between(times)
        return (0, usual) if is_regular(months, usual) else None
    usual = int(np.median(steps))
    return (usual, 0) if usual > 0 and is_regular(steps, usual) else None


def _day_of_month(times: np.ndarray) -> dict[str, object]:
    """The ``day`` or ``weekday`` of a :class:`Step` of months."""
    import pandas as pd

    dates = pd.DatetimeIndex(times)
    days, longest = dates.day, dates.day.max()
    if dates.is_month_end.all():
        return {"day": 31}
    # One day, or in shorter months the last.
    if (days == np.minimum(longest, dates.days_in_month)).all():
        return {"day": int(longest)}
    for weekday, kind in (("first", pd.offsets.BMonthBegin), ("last", pd.offsets.BMonthEnd)):
        if all(kind().is_on_offset(day) for day in dates):
            return {"weekday": weekday}
    return {}

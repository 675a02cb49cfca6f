"""Breaks in time: where rows are missing that the data has elsewhere."""

from __future__ import annotations

import numpy as np

DAY = 86_400 * 10**9
HOUR = 3_600 * 10**9
# A Monday: 1 January 1970 was a Thursday.
MONDAY = -3 * DAY
# Places of a week are not counted in finer steps than this: there would be too many.
LEAST_STEP = 10**9
# Data without weekends has holidays. The longest of stock exchanges (Golden Week, the lunar New
# Year, with the weekends around) leave this many days between two rows.
HOLIDAYS = 12 * DAY
# If a smaller share of the steps is the usual one, rows come irregularly.
REGULAR = 0.6
_UNITS = (
    (365 * DAY, "year"),
    (DAY, "day"),
    (HOUR, "hour"),
    (60 * 10**9, "minute"),
    (10**9, "second"),
)


def find_gaps(times: np.ndarray) -> tuple[np.ndarray, str]:
    """Before which rows of a series time is missing, and the usual step in words.

    The usual step is the median. A longer step is not a gap if nothing is missing that the data has
    in other weeks: a weekend in the prices of working days, the night in those of an exchange's
    hours; nor is it one for holidays of up to 12 days in data without weekends, for the hour that
    daylight saving takes, or for months of different lengths. Where steps have no usual length, a
    gap is ten times longer than nine in ten of them.

    Args:
        times: [rows] datetime64[ns], in order.

    Returns:
        [gaps] int64: the rows that follow a gap; and the step.
    """
    t = times.astype("datetime64[ns]").astype(np.int64)
    if len(t) < 3:
        return np.zeros(0, dtype=np.int64), ""
    steps = steps_between(t)
    usual = int(np.median(steps))
    if in_months(steps):
        return _of_months(times)
    if not is_regular(steps, usual):
        wide = steps > 10 * np.quantile(steps, 0.9)
        return np.flatnonzero(wide) + 1, "uneven steps"
    spring = _spring(t[:-1], steps - usual)
    wide = (steps > 1.5 * usual) & ~spring
    if wide.any() and DAY % usual == 0:
        rows = np.flatnonzero(wide)
        wide[rows] = _missing(t, usual, rows)
    words = f"every {in_words(usual)}"
    crossed = steps[(steps > 1.5 * usual) & ~wide & ~spring]
    if len(crossed):
        words += f", with usual breaks of up to {in_words(int(crossed.max()))}"
    return np.flatnonzero(wide) + 1, words


def steps_between(t: np.ndarray) -> np.ndarray:
    """From each of the times int64 ns to the next, [rows - 1] int64 ns."""
    steps = np.diff(t)
    return np.where(steps <= 0, steps + HOUR, steps)  # The hour that comes twice in autumn.


def in_months(steps: np.ndarray) -> bool:
    """Whether ``steps`` int64 ns are months and not, say, four weeks each."""
    usual = np.median(steps)
    # At most three in four months, or quarters, have the same length.
    equal = usual < 365 * DAY and len(steps) >= 3 and (steps == usual).mean() > 0.8
    return bool(usual >= 27 * DAY) and not equal


def is_regular(steps: np.ndarray, usual: int) -> bool:
    """Whether most ``steps`` int64 are about as long as the ``usual`` one."""
    return bool((np.abs(steps - usual) <= usual / 2).mean() >= REGULAR)


def months_between(times: np.ndarray) -> tuple[np.ndarray, int]:
    """How many months there are from each of ``times`` to the next, and the usual number."""
    months = np.diff(times.astype("datetime64[M]").astype(np.int64))
    return months, max(1, int(np.median(months)))


def _of_months(times: np.ndarray) -> tuple[np.ndarray, str]:
    months, usual = months_between(times)
    words = in_words(usual // 12 * 365 * DAY) if usual % 12 == 0 else f"{usual} months"
    return np.flatnonzero(months > usual) + 1, f"every {'month' if usual == 1 else words}"


def _spring(before: np.ndarray, longer: np.ndarray) -> np.ndarray:
    """Where an hour is left out on a Sunday night of spring (north or south of the equator)."""
    return (longer == HOUR) & clocks_may_change(before)


def clocks_may_change(t: np.ndarray) -> np.ndarray:
    """Which times, int64 ns, are of a night in which daylight saving begins or ends."""
    day = t // DAY
    # 1 January 1970 was a Thursday. Clocks are changed on Sundays, some in the last hours before.
    sunday = ((t + 2 * HOUR) // DAY + 4) % 7 == 0
    month = day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12 + 1
    early = (t + 2 * HOUR) % DAY < 6 * HOUR
    return sunday & early & np.isin(month, (3, 4, 9, 10, 11))


def _missing(t: np.ndarray, step: int, rows: np.ndarray) -> np.ndarray:
    """Whether rows that are usual in the week are missing after each of ``rows``."""
    place, a_day = places_of_weeks(t, step, phase_of(t, step)), DAY // step
    if step < LEAST_STEP or (np.diff(place) < 1).any():
        return np.ones(len(rows), dtype=bool)
    usual = usual_places(place, a_day)
    a_week = len(usual)
    before = np.append(0, usual.cumsum())

    def until(k: np.ndarray) -> np.ndarray:
        """Usual places before place ``k``."""
        return k // a_week * before[-1] + before[k % a_week]

    last, following = place[rows], place[rows + 1]
    missing = until(following) - until(last + 1)
    whole_days = (until(last // a_day * a_day + a_day) == until(last + 1)) & (
        until(following // a_day * a_day) == until(following)
    )
    weekends = bool((~usual.reshape(7, a_day)).all(1).any())
    holiday = weekends & whole_days & (t[rows + 1] - t[rows] <= HOLIDAYS)
    return (missing > 0) & ~holiday


def phase_of(t: np.ndarray, step: int) -> int:
    """The usual rest of the times int64 ns, in whole steps from a Monday, 00:00."""
    return int(np.median((t - MONDAY) % step))


def places_of_weeks(t: np.ndarray, step: int, phase: int) -> np.ndarray:
    """The place of each of the times int64 ns, in steps from a Monday, 00:00."""
    return np.round((t - MONDAY - phase) / step).astype(np.int64)


def usual_places(place: np.ndarray, a_day: int) -> np.ndarray:
    """[7 * a_day] bool: the places of a week at which the data has rows.

    A place without rows is unusual if the data is two weeks long; three days are enough for a time
    of day without rows on any day. Saturdays and Sundays are unusual at once if no row is on
    either.
    """
    a_week = 7 * a_day
    had = np.bincount(place % a_week, minlength=a_week)
    weeks = (place[-1] - place[0] + 1) / a_week
    of_day = had.reshape(7, a_day).sum(0)
    never = (had <= 0.1 * had.max()) & (weeks >= 2)
    never |= np.tile((of_day <= 0.1 * of_day.max()) & (weeks * 7 >= 3), 7)
    if not had[5 * a_day :].any():
        never[5 * a_day :] = True
    return ~never


def in_words(length: int) -> str:
    """A length of time in ns, such as ``3 days``; ``day`` for one."""
    for unit, name in _UNITS:
        if length >= unit:
            count = round(length / unit, 1)
            return name if count == 1 else f"{count:g} {name}s"
    return f"{length / 10**9:g} seconds"

"""Dates in words and as ISO 8601 has them, made: ``March the 3rd, 1998`` and ``1998-03-03``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import torch

FIRST, LAST = date(1900, 1, 1), date(2099, 12, 31)
# On average one date in this many is in lower case.
LOWERED = 4

_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
_TENS = ("", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
# Ordinals that are not the number with th.
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
    "twenty": "twentieth",
    "thirty": "thirtieth",
}
# Not from the calendar module, whose names depend on the machine's language.
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
    *("October", "November", "December"),
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _number(value: int) -> str:
    """0 to 99 in words."""
    if value < len(_UNITS):
        return _UNITS[value]
    tens, unit = _TENS[value // 10], value % 10
    return f"{tens}-{_UNITS[unit]}" if unit else tens


def _day(value: int) -> str:
    """A day of the month as its ordinal in words."""
    before, _, last = _number(value).rpartition("-")
    last = _ORDINALS.get(last, f"{last}th")
    return f"{before}-{last}" if before else last


def _short_day(value: int) -> str:
    teen = 11 <= value <= 13
    return f"{value}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(value % 10, 'th')}"


def _year(value: int) -> str:
    """A year in words, as it is said."""
    century, rest = divmod(value, 100)
    if 2000 <= value < 2010:
        return "two thousand" + (f" and {_UNITS[rest]}" if rest else "")
    if not rest:
        return f"{_number(century)} hundred"
    return f"{_number(century)} {'oh ' if rest < 10 else ''}{_number(rest)}"


# The ways to write a date. None writes the month as a number, which could be read as the day.
FORMATS: tuple[Callable[[date], str], ...] = (
    lambda d: f"{d.day} {_MONTHS[d.month - 1]} {d.year}",
    lambda d: f"{_MONTHS[d.month - 1]} {d.day}, {d.year}",
    lambda d: f"{d.day} {_MONTHS[d.month - 1][:3]} {d.year}",
    lambda d: f"{_MONTHS[d.month - 1]} the {_short_day(d.day)}, {d.year}",
    lambda d: f"the {_short_day(d.day)} of {_MONTHS[d.month - 1]} {d.year}",
    lambda d: f"{_DAYS[d.weekday()]}, {d.day} {_MONTHS[d.month - 1]} {d.year}",
    lambda d: f"the {_day(d.day)} of {_MONTHS[d.month - 1]}, {d.year}",
    lambda d: f"{_MONTHS[d.month - 1]} the {_day(d.day)}, {_year(d.year)}",
    lambda d: f"the {_day(d.day)} of {_MONTHS[d.month - 1]}, {_year(d.year)}",
)


def dates_in_words(count: int, generator: torch.Generator | None = None) -> list[tuple[str, str]]:
    """Different dates from 1900 to 2099, each in words, in one of ``FORMATS``, and in ISO 8601.

    The dates, their format and case are drawn from ``generator``, on the CPU; None is torch's own.

    Raises:
        ValueError: more dates than there are.
    """
    known = (LAST - FIRST).days + 1
    if count > known:
        raise ValueError(f"count: expected {known} or less, got {count}")
    days = torch.randperm(known, generator=generator)[:count].tolist()
    formats = torch.randint(len(FORMATS), (count,), generator=generator).tolist()
    lowered = (torch.randint(LOWERED, (count,), generator=generator) == 0).tolist()
    found = []
    for offset, k, low in zip(days, formats, lowered, strict=True):
        day = FIRST + timedelta(offset)
        words = FORMATS[k](day)
        found.append((words.lower() if low else words, day.isoformat()))
    return found


def date_pairs(
    train: int = 20_000, test: int = 2_000, seed: int = 0
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """:func:`dates_in_words` to train on and held out: no date is in both, in whatever words."""
    pairs = dates_in_words(train + test, torch.Generator().manual_seed(seed))
    return pairs[:train], pairs[train:]

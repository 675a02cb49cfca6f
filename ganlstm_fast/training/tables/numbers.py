"""Numbers as people write them: decimal commas, and signs between groups of three digits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.tables.records import at_lines

if TYPE_CHECKING:
    import pandas as pd

_SIGN, _POWER = r"[+-]?", r"(?:[eE][+-]?\d+)?"
# Numbers in which the comma, or the point, is the decimal sign.
COMMA = rf"{_SIGN}(?:[1-9]\d{{0,2}}(?:[. \u00a0\u202f]\d{{3}})+|\d+)(?:,\d*)?{_POWER}|{_SIGN},\d+"
POINT = rf"{_SIGN}(?:[1-9]\d{{0,2}}(?:,\d{{3}})+|\d+)(?:\.\d*)?{_POWER}|{_SIGN}\.\d+"
# A point that has to be the decimal sign, and one that may stand between thousands.
_DECIMALS = rf"{_SIGN}(?:\d*\.(?:\d{{1,2}}|\d{{4,}})|0?\.\d+)"
_GROUPS = rf"{_SIGN}[1-9]\d{{0,2}}\.\d{{3}}"
# The decimal sign is found from this many numbers of each column, if they are enough.
SOME = 1000


def is_text(column: pd.Series) -> bool:
    """Whether the column holds something other than numbers and true or false."""
    import pandas as pd

    return not pd.api.types.is_numeric_dtype(column)


def with_numbers(
    frame: pd.DataFrame, as_text: Callable[[], pd.DataFrame], lines: np.ndarray, file: Path
) -> tuple[pd.DataFrame, list[str]]:
    """``frame`` with columns of such numbers as numbers, and notes on what their signs are.

    Args:
        frame: in which numbers with a decimal point have been read.
        as_text: gives the same with every cell as it is written.
        lines: [rows] int64, of the file.

    Raises:
        InputError: numbers of both kinds, or such as 1,234 that may be either.
    """
    import pandas as pd

    shaped: dict[str, pd.Series] = {}
    for name in frame.columns:
        if is_text(frame[name]):
            cells = frame[name].dropna().astype(str).str.strip()
            if len(cells) and pd.to_numeric(cells, errors="coerce").notna().all():
                # pandas leaves as text what has more digits than an integer, or hard spaces.
                frame = frame.assign(**{name: pd.to_numeric(cells).astype(float)})
                continue
            comma = cells.str.contains(r",|\.\d{3}\.")
            if not len(cells) or not comma.any():
                continue
            if cells[:SOME].str.fullmatch(f"{COMMA}|{POINT}").mean() >= 0.5:
                shaped[name] = cells[comma]
    if not shaped:
        return frame, _points(frame, as_text, lines, file)
    signs = _signs(shaped, as_text, lines, file)
    if signs is None:
        return frame, []
    decimal, thousands = signs
    text = as_text()
    frame = frame.copy()
    set_apart = False
    for name in frame.columns:
        # Whole numbers as they were read have neither sign.
        if not is_text(frame[name]) and not pd.api.types.is_float_dtype(frame[name]):
            continue
        cells = text[name].dropna().astype(str).str.strip()
        if not len(cells):
            continue
        # Without the signs between thousands, whose places are looked at where there are some.
        grouped = cells.str.contains(thousands).astype(bool)
        plain = cells.str.replace(thousands, "", regex=True)
        values = pd.to_numeric(plain.str.replace(decimal, ".", regex=False), errors="coerce")
        number = values.notna()
        number[grouped] = cells[grouped].str.fullmatch(COMMA if decimal == "," else POINT)
        if decimal == "," and not is_text(frame[name]):
            _no_points(name, cells[~number], lines, file)
        elif not is_text(frame[name]) or not number.all():
            continue
        set_apart |= bool(grouped.any())
        frame[name] = values.astype(float).reindex(frame.index)
    notes = ["decimal commas"] if decimal == "," else []
    if set_apart:
        notes.append("thousands set apart")
    return frame, notes


def _signs(
    shaped: dict[str, pd.Series],
    as_text: Callable[[], pd.DataFrame],
    lines: np.ndarray,
    file: Path,
) -> tuple[str, str] | None:
    """The decimal sign and a pattern of those between thousands; None: no cell is a number."""
    places: dict[str, tuple[int, str, str]] = {}
    for most in (SOME, None):
        for name, every in shaped.items():
            cells = every[:most]
            comma, point = cells.str.fullmatch(COMMA), cells.str.fullmatch(POINT)
            for kind, found in ((",", comma & ~point), (".", point & ~comma), ("?", comma & point)):
                if found.any():
                    row = found.index[found.argmax()]
                    places.setdefault(kind, (int(lines[row]), name, cells[row]))
        if "," in places or "." in places:
            break
    if not places:
        return None
    if "," in places and "." in places:
        (one, a, x), (two, b, y) = places[","], places["."]
        raise InputError(
            f"{file}: {x!r} in line {one} ({a}) has a decimal comma, {y!r} in line {two} ({b}) a "
            "decimal point; write all numbers with a decimal point and nothing between thousands"
        )
    if "," in places:
        return ",", r"[. \u00a0\u202f]"
    # Cells with a point that no group of three digits follows say that it is the decimal sign.
    if "." not in places:
        raw = as_text()
        cells_of = (raw[c].dropna().astype(str).str.strip() for c in raw)
        if not any(cells.str.fullmatch(_DECIMALS).any() for cells in cells_of if len(cells)):
            line, name, cell = places["?"]
            value = cell.replace(",", "")
            raise InputError(
                f"{file}: {cell!r} in line {line} ({name}) may be {value} or "
                f"{cell.replace(',', '.')}; write numbers with a decimal point and nothing between "
                "thousands"
            )
    return ".", ","


def _points(
    frame: pd.DataFrame, as_text: Callable[[], pd.DataFrame], lines: np.ndarray, file: Path
) -> list[str]:
    """A note where every point of the file may stand between thousands.

    Raises:
        InputError: it seems to: a column has whole numbers below 1,000 too.
    """
    import pandas as pd

    tried = []
    for name in frame.columns:
        if pd.api.types.is_float_dtype(frame[name]):
            values = frame[name].dropna().abs().to_numpy()
            broken = values[values != np.floor(values)]
            thousands = np.round(broken * 1000)
            if (broken < 1).any() or not np.allclose(broken * 1000, thousands, rtol=1e-12, atol=0):
                return []  # A number has more digits after its point, or a zero before it.
            if len(broken) and (values < 1000).all():
                tried.append(name)
    if not tried:
        return []
    text = as_text()
    cells_of = {c: text[c].dropna().astype(str).str.strip() for c in text}
    if any(cells.str.fullmatch(_DECIMALS).any() for cells in cells_of.values() if len(cells)):
        return []
    for name in tried:
        cells = cells_of[name]
        has = cells.str.contains(".", regex=False)
        if has.all() or not cells[has].str.fullmatch(_GROUPS).all():
            continue
        row = cells.index[has.argmax()]
        raise InputError(
            f"{file}: {cells[row]!r} in line {lines[row]} ({name}) may be "
            f"{cells[row].replace('.', '')} or {cells[row]}; write numbers with nothing between "
            "thousands, and all of a column with as many decimals"
        )
    return [f"points read as decimal signs, such as in {cells_of[tried[0]].iloc[0]}"]


def _no_points(name: str, wrong: pd.Series, lines: np.ndarray, file: Path) -> None:
    if len(wrong):
        where = at_lines(lines[wrong.index.to_numpy()])
        raise InputError(
            f"{file}: column {name} has decimal points ({wrong.iloc[0]!r}, {where}), where other "
            "columns have decimal commas; write all numbers with a decimal point"
        )


def parses(cells: pd.Series) -> pd.Series:
    """For each filled cell of a text column whether it is a number, bool."""
    import pandas as pd

    plain = cells.astype(str).str.strip()
    number = pd.to_numeric(plain, errors="coerce").notna()
    rest = plain[~number]
    number[rest.index] = rest.str.fullmatch(f"{COMMA}|{POINT}").astype(bool)
    return number

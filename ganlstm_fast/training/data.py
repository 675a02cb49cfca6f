"""Tables of numbers as windows for training: reading, scaling, splitting by time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ganlstm_fast.training.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

BUNDLED = Path(__file__).with_name("seattle_weather.csv")
BUNDLED_UNITS = {"precipitation": "mm", "temp_max": "°C", "temp_min": "°C", "wind": "m/s"}


@dataclass(frozen=True)
class Series:
    """A table of numbers, one row a time step.

    Attributes:
        values: [rows, channels] float64, in the units of the file.
        columns: the channels' names.
        name: the file's name without its ending.
        units: the units of the columns for which they are known.
    """

    values: Tensor
    columns: tuple[str, ...]
    name: str
    units: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """A hash of the names and values: two tables with the same one train the same."""
        digest = hashlib.sha256("\n".join(self.columns).encode())
        digest.update(self.values.numpy().tobytes())
        return digest.hexdigest()


def load_series(path: str | Path | None = None, columns: Sequence[str] | None = None) -> Series:
    """Read a CSV file whose first line names its columns.

    Args:
        path: the file; None is the bundled daily weather of Seattle, 2012 to 2015
            (``seattle_weather.SOURCE.md``: precipitation in mm, temperatures in degrees Celsius,
            wind in m/s).
        columns: the columns to keep, in this order; None keeps all columns of numbers.

    Raises:
        InputError: no such file, no table in it, no column of numbers, an unknown column, text
            in a chosen column, or a value that is missing or infinite (the message says in which
            lines).
    """
    file = BUNDLED if path is None else Path(path)
    table = read_table(file)
    chosen = choose(table, columns, file)
    values = finite_values(table, chosen, file)
    units = BUNDLED_UNITS if path is None else {}
    return Series(
        torch.from_numpy(values),
        tuple(chosen),
        file.stem,
        {c: units[c] for c in chosen if c in units},
    )


def load_dates(path: str | Path | None = None, column: str = "date") -> pd.DatetimeIndex:
    """The dates of the rows that :func:`load_series` reads from the same file.

    Args:
        path: the CSV file; None is the bundled weather.
        column: the column of dates, ISO 8601.

    Raises:
        InputError: no such file, no table in it, no such column, or a value in it that is missing
            or no date (the message says in which lines).
    """
    import pandas as pd

    file = BUNDLED if path is None else Path(path)
    table = read_table(file)
    if column not in table.columns:
        raise InputError(f"{file} has no column {column}; it has {names(table.columns)}")
    text = table[column].astype(str)
    dates = pd.to_datetime(text, errors="coerce", format="ISO8601")
    wrong = np.flatnonzero(dates.isna().to_numpy())
    if len(wrong):
        raise InputError(
            f"{file}: column {column} holds something other than dates such as 2012-01-31: "
            f"{text.iloc[wrong[0]]!r} ({lines(wrong)})"
        )
    return pd.DatetimeIndex(dates)


def read_table(file: Path) -> pd.DataFrame:
    """The table in ``file`` without the empty lines at its end, which are no gap."""
    table = _parse(file)
    table.columns = [str(c) for c in table.columns]
    filled = np.flatnonzero(table.notna().any(axis=1).to_numpy())
    table = table.iloc[: filled[-1] + 1 if len(filled) else 0]
    if table.empty:
        raise InputError(f"{file} has no rows below its line of column names")
    return table


def _parse(file: Path) -> pd.DataFrame:
    import pandas as pd

    if not file.exists():
        raise InputError(f"{file} does not exist; give a CSV file with --data")
    if file.is_dir():
        raise InputError(f"{file} is a folder; give a CSV file with --data")
    try:
        # Blank lines are kept, so that a row's number gives its line in the file.
        return pd.read_csv(file, skip_blank_lines=False, skipinitialspace=True)
    except pd.errors.EmptyDataError:
        raise InputError(
            f"{file} is empty; expected column names in the first line and numbers below"
        ) from None
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file} is not a CSV file with commas: {reason}") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None


def finite_values(table: pd.DataFrame, chosen: list[str], file: Path) -> np.ndarray:
    """[rows, channels] float64; raises InputError, with the lines, where one is not finite."""
    values = table[chosen].to_numpy(dtype=np.float64)
    finite = np.isfinite(values)
    bad_rows = np.flatnonzero(~finite.all(axis=1))
    if len(bad_rows):
        bad_columns = [c for c, ok in zip(chosen, finite.all(axis=0), strict=True) if not ok]
        raise InputError(
            f"{file}: missing or infinite values in {names(bad_columns)}, "
            f"{lines(bad_rows)}; fill or cut them, or choose other columns with --columns"
        )
    return values.copy()


def choose(table: pd.DataFrame, columns: Sequence[str] | None, file: Path) -> list[str]:
    """``columns``, or all of numbers; raises InputError for those that are not."""
    import pandas as pd

    numeric = [
        c
        for c in table.columns
        if pd.api.types.is_numeric_dtype(table[c]) and not pd.api.types.is_bool_dtype(table[c])
    ]
    if all(_is_number(c) for c in table.columns):
        raise InputError(f"{file}: the first line holds numbers; put the columns' names there")
    if columns is None:
        # A column without a single value is read as numbers; it would make every row a gap.
        numeric = [c for c in numeric if table[c].notna().any()]
        if not numeric:
            raise InputError(
                f"{file} has no column of numbers (columns: {names(table.columns)}); "
                "expected values separated by commas, with a decimal point"
            )
        return numeric
    if not columns:
        raise InputError("columns: expected at least one name")
    if len(set(columns)) != len(columns):
        raise InputError(f"columns: a name stands twice in {', '.join(columns)}")
    unknown = [c for c in columns if c not in table.columns]
    if unknown:
        raise InputError(f"{file} has no column {names(unknown)}; it has {names(table.columns)}")
    for column in columns:
        if column not in numeric:
            number = pd.to_numeric(table[column], errors="coerce")
            wrong = np.flatnonzero((number.isna() & table[column].notna()).to_numpy())
            example = f", such as {table[column].iloc[wrong[0]]!r}" if len(wrong) else ""
            raise InputError(
                f"{file}: column {column} holds something other than numbers{example}"
                + (f" ({lines(wrong)})" if len(wrong) else "")
            )
    return list(columns)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def names(of: Sequence[str], most: int = 8) -> str:
    """The first ``most`` of some names, and how many more there are."""
    more = f" and {len(of) - most} more" if len(of) > most else ""
    return ", ".join(list(of)[:most]) + more


def lines(rows: np.ndarray, most: int = 5) -> str:
    """``rows`` (0 is the first below the names) as lines of the file, runs of them as one."""
    at = rows + 2
    runs = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1)
    words = [str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs]
    return f"line{'s' if len(at) > 1 else ''} {names(words, most)}"


@dataclass(frozen=True)
class MinMaxScaler:
    """Maps each channel's range in the data to [0, 1], and back.

    A channel that is constant in the data it was fitted to maps to 0, and comes back as that
    constant whatever is scaled back: nothing else has been seen of it. Other values that it has
    later are scaled by 1, so that they can be told from the constant.

    Attributes:
        minimum, maximum: [channels] float64.
    """

    minimum: Tensor
    maximum: Tensor

    @classmethod
    def fit(cls, values: Tensor) -> MinMaxScaler:
        """The scaler for ``values`` [..., channels]."""
        flat = values.reshape(-1, values.shape[-1]).double()
        return cls(flat.amin(0), flat.amax(0))

    @property
    def varies(self) -> Tensor:
        """[channels] bool: which channels are not constant in the data it was fitted to."""
        return self.maximum > self.minimum

    @property
    def _span(self) -> Tensor:
        span = self.maximum - self.minimum
        return torch.where(self.varies, span, torch.ones_like(span))

    def scale(self, values: Tensor) -> Tensor:
        """``values`` [..., channels] in data units -> float32, the fitted data in [0, 1]."""
        return ((values.double() - self.minimum) / self._span).float()

    def unscale(self, scaled: Tensor) -> Tensor:
        """The inverse of :meth:`scale`, in float64; of a constant channel the constant."""
        return torch.where(self.varies, scaled.double() * self._span + self.minimum, self.minimum)

    def settle(self, scaled: Tensor) -> Tensor:
        """``scaled`` [..., channels] with 0 in the constant channels, as :meth:`scale` has it."""
        return torch.where(self.varies, scaled, torch.zeros((), dtype=scaled.dtype))


def windows(values: Tensor, seq_len: int) -> Tensor:
    """All stretches of ``seq_len`` rows: [rows, channels] -> [n, seq_len, channels].

    There are n = rows - seq_len + 1. A view: nothing is copied.

    Raises:
        InputError: fewer rows than ``seq_len``.
    """
    if values.shape[0] < seq_len:
        raise InputError(
            f"the data has {values.shape[0]} rows, fewer than one window of {seq_len}; "
            "give a smaller --seq-len or more data"
        )
    return values.unfold(0, seq_len, 1).transpose(1, 2)


def time_folds(rows: int, seq_len: int, folds: int = 5) -> list[tuple[Tensor, Tensor]]:
    """Split windows into train and held-out ones that share no row, ``folds`` times.

    The rows are cut into blocks of about four windows, dealt to the folds in turn, so that each
    fold holds pieces from the whole length of the data (all seasons). A window is held out in a
    fold if all of its rows belong to that fold, and is trained on if none of them does; one that
    crosses an edge is in neither.

    Returns:
        For each fold the indices [n] of the windows trained on, and those held out.

    Raises:
        InputError: too few rows for every fold to hold a window out.
    """
    block = min(4 * seq_len, rows // folds)
    if block < seq_len + 1:
        raise InputError(
            f"{rows} rows are too few to hold out windows of {seq_len} that share no row with "
            f"the others; at least {folds * (seq_len + 1)} are needed"
        )
    fold_of_row = torch.div(torch.arange(rows), block, rounding_mode="floor") % folds
    inside = windows(fold_of_row[:, None], seq_len)[..., 0]
    split = []
    for fold in range(folds):
        hits = (inside == fold).sum(1)
        split.append(((hits == 0).nonzero()[:, 0], (hits == seq_len).nonzero()[:, 0]))
    return split


def series_folds(
    count: int, folds: int = 5, generator: torch.Generator | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Split ``count`` independent series at random, so that each is held out in one fold.

    Only for series that share no row: windows of one series need :func:`time_folds`.

    Returns:
        For each fold the indices [n] of the series trained on, and those held out.

    Raises:
        InputError: fewer than two series for each fold.
    """
    if count < 2 * folds:
        raise InputError(f"{count} series are too few to hold some out; at least {2 * folds}")
    fold_of_series = torch.randperm(count, generator=generator) % folds
    return [
        ((fold_of_series != f).nonzero()[:, 0], (fold_of_series == f).nonzero()[:, 0])
        for f in range(folds)
    ]


def split_by_time(
    rows: int, seq_len: int, held_out: int, context: int = 0
) -> tuple[Tensor, Tensor]:
    """Split windows into those before and those in the last ``held_out`` rows; none share a row.

    Args:
        rows: rows of the series.
        seq_len: rows in a window.
        held_out: rows at the end for which the later windows are.
        context: rows at the start of a window that may come from before the last ``held_out``
            rows. They are then left out of what is trained on.

    Returns:
        The first row [n] int64 of each window to train on, and of each window held out. Without
        its context a held-out window starts at any of the last ``held_out`` rows from which
        there is a whole one.

    Raises:
        InputError: no window on one of the two sides.
    """
    cut = rows - held_out - context
    if held_out < 1 or cut < seq_len or held_out + context < seq_len:
        raise InputError(
            f"{rows} steps cannot be split into windows of {seq_len} before and in the last "
            f"{held_out}, with {context} of context; give more data or shorter windows"
        )
    return torch.arange(cut - seq_len + 1), torch.arange(cut, rows - seq_len + 1)

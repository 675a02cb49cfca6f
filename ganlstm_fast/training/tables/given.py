"""Data that is given as a table in memory, in the place of a path to a file.

The command line checks settings without loading pandas, NumPy or torch. So :func:`is_table` looks
only at the modules that are loaded: without its module there cannot be a table.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ganlstm_fast.training.errors import InputError

if TYPE_CHECKING:
    import os

    import numpy as np
    import pandas as pd
    import torch

    TableLike: TypeAlias = str | os.PathLike[str] | pd.DataFrame | np.ndarray | torch.Tensor
else:
    # Settings.types() reads annotations at run time: on the command line such a setting is text.
    TableLike = str

_TYPES = {"pandas": ("DataFrame", "Series"), "numpy": ("ndarray",), "torch": ("Tensor",)}
# The value of a setting that names a column: there is none.
NONE = "none"
WORDS = "a path, a pandas DataFrame, a NumPy array or a torch Tensor"
# The column that numbers the series of an array of several, unless a setting names it.
SERIES = "series"


def is_table(data: object) -> bool:
    """Whether ``data`` is a table in memory."""
    return any(
        isinstance(data, getattr(sys.modules.get(module), name, ()))
        for module, names in _TYPES.items()
        for name in names
    )


def shown(data: Any) -> str:
    """How messages and checkpoints name data: a path as it is, a table as <DataFrame 1461x4>."""
    if not is_table(data):
        return str(data)
    return f"<{type(data).__name__} {'x'.join(map(str, data.shape))}>"


def stands_in(data: object) -> bool:
    """Whether ``data`` is the note that a checkpoint keeps instead of a table."""
    return isinstance(data, str) and re.fullmatch(r"<\w+ [\dx]*>", data) is not None


def name_of(data: Any) -> str:
    """What a run's folder is called after its data: the file's name, or the kind of table."""
    return type(data).__name__.lower() if is_table(data) else Path(data).stem


def frame_of(
    data: pd.DataFrame | pd.Series | np.ndarray | torch.Tensor,
    columns: Sequence[str] | None = None,
    series_column: str | None = None,
) -> pd.DataFrame:
    """A table in memory with names and rows as those of a file, cells as they are.

    Args:
        data: a DataFrame; the levels of its index that have a name or are dates become columns.
            Or an array or tensor [rows], [rows, channels] or [series, steps, channels].
        columns: name an array's channels, unless they choose some of ``x1``, ``x2``, ....
        series_column: names the column with the number of the series, from 1, of an array of
            several; None: ``series``; ``none``: they are one series, one after the other.

    Raises:
        InputError: an array with other dimensions or another number of channels, no rows, or a
            name that stands twice.
    """
    import pandas as pd

    if isinstance(data, pd.Series):
        data = data.to_frame("x1" if data.name is None else data.name)
    if isinstance(data, pd.DataFrame):
        frame = _with_index(data)
    else:
        frame = _of_array(data, columns, series_column or SERIES)
    if not len(frame):
        raise InputError(f"{shown(data)} has no rows")
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise InputError(
            f"{shown(data)}: the name {twice[0]} stands twice; give each column a name of its own"
        )
    return frame


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    columns = [
        "_".join(str(part) for part in name if str(part)) if isinstance(name, tuple) else str(name)
        for name in frame.columns
    ]
    told = {}
    for level in range(frame.index.nlevels):
        values = frame.index.get_level_values(level)
        dates = isinstance(values, pd.DatetimeIndex | pd.PeriodIndex)
        name = "date" if values.name is None and dates else values.name
        if name is not None and str(name) not in columns:
            told[str(name)] = values
    plain = frame.reset_index(drop=True).set_axis(columns, axis=1)
    return pd.concat((pd.DataFrame(told), plain), axis=1) if told else plain


def _of_array(
    data: np.ndarray | torch.Tensor, columns: Sequence[str] | None, series_column: str
) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    if not isinstance(data, np.ndarray):
        data = data.detach().cpu()
        data = (data.double() if data.is_floating_point() else data).numpy()
    if data.dtype.names:
        return pd.DataFrame(data)
    if data.ndim not in (1, 2, 3):
        raise InputError(
            "`data`: expected an array [rows], [rows, channels] or [series, steps, channels], got "
            f"one of shape {tuple(data.shape)}"
        )
    channels = data.shape[-1] if data.ndim > 1 else 1
    names = [f"x{k + 1}" for k in range(channels)]
    if columns and not set(columns) <= set(names):
        if len(columns) != channels:
            raise InputError(
                f"{shown(data)}: expected {len(columns)} channels ({', '.join(columns)}), got "
                f"{channels}"
            )
        names = list(columns)
    frame = pd.DataFrame(data.reshape(-1, channels), columns=names)
    if data.ndim == 3 and series_column != NONE:
        number = np.arange(1, len(data) + 1).repeat(data.shape[1])
        frame.insert(0, series_column, number, allow_duplicates=True)
    return frame


def plain_texts(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with every cell as text, except missing ones."""
    return frame.astype(object).map(str, na_action="ignore")


def plain_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with columns of numbers as NumPy has them, however pandas holds them.

    Text that is numbers throughout becomes numbers, as in a file.

    Raises:
        InputError: complex numbers.
    """
    import pandas as pd

    return pd.DataFrame({name: _plain(frame[name]) for name in frame.columns})


def _plain(column: pd.Series) -> pd.Series:
    import pandas as pd

    types = pd.api.types
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    column = column.infer_objects()
    if types.is_object_dtype(column) or types.is_string_dtype(column):
        numbers = pd.to_numeric(column, errors="coerce")
        if column.notna().any() and numbers.notna().equals(column.notna()):
            column = numbers
    if types.is_complex_dtype(column):
        raise InputError(f"column {column.name}: expected real numbers, got complex ones")
    if types.is_any_real_numeric_dtype(column) and types.is_extension_array_dtype(column.dtype):
        whole = types.is_integer_dtype(column) and column.notna().all()
        kind, missing = ("int64", 0) if whole else ("float64", float("nan"))
        return pd.Series(column.to_numpy(kind, na_value=missing), name=column.name)
    return column

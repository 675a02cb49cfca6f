"""Sequences of a table: a row a step, with a column that says which sequence it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ganlstm_fast.training.data import choose, finite_values, lines, names, read_table
from ganlstm_fast.training.errors import InputError


@dataclass(frozen=True)
class Sequences:
    """Sequences of different lengths.

    Attributes:
        values: [n, longest, channels] float64, in the units of the file, zero after the end.
        lengths: [n] int64.
        names: what the file calls each, in the order of their first rows.
        labels: the class of each; None where they were not asked for.
        columns: the channels' names.
    """

    values: Tensor
    lengths: Tensor
    names: tuple[str, ...]
    labels: tuple[str, ...] | None
    columns: tuple[str, ...]


def load_sequences(
    path: str | Path,
    series_column: str = "series",
    label_column: str | None = "label",
    columns: Sequence[str] | None = None,
) -> Sequences:
    """Read a CSV file whose first line names its columns, with a row for each step.

    Args:
        series_column: says which sequence a row belongs to; the rows of one are in their order.
        label_column: says the sequence's class, the same in all of its rows; None: there is none.
        columns: the channels, in this order; None: all other columns of numbers.

    Raises:
        InputError: no such file, no table in it, a column that is not there or holds no numbers, a
            missing value, or a sequence with several labels.
    """
    import pandas as pd

    file = Path(path)
    table = read_table(file)
    told = [series_column, *([] if label_column is None else [label_column])]
    for column in told:
        if column not in table.columns:
            raise InputError(f"{file} has no column {column}; it has {names(table.columns)}")
        gaps = np.flatnonzero(table[column].isna().to_numpy())
        if len(gaps):
            raise InputError(f"{file}: column {column} is empty in {lines(gaps)}")
    chosen = choose(table if columns is not None else table.drop(columns=told), columns, file)
    values = torch.from_numpy(finite_values(table, chosen, file))
    number, found = pd.factorize(table[series_column])
    number = torch.from_numpy(number.astype(np.int64))
    lengths = torch.bincount(number, minlength=len(found))
    padded = values.new_zeros(len(found), int(lengths.max()), len(chosen))
    order = number.argsort(stable=True)
    step = torch.arange(len(order)) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    padded[number[order], step] = values[order]
    labels = None
    if label_column is not None:
        of_series = table.groupby(series_column, sort=False)[label_column]
        mixed = of_series.nunique()
        if (mixed > 1).any():
            several = [str(name) for name in mixed.index[mixed > 1]]
            raise InputError(f"{file}: {names(several)} has several values of {label_column}")
        labels = tuple(map(str, of_series.first()))
    return Sequences(padded, lengths, tuple(map(str, found)), labels, tuple(chosen))

"""Sequences of a table: a row a step, with a column that says which sequence it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ganlstm_fast.training.data import series_of
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.tables.given import TableLike
from ganlstm_fast.training.tables.read import read_table
from ganlstm_fast.training.tables.records import names


@dataclass(frozen=True)
class Sequences:
    """Sequences of different lengths.

    Attributes:
        values: [n, longest, channels] float64, in the units of the file, zero after the end.
        lengths: [n] int64.
        names: what the file calls each, in the order of their first rows.
        labels: the class of each; None where they were not asked for.
        columns: the channels' names.
        notes: what was detected in the file, in a few words each.
    """

    values: Tensor
    lengths: Tensor
    names: tuple[str, ...]
    labels: tuple[str, ...] | None
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()


def load_sequences(
    data: TableLike,
    series_column: str = "series",
    label_column: str | None = "label",
    columns: Sequence[str] | None = None,
    date_column: str | None = None,
    fill: str | None = None,
) -> Sequences:
    """Read a text file whose first line names its columns, or a table, with a row for each step.

    Args:
        data: the file, a DataFrame, or an array [series, steps, channels].
        series_column: says which sequence a row belongs to.
        label_column: says the sequence's class, the same in all of its rows; None: there is none.
        columns: the channels, in this order; None: all other columns of numbers, except those that
            number the rows.
        date_column: by which the rows of a sequence are sorted, as
            :func:`~ganlstm_fast.training.data.load_series` has it.
        fill: what is done about missing values, as there; ``drop`` makes a sequence shorter.

    Raises:
        InputError: as :func:`~ganlstm_fast.training.data.load_series`, a label that is missing, or
            a sequence with several labels.
    """
    table = read_table(data, columns=columns, series_column=series_column)
    file, frame = table.file, table.frame
    beside = [] if label_column is None else [label_column]
    table.require(*beside)
    for column in beside:
        empty = np.flatnonzero(frame[column].isna().to_numpy())
        if len(empty):
            raise InputError(f"{file}: column {column} is empty in {table.at(empty)}")
    series = series_of(table, columns, date_column, series_column, "cross", fill, beside)
    lengths = series.stretches.lengths
    padded = series.values.new_zeros(len(lengths), int(lengths.max()), len(series.columns))
    number = series.stretches.series[series.stretches.of_row]
    step = torch.arange(len(number)) - (lengths.cumsum(0) - lengths)[number]
    padded[number, step] = series.values
    labels = None
    if label_column is not None:
        of_series = frame.groupby(series_column, sort=False)[label_column]
        mixed = of_series.nunique()
        if (mixed > 1).any():
            several = [str(name) for name in mixed.index[mixed > 1]]
            raise InputError(f"{file}: {names(several)} has several values of {label_column}")
        labels = tuple(map(str, of_series.first()))
    return Sequences(padded, lengths, series.series, labels, series.columns, series.notes)

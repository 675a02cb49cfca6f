"""What a run leaves when it ends."""

from __future__ import annotations

import copy
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ganlstm_fast.training.checkpoint import atomic_write
from ganlstm_fast.training.meaning import doubts, few_steps, meanings
from ganlstm_fast.training.plots import plot_losses
from ganlstm_fast.training.progress import Bar
from ganlstm_fast.training.state import Run
from ganlstm_fast.training.undefined import for_json

if TYPE_CHECKING:
    import pandas as pd

METRICS = "metrics.json"
# Significant digits of a number in a table.
DIGITS = 6


def write_series(
    path: Path | TextIO,
    series: Tensor,
    columns: Sequence[str],
    times: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write ``series`` as CSV: columns ``sample`` and ``step``, from 1, and one for each channel.

    Args:
        path: a file, which is written whole or not at all, or an open one.
        series: [n, steps, channels].
        times: [steps] datetime64[ns] by the name of their column, the same for each series.

    Raises:
        InputError: the file cannot be written.
    """
    write_table(path, series_table(series, columns, times))


def series_table(
    series: Tensor, columns: Sequence[str], times: Mapping[str, np.ndarray] | None = None
) -> pd.DataFrame:
    """The table that :func:`write_series` writes."""
    import pandas as pd

    count, steps, channels = series.shape
    table = pd.DataFrame(series.reshape(-1, channels).numpy(), columns=list(columns))
    table.insert(0, "sample", torch.arange(1, count + 1).repeat_interleave(steps).numpy())
    table.insert(1, "step", torch.arange(1, steps + 1).repeat(count).numpy())
    for name, at in (times or {}).items():
        table.insert(2, name, np.tile(at, count), allow_duplicates=True)
    return table


def write_table(path: Path | TextIO, table: pd.DataFrame) -> None:
    """Write ``table`` as CSV, to a file (whole or not at all) or to an open one.

    Numbers have six digits, and more where a column needs them: a constant is written as it is, and
    values that differ by little of their size, such as times in seconds, by six digits of their
    range.
    """
    import pandas as pd

    table = pd.concat([_written(table.iloc[:, k]) for k in range(table.shape[1])], axis=1)
    if isinstance(path, io.TextIOBase):
        table.to_csv(path, index=False, float_format=f"%.{DIGITS}g")
        return
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, float_format=f"%.{DIGITS}g")


def _written(column: pd.Series) -> pd.Series:
    """The column as text where six digits are too few for its numbers; else as it is."""
    values = column.to_numpy()
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values[:0]
    if not len(finite):
        return column
    # A single number does not count as a constant: it is written as if the column's range were 1.
    span, largest = np.ptp(finite) if len(finite) > 1 else 1.0, np.abs(finite).max()
    if span > 0:
        more = math.floor(math.log10(max(largest / span, 1)))
        text = f".{min(DIGITS + more, 17)}g"
        return column if more < 1 else column.map(lambda v: format(v, text), na_action="ignore")
    constant = finite[0]
    if float(f"{constant:.{DIGITS}g}") == constant:
        return column
    return column.map(lambda v: str(constant if v == constant else v), na_action="ignore")


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as JSON, whole or not at all.

    Raises:
        ValueError: a number that is not finite, which JSON does not have.
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def trained(run: Run) -> nn.Module:
    """The network that samples are made with: the best one of early stopping, or the last."""
    part, best = run.state.recipe.best_part(), run.state.best
    if not best:
        return part
    part = copy.deepcopy(part)
    part.load_state_dict(best["weights"])
    return part


def read_finished(run: Run) -> dict[str, Any] | None:
    """What :func:`finish` has written for the run's present state; None if it has not."""
    state = run.state
    try:
        found = json.loads((run.folder / METRICS).read_text())
        same = found["steps"] == state.step and found["metrics"] == state.config.metrics
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if same else None


def finish(run: Run, progress: type[tqdm] = Bar) -> dict[str, Any]:
    """Write pictures, tables, losses.png and metrics.json into the run's folder.

    Samples are drawn with a generator of their own, so that finishing twice gives the same files
    and training can go on after it.

    Returns:
        What metrics.json holds: a score without a value is None, and ``undefined`` says why.
    """
    state = run.state
    metrics: dict[str, Any] = {"steps": state.step, "metrics": state.config.metrics}
    if state.best:
        metrics["best"] = {name: state.best[name] for name in ("step", "value")}
    if state.recipe.found:
        metrics["data"] = state.recipe.found
    if state.step:
        plot_losses(run.folder / "losses.png", state.history[: state.step], state.recipe.columns)
    metrics = for_json(metrics | state.recipe.finish(run, progress))
    metrics["meaning"] = meanings(metrics)
    metrics["doubts"] = doubts(metrics) + few_steps(state.config)
    write_json(run.folder / METRICS, metrics)
    return metrics

"""The function that trains."""

from __future__ import annotations

import dataclasses
import signal
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ganlstm_fast.training.config import Settings
from ganlstm_fast.training.configs import TrainConfig
from ganlstm_fast.training.devices import named
from ganlstm_fast.training.errors import InputError, Line
from ganlstm_fast.training.outputs import finish, read_finished
from ganlstm_fast.training.progress import Bar
from ganlstm_fast.training.state import on_first, resume_run, start_run
from ganlstm_fast.training.tables.given import TableLike
from ganlstm_fast.training.trainer import cpu_threads, fit, is_trained, own_random, stop_on_signals


@dataclass(frozen=True)
class TrainResult:
    """How a call of :func:`train` ended.

    Attributes:
        folder: of the run.
        step: steps done.
        signal: the number of the signal that stopped it, or None. Then ``metrics`` is None, and the
            checkpoint can be resumed.
        metrics: what metrics.json holds; None in all processes but the first.
        first: whether this is the first process of the run, or the only one.

    Its repr has two lines: the steps that were done, and the scores of generated samples.
    """

    folder: Path
    step: int
    signal: int | None
    metrics: dict[str, Any] | None
    first: bool = True

    def __repr__(self) -> str:
        done = f"{self.folder}: {self.step} steps"
        if self.signal is not None:
            name = signal.Signals(self.signal).name
            done += f", stopped by {name}; go on with train(resume={str(self.folder)!r})"
        return f"{done}\n{_scores(self.metrics or {})}"


def _scores(metrics: dict[str, Any]) -> str:
    """The numbers of what the model makes, without those that stand beside them."""
    found = []
    for name, value in metrics.items():
        for key in ("generated", "score"):
            value = value.get(key) if isinstance(value, dict) else value
        if isinstance(value, float):
            found.append(f"{name} {value:.3g}")
    return ", ".join(found) or "no scores"


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=2)


def train(
    config: Settings | None = None,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    changes: dict[str, Any] | None = None,
    data: TableLike | None = None,
    progress: Callable[..., tqdm] = Bar,
    announce: Callable[[str], object] = lambda line: None,
    warn: Callable[[str], object] = _warn,
) -> TrainResult:
    """Train a model and write pictures, samples, scores and a checkpoint.

    SIGINT and SIGTERM end it after the step under way, with a checkpoint from which ``resume`` goes
    on exactly as if it had not been stopped (on the CPU to the last bit). A run that is finished is
    left as it is: to go on with it takes more steps.

    Example:
        >>> import pandas as pd
        >>> from ganlstm_fast.training import TrainConfig, train
        >>> days = pd.date_range("2024-01-01", periods=60)
        >>> table = pd.DataFrame({"temperature": [3, 5, 8, 6] * 15, "wind": [3, 1, 2] * 20}, days)
        >>> train(TrainConfig(data=table, steps=2, metrics="none"), out="runs/mine")
        runs/mine: 2 steps
        no scores
        >>> train(resume="runs/mine", data=table, changes={"steps": 4}).step
        4

    Args:
        config: the settings of a new run, of a class in :mod:`ganlstm_fast.training.configs`,
            which says which model it is. None is an LSTM-GAN of the bundled weather.
        out: folder of a new run; None is the first free one under ``runs/``.
        resume: folder of a run to go on with, instead of ``config`` and ``out``.
        changes: settings to change when resuming, such as ``{"steps": 20000}``.
        data: what to train on, in the place of the settings' ``data``: the path of a file or
            folder, or, for models that read a table, a pandas DataFrame (an index of dates is its
            column of dates), or a NumPy array or a torch Tensor [rows, channels] or [series, steps,
            channels]. Checkpoints hold no table: to resume a run on one, give it again. With
            several processes, each runs the script that calls this, and makes the table.
        progress: makes the progress bars; called as ``tqdm``.
        announce: called with a line for the user when something begins.
        warn: called with a line when training goes wrong, once for each way of it, or when
            ``device="auto"`` cannot use the GPU that is there.

    Returns:
        The run's folder, its last step and its scores.

    Raises:
        InputError: data, settings or a folder that cannot be used; nothing is left behind.
        TrainingError: a loss became infinite or not a number.
    """
    if resume is not None and (config is not None or out is not None):
        raise InputError("resume goes with neither config nor out: the run has its own")
    if resume is None and changes:
        raise InputError("changes go with a run that is resumed; a new one has them in its config")
    given = {} if data is None else {"data": data}
    if resume is not None:
        run = resume_run(Path(resume), {**(changes or {}), **given}, warn)
    else:
        config = dataclasses.replace(config or TrainConfig(), **given)
        run = start_run(config, None if out is None else Path(out), warn)
    state, first = run.state, run.state.fabric.is_global_zero
    if resume is not None and is_trained(run):
        finished = on_first(state.fabric, lambda: read_finished(run))
        if finished is not None:
            if first:
                announce(f"{run.folder} is finished: all of its {state.step} steps are done")
            return TrainResult(run.folder, state.step, None, finished if first else None, first)
    where = named(state.device, state.share.count)
    if resume is not None:
        line = f"going on with {run.folder} at step {state.step}, {where}"
    else:
        what = "; ".join((state.recipe.describe(), *state.recipe.found, where))
        line = f"training on {what}; writing to {run.folder}"
    if first:
        for note in run.state.recipe.notes:
            warn(Line(note))
        announce(line)
    else:
        progress, warn = _no_bar, lambda line: None
    with stop_on_signals() as stop, cpu_threads(state.config.threads), own_random(state.device):
        fit(run, stop, progress, warn)
        if stop.signal is None:
            stop.deferred = False
            try:
                metrics = finish(run, progress) if first else None
                state.fabric.barrier()
            except KeyboardInterrupt:
                if stop.signal is None:
                    raise
            else:
                return TrainResult(run.folder, state.step, None, metrics, first)
    return TrainResult(run.folder, state.step, stop.signal, None, first)


def _no_bar(*arguments: Any, **options: Any) -> tqdm:
    return Bar(*arguments, **{**options, "disable": True})

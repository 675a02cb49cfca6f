"""Training of GANs on series, from Python::

from ganlstm_fast.training import TrainConfig, generate, train

result = train(TrainConfig(data="series.csv", steps=2000), out="runs/mine")
print(result.metrics["discriminative_score"])
series, columns = generate(result.folder, count=1000)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Looked for and not imported: scikit-learn takes a second, and is needed only for some metrics.
if _missing := [
    name
    for name in ("matplotlib", "pandas", "scipy", "sklearn", "threadpoolctl", "tqdm")
    if find_spec(name) is None
]:
    raise ModuleNotFoundError(
        f"training needs {', '.join(_missing)}, which is not installed: "
        'pip install "ganlstm_fast[train]"',
        name=_missing[0],
    )

from tqdm import tqdm

from ganlstm_fast.training.config import TrainConfig
from ganlstm_fast.training.errors import InputError, TrainingError
from ganlstm_fast.training.outputs import finish, generate, write_series
from ganlstm_fast.training.trainer import cpu_threads, fit, resume_run, start_run, stop_on_signals

__all__ = [
    "InputError",
    "TrainConfig",
    "TrainResult",
    "TrainingError",
    "generate",
    "train",
    "write_series",
]


@dataclass(frozen=True)
class TrainResult:
    """How a call of :func:`train` ended.

    Attributes:
        folder: of the run.
        step: steps done.
        signal: the number of the signal that stopped it, or None. Then ``metrics`` is None, and the
            checkpoint can be resumed.
        metrics: what metrics.json holds.
    """

    folder: Path
    step: int
    signal: int | None
    metrics: dict[str, Any] | None


def train(
    config: TrainConfig | None = None,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    changes: dict[str, Any] | None = None,
    progress: Callable[..., tqdm] = tqdm,
    announce: Callable[[str], object] = lambda line: None,
) -> TrainResult:
    """Train an LSTM-GAN and write pictures, samples, scores and a checkpoint.

    SIGINT and SIGTERM end it after the step under way, with a checkpoint from which ``resume`` goes
    on exactly as if it had not been stopped (on the CPU to the last bit).

    Args:
        config: the settings of a new run.
        out: folder of a new run; None is the first free one under ``runs/``.
        resume: folder of a run to go on with, instead of ``config`` and ``out``.
        changes: settings to change when resuming, such as ``{"steps": 20000}``.
        progress: makes the progress bars; called as ``tqdm``.
        announce: called with a line for the user when something begins.

    Raises:
        InputError: data, settings or a folder that cannot be used; nothing is left behind.
        TrainingError: a loss became infinite or not a number.
    """
    if resume is not None and (config is not None or out is not None):
        raise InputError("resume goes with neither config nor out: the run has its own")
    if resume is not None:
        run = resume_run(Path(resume), changes)
        announce(f"going on with {run.folder} at step {run.state.step}")
    else:
        run = start_run(config or TrainConfig(), None if out is None else Path(out))
        rows, channels = run.state.rows.shape
        announce(
            f"training on {run.state.series.name}: {rows} rows of {channels} columns "
            f"({', '.join(run.state.series.columns)}), windows of {run.state.config.seq_len}; "
            f"writing to {run.folder}"
        )
    with stop_on_signals() as stop, cpu_threads(run.state.config.threads):
        fit(run, stop, progress)
        if stop.signal is None:
            stop.deferred = False
            try:
                metrics = finish(run, progress)
            except KeyboardInterrupt:
                if stop.signal is None:
                    raise
            else:
                return TrainResult(run.folder, run.state.step, None, metrics)
    return TrainResult(run.folder, run.state.step, stop.signal, None)

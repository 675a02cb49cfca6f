"""What a run leaves when it ends, and series made from its checkpoint."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from ganlstm_fast.models import LSTMGenerator
from ganlstm_fast.training.checkpoint import atomic_write, load_checkpoint
from ganlstm_fast.training.config import TrainConfig
from ganlstm_fast.training.data import MinMaxScaler
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.metrics import PROTOCOLS, evaluate
from ganlstm_fast.training.plots import plot_losses, plot_samples
from ganlstm_fast.training.trainer import HISTORY, KIND, Run, build_model, find_device


def write_series(path: Path | TextIO, series: Tensor, columns: Sequence[str]) -> None:
    """Write ``series`` as CSV: columns ``sample`` and ``step``, from 1, and one for each channel.

    Args:
        path: a file, which is written whole or not at all, or an open one.
        series: [n, steps, channels].

    Raises:
        InputError: the file cannot be written.
    """
    count, steps, channels = series.shape
    table = pd.DataFrame(series.reshape(-1, channels).numpy(), columns=list(columns))
    table.insert(0, "sample", torch.arange(1, count + 1).repeat_interleave(steps).numpy())
    table.insert(1, "step", torch.arange(1, steps + 1).repeat(count).numpy())
    if isinstance(path, io.TextIOBase):
        table.to_csv(path, index=False, float_format="%.6g")
        return
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")


def finish(run: Run, progress: type[tqdm] = tqdm) -> dict[str, Any]:
    """Write samples.csv, samples.png, losses.png and metrics.json into the run's folder.

    Samples are drawn with a generator of their own, so that finishing twice gives the same files
    and training can go on after it.

    Returns:
        What metrics.json holds.
    """
    state, config = run.state, run.state.config
    generator = torch.Generator(state.device).manual_seed(config.seed)
    real = state.windows.cpu()
    trained: LSTMGenerator = state.average.module
    generated = trained.sample(len(real), config.seq_len, generator).cpu()
    in_units = state.scaler.unscale(generated)
    columns = state.series.columns
    write_series(run.folder / "samples.csv", in_units, columns)
    plot_samples(
        run.folder / "samples.png",
        state.scaler.unscale(real),
        in_units,
        columns,
        state.series.units,
    )
    if state.step:
        plot_losses(run.folder / "losses.png", state.history[: state.step], HISTORY)
    metrics: dict[str, Any] = {"steps": state.step, "metrics": config.metrics}
    if config.metrics != "none":
        protocol = PROTOCOLS[config.metrics]
        untrained = build_model(config, len(columns)).to(state.device).generator
        with progress(total=protocol.iterations, unit="it", desc="metrics") as bar:
            scores = _scores(
                state.rows,
                generated,
                untrained.sample(len(real), config.seq_len, generator).cpu(),
                protocol=protocol,
                seed=config.seed,
                tick=bar.update,
            )
        metrics["protocol"] = vars(protocol)
        metrics.update(scores)
    with atomic_write(run.folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(metrics, indent=2) + "\n")
    return metrics


def _scores(rows: Tensor, *series: Tensor, **options: Any) -> dict[str, Any]:
    try:
        return evaluate(rows, *series, **options)
    except InputError as error:
        # The series trained on may be too short to score, which is no reason to lose the run.
        return {"reported": False, "reason": str(error)}


def generate(run: Path, count: int, seed: int = 0, device: str = "cpu") -> tuple[Tensor, list[str]]:
    """Series from the generator of a run.

    Args:
        run: the run's folder, or its checkpoint.

    Returns:
        [count, seq_len, channels] float64 in the units of the run's data, and the channels' names.

    Raises:
        InputError: a checkpoint that cannot be used, ``count`` below 1, or a device not there.
    """
    if count < 1:
        raise InputError(f"-n: expected 1 or more, got {count}")
    content = load_checkpoint(run, KIND)
    config, data = TrainConfig.from_dict(content["config"]), content["data"]
    where = find_device(device)
    model = build_model(config, len(data["columns"])).generator
    prefix = "module."
    average = content["average"].items()
    weights = {k.removeprefix(prefix): v for k, v in average if k.startswith(prefix)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{run}: the checkpoint does not fit its settings: {reason}") from None
    generator = torch.Generator(where).manual_seed(seed)
    series = model.to(where).sample(count, config.seq_len, generator).cpu()
    return MinMaxScaler(data["minimum"], data["maximum"]).unscale(series), data["columns"]

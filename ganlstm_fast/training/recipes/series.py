"""Generated series: the LSTM-GAN."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import torch
from torch import Tensor, nn

from ganlstm_fast.models import LSTMGAN
from ganlstm_fast.training.configs import SINES, TrainConfig
from ganlstm_fast.training.data import MinMaxScaler, Series, constant_columns, load_series
from ganlstm_fast.training.datasets import sines
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.metrics import PROTOCOLS, evaluate, timegan
from ganlstm_fast.training.outputs import series_table, trained, write_series
from ganlstm_fast.training.plots import plot_samples
from ganlstm_fast.training.recipes.base import length_of
from ganlstm_fast.training.recipes.gan import GANRecipe
from ganlstm_fast.training.state import Run
from ganlstm_fast.training.tables.given import TableLike, shown
from ganlstm_fast.training.tables.long import SeveralSeries
from ganlstm_fast.training.tables.steps import Step
from ganlstm_fast.training.undefined import defined_all
from ganlstm_fast.training.windows import Stretches, left_over, windows

if TYPE_CHECKING:
    import pandas as pd


def read_series(
    config: Any, data: TableLike | None = None, columns: Sequence[str] | None = None
) -> Series:
    """The series of a run's data, or of another table with the run's ``columns``."""
    try:
        return load_series(
            config.data if data is None else data,
            config.columns if columns is None else columns,
            date_column=config.date_column,
            series_column=config.series_column,
            gaps=config.gaps,
            fill=config.fill,
        )
    except SeveralSeries as error:
        if data is None:
            raise
        raise InputError(
            f"{shown(data)} holds several series: {error.why}; the run was trained on one, give "
            "the rows of one"
        ) from None


def scaled(series: Series, fitted_to: Tensor | None = None) -> tuple[Tensor, dict[str, Any]]:
    """The rows of ``series`` in [0, 1], and what a checkpoint tells of them.

    Args:
        fitted_to: [rows] bool, the rows that the scaler is fitted to; None: all.

    Returns:
        [rows, learnt channels] float32: those that are not constant in these rows; and the data.

    Raises:
        InputError: all are constant.
    """
    seen = series.values if fitted_to is None else series.values[fitted_to]
    scaler = MinMaxScaler.fit(seen)
    constant = constant_columns(series.columns, series.values, scaler, series.name)
    data = {
        "name": series.name,
        "fingerprint": series.fingerprint,
        "notes": [*series.notes, *constant],
        **ranges(series.columns, scaler),
        "time_column": series.time_column,
        "step": None if series.step is None else dataclasses.asdict(series.step),
    }
    return scaler.scale(series.values), data


def ranges(columns: Sequence[str], scaler: MinMaxScaler) -> dict[str, Any]:
    """For a checkpoint: what :func:`scaler_of` needs, with the columns learnt if not all are."""
    pairs = zip(columns, scaler.learnt.tolist(), strict=True)
    learnt = [name for name, is_learnt in pairs if is_learnt]
    data = {"columns": list(columns), "minimum": scaler.minimum, "maximum": scaler.maximum}
    return data if len(learnt) == len(columns) else {**data, "learnt": learnt}


def learnt_columns(data: dict[str, Any]) -> list[str]:
    """The names of the columns that a run has learnt, one for each channel of its networks."""
    return data.get("learnt", data["columns"])


def scaler_of(data: dict[str, Any]) -> MinMaxScaler:
    learnt = set(learnt_columns(data))
    known = torch.tensor([name in learnt for name in data["columns"]])
    return MinMaxScaler(data["minimum"], data["maximum"], known)


def latest(series: Series, rows: Tensor, count: int) -> dict[str, Any]:
    """The last ``count`` of ``rows``, for a checkpoint: what follows them can be made.

    Returns:
        ``last`` [count, channels], and where times are known ``last_time`` in ns since 1970; of
        several series ``last`` [n, count, channels], ``last_time`` a list, and ``last_of``, their
        names. A series is left out if its last rows, after a gap perhaps, are fewer.
    """
    known = series.stretches
    final = torch.ones(len(known.series), dtype=torch.bool)
    final[:-1] = known.series[1:] != known.series[:-1]
    long = (final & (known.stops - known.starts >= count)).nonzero()[:, 0]
    ends = known.stops[long].tolist()
    if not ends:
        return {}
    found: dict[str, Any] = {"last": torch.stack([rows[stop - count : stop] for stop in ends])}
    if series.times is not None:
        found["last_time"] = series.times[np.array(ends) - 1].astype(np.int64).tolist()
    if not series.series:
        return {name: values[0] for name, values in found.items()}
    return found | {"last_of": [series.series[k] for k in known.series[long].tolist()]}


@dataclass(frozen=True)
class Before:
    """The last rows of a series, which something is to follow.

    Attributes:
        rows: [count, channels], scaled as what was trained on.
        series: the name of the series; None where there is only one.
        time: of the last row, datetime64[ns], in the column ``time_column``; None: not known.
        step: from a row to the next; None: not known.
    """

    rows: Tensor
    series: str | None = None
    time: np.datetime64 | None = None
    time_column: str | None = None
    step: Step | None = None

    def times(self, count: int) -> dict[str, np.ndarray]:
        """The times of the ``count`` rows that follow, by the name of their column, if known."""
        if self.time is None or self.step is None:
            return {}
        return {str(self.time_column): self.step.after(self.time, count)}


def rows_before(
    config: Any, data: dict[str, Any], count: int, given: TableLike | None, name: str | None
) -> Before:
    """The last ``count`` rows of a series.

    Args:
        given: the series; None: what was trained on.
        name: of the series, where there are several.
    """
    found, where = data, "what was trained on"
    # A checkpoint that an earlier version wrote has no step.
    step = Step(**data["step"]) if data.get("step") else None
    if given is not None:
        series, where = read_series(config, given, data["columns"]), shown(given)
        rows = scaler_of(data).scale(series.values)
        found = latest(series, rows, count) | {"time_column": series.time_column}
        # A short file may not show which days the run's data skips.
        if series.step is not None and (step is None or not series.step.as_long_as(step)):
            step = series.step
        if "last" not in found and len(series.stretches.starts) == 1:
            rows = len(series.values)
            raise InputError(f"{where} has {rows} rows; {count} are needed before what follows")
    if "last" not in found:
        raise InputError(
            f"the last rows of {where} are fewer than the {count} that are needed without a gap "
            "before what follows; give others"
        )
    names, last, time = found.get("last_of"), found["last"], found.get("last_time")
    if names is None:
        if name is not None:
            raise InputError("`series`: the run was trained without `series_column`")
    else:
        if name is None and len(names) == 1:
            name = names[0]
        if name not in names:
            few = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            raise InputError(f"`series`: expected one of those with {count} last rows: {few}")
        place = names.index(name)
        last, time = last[place], None if time is None else time[place]
    when = None if time is None else np.datetime64(time, "ns")
    return Before(last, name, when, found.get("time_column"), step)


class LSTMGANRecipe(GANRecipe):
    """Windows of a table, or series that are made.

    Attributes:
        real_to_score, stretches_to_score: as TimeGAN's scores take real series.
    """

    given = ("seq_len",)
    config: TrainConfig
    real_to_score: Tensor
    stretches_to_score: Stretches | None = None
    units: dict[str, str]

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self.inputs = {}
        if config.of_sines:
            if type(self) is not LSTMGANRecipe:
                raise InputError(
                    f"`data={SINES}`: independent series have no last rows to hold out; train "
                    "lstm-gan on them, or give a file"
                )
            self._make_sines()
            return
        self.series = read_series(config)
        self.rows, self.data = scaled(self.series)
        self.name, self.units = self.series.name, self.series.units
        self.found = self.data["notes"]
        self.found += left_over(self.series.stretches, self.reach)
        self.samples = windows(self.rows, config.seq_len, self.series.stretches)
        self.real_to_score, self.stretches_to_score = self.rows, self.series.stretches

    @property
    def reach(self) -> int:
        """The rows of a sample, with the rows before it that it is conditioned on."""
        return self.config.seq_len

    def _make_sines(self) -> None:
        random = torch.Generator().manual_seed(0)
        self.samples = self.real_to_score = sines(steps=self.config.seq_len, generator=random)
        channels = self.samples.shape[2]
        self.name, self.units = SINES, {}
        self.data = {
            "name": SINES,
            "columns": [f"sine{c + 1}" for c in range(channels)],
            "fingerprint": SINES,
            "minimum": torch.zeros(channels, dtype=torch.float64),
            "maximum": torch.ones(channels, dtype=torch.float64),
        }

    @staticmethod
    def model(config: TrainConfig, data: dict[str, Any]) -> nn.Module:
        return LSTMGAN(
            len(learnt_columns(data)),
            config.noise,
            config.hidden,
            config.layers,
            bidirectional=config.bidirectional,
            critic=config.critic,
            spectral_norm=config.spectral_norm,
        )

    def describe(self) -> str:
        columns = learnt_columns(self.data)
        if self.config.of_sines:
            return f"{SINES}: {self.size} series of {len(columns)} columns"
        return (
            f"{self.name}: {len(self.rows)} rows of {len(columns)} columns "
            f"({', '.join(columns)}), windows of {self.config.seq_len}"
        )

    def noise(self, generator: nn.Module, count: int, random: torch.Generator) -> Tensor:
        return generator.noise(count, self.config.seq_len, random)

    def finish(self, run: Run, progress: Any) -> dict[str, Any]:
        """samples.csv, samples.png and TimeGAN's scores of generated windows."""
        state, config = run.state, run.state.config
        generator = torch.Generator(state.device).manual_seed(config.seed)
        real, scaler = self.samples.cpu(), scaler_of(self.data)
        sizes = len(real), config.seq_len, generator
        generated = trained(run).sample(*sizes, **self.inputs).cpu()
        in_units = scaler.unscale(generated)
        write_series(run.folder / "samples.csv", in_units, self.data["columns"])
        drawn = (scaler.unscale(part)[..., scaler.learnt] for part in (real, generated))
        columns = learnt_columns(self.data)
        plot_samples(run.folder / "samples.png", *drawn, columns, self.units)
        if config.metrics == "none":
            return {}
        protocol = dataclasses.replace(PROTOCOLS[config.metrics], seeds=config.score_seeds)
        untrained = self.untrained().to(state.device).generator
        with progress(total=protocol.iterations, unit="it", desc="metrics") as bar:
            kinds = generated, untrained.sample(*sizes, **self.inputs).cpu()
            options = {"protocol": protocol, "seed": config.seed, "tick": bar.update}
            options["stretches"] = self.stretches_to_score
            scores = defined_all(
                timegan.SCORES, lambda: evaluate(self.real_to_score, *kinds, **options)
            )
        from ganlstm_fast.training.metrics.series import SCORES, compare_series

        scores |= defined_all(SCORES, lambda: compare_series(real, generated, seed=config.seed))
        return {"protocol": vars(protocol), **scores}

    @staticmethod
    def generate(
        model: nn.Module,
        config: TrainConfig,
        data: dict[str, Any],
        count: int,
        seed: int,
        seq_len: int | None = None,
    ) -> Tensor:
        """Series [count, seq_len, channels] in the data's units."""
        steps = length_of(config, seq_len)
        random = torch.Generator(next(model.parameters()).device).manual_seed(seed)
        made = model.generator.sample(count, steps, random).cpu()
        return scaler_of(data).unscale(made)

    @staticmethod
    def as_result(made: Tensor, data: dict[str, Any]) -> pd.DataFrame:
        """A row a step of each series [n, steps, channels]."""
        return series_table(made, data["columns"], data.get("following"))

    @staticmethod
    def write(path: Path | TextIO, made: Tensor, data: dict[str, Any]) -> str:
        """Write ``made`` as CSV; returns what it is, in words."""
        write_series(path, made, data["columns"], data.get("following"))
        count, steps, channels = made.shape
        return f"{count} series of {steps} steps and {channels} columns"

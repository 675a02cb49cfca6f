"""Generated series: the LSTM-GAN."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from ganlstm_fast.models import LSTMGAN
from ganlstm_fast.training.configs import SINES, TrainConfig
from ganlstm_fast.training.data import MinMaxScaler, Series, load_series, windows
from ganlstm_fast.training.datasets import sines
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.metrics import PROTOCOLS, evaluate, timegan
from ganlstm_fast.training.outputs import trained, write_series
from ganlstm_fast.training.plots import plot_samples
from ganlstm_fast.training.recipes.gan import GANRecipe
from ganlstm_fast.training.state import Run
from ganlstm_fast.training.undefined import defined_all


def scaled(config: Any, fit_to: int | None = None) -> tuple[Series, Tensor, dict[str, Any]]:
    """The table, its rows in [0, 1], and what a checkpoint tells of it.

    Args:
        fit_to: the scaler is fitted to so many first rows; None: to all.
    """
    series = load_series(config.data, config.columns)
    scaler = MinMaxScaler.fit(series.values[:fit_to])
    data = {
        "name": series.name,
        "columns": list(series.columns),
        "fingerprint": series.fingerprint,
        "minimum": scaler.minimum,
        "maximum": scaler.maximum,
    }
    return series, scaler.scale(series.values), data


def scaler_of(data: dict[str, Any]) -> MinMaxScaler:
    return MinMaxScaler(data["minimum"], data["maximum"])


def rows_before(file: str, data: dict[str, Any], count: int) -> Tensor:
    """The last ``count`` rows of a file, scaled as what was trained on."""
    values = load_series(file, data["columns"]).values
    if len(values) < count:
        raise InputError(f"{file} has {len(values)} rows; {count} are needed before what follows")
    return scaler_of(data).scale(values)[-count:]


class LSTMGANRecipe(GANRecipe):
    """Windows of a table, or series that are made.

    Attributes:
        real_to_score: as TimeGAN's scores take real series.
    """

    config: TrainConfig
    real_to_score: Tensor
    units: dict[str, str]

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self.inputs = {}
        if config.data == SINES:
            self._make_sines()
            return
        self.series, self.rows, self.data = scaled(config)
        self.name, self.units = self.series.name, self.series.units
        self.samples = windows(self.rows, config.seq_len)
        self.real_to_score = self.rows

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
            len(data["columns"]),
            config.noise,
            config.hidden,
            config.layers,
            bidirectional=config.bidirectional,
            critic=config.critic,
            spectral_norm=config.spectral_norm,
        )

    def describe(self) -> str:
        columns = self.data["columns"]
        if self.config.data == SINES:
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
        # Scored is what a user is given, in which a constant column is that constant.
        generated = scaler.settle(trained(run).sample(*sizes, **self.inputs).cpu())
        in_units, columns = scaler.unscale(generated), self.data["columns"]
        write_series(run.folder / "samples.csv", in_units, columns)
        in_place = run.folder / "samples.png"
        plot_samples(in_place, scaler.unscale(real), in_units, columns, self.units)
        if config.metrics == "none":
            return {}
        protocol = dataclasses.replace(PROTOCOLS[config.metrics], seeds=config.score_seeds)
        untrained = self.untrained().to(state.device).generator
        with progress(total=protocol.iterations, unit="it", desc="metrics") as bar:
            kinds = generated, scaler.settle(untrained.sample(*sizes, **self.inputs).cpu())
            options = {"protocol": protocol, "seed": config.seed, "tick": bar.update}
            scores = defined_all(
                timegan.SCORES, lambda: evaluate(self.real_to_score, *kinds, **options)
            )
        from ganlstm_fast.training.metrics.series import SCORES, compare_series

        scores |= defined_all(SCORES, lambda: compare_series(real, generated, seed=config.seed))
        return {"protocol": vars(protocol), **scores}

    @staticmethod
    def generate(
        model: nn.Module, config: TrainConfig, data: dict[str, Any], count: int, seed: int
    ) -> Tensor:
        """Series [count, seq_len, channels] in the data's units."""
        random = torch.Generator(next(model.parameters()).device).manual_seed(seed)
        made = model.generator.sample(count, config.seq_len, random).cpu()
        return scaler_of(data).unscale(made)

    @staticmethod
    def write(path: Path | TextIO, made: Tensor, data: dict[str, Any]) -> str:
        """Write ``made`` as CSV; returns what it is, in words."""
        write_series(path, made, data["columns"])
        count, steps, channels = made.shape
        return f"{count} series of {steps} steps and {channels} columns"

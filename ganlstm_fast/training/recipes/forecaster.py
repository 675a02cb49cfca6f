"""Forecasts of series."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ganlstm_fast.models import LSTMForecaster
from ganlstm_fast.training.configs import ForecasterConfig
from ganlstm_fast.training.data import Series
from ganlstm_fast.training.datasets import Pairs, forecast_pairs
from ganlstm_fast.training.metrics.forecast import SCORES, forecast_scores
from ganlstm_fast.training.outputs import trained, write_table
from ganlstm_fast.training.pictures import plot_forecasts
from ganlstm_fast.training.recipes.series import (
    latest,
    learnt_columns,
    read_series,
    rows_before,
    scaled,
    scaler_of,
)
from ganlstm_fast.training.recipes.supervised import SupervisedRecipe
from ganlstm_fast.training.splits import check_room, held_out_words, last_rows
from ganlstm_fast.training.state import Run
from ganlstm_fast.training.undefined import Undefined, defined_all, shown
from ganlstm_fast.training.windows import Stretches, left_over

if TYPE_CHECKING:
    import pandas as pd


class ForecasterRecipe(SupervisedRecipe):
    """The rows before, and those to forecast."""

    config: ForecasterConfig

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__(config)
        self.series = read_series(config)
        known, sizes = self.series.stretches, (config.history, config.horizon)
        test = last_rows(config.held_out, known, usual=365, share=4)
        lengths = {"history": config.history, "horizon": config.horizon}
        check_room(known, test, partial(_fits, known), **lengths)
        self.rows, self.data = scaled(self.series, known.left(test + test // 2 + config.history))
        self.name, self.found = self.series.name, self.data["notes"]
        self.found += left_over(known, config.history + config.horizon)
        self.held_out = held_out_words(test)
        self.test = forecast_pairs(self.rows, *sizes, test, known)[1]
        left = known.left(test)
        before, watched = forecast_pairs(self.rows[left], *sizes, test // 2, known.part(left))
        self.train, self.held = (
            {"history": part.history.contiguous(), "future": part.future.contiguous()}
            for part in (before, watched)
        )
        self.data |= latest(self.series, self.rows, config.history)
        self.notes += _constants(self.data, self.series.values)

    @staticmethod
    def model(config: ForecasterConfig, data: dict[str, Any]) -> nn.Module:
        return LSTMForecaster(
            len(learnt_columns(data)),
            config.horizon,
            quantiles=config.levels,
            hidden=config.hidden,
            layers=config.layers,
            bidirectional=config.bidirectional,
            dropout=config.dropout,
            attention=config.attention,
            residual=config.residual,
        )

    def describe(self) -> str:
        c = self.config
        return (
            f"{self.name}: {self.size} times {c.history} rows of {len(learnt_columns(self.data))} "
            f"columns and the {c.horizon} after them; {self.held_out}"
        )

    def loss(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return self.raw.loss(network(batch["history"]), batch["future"])

    def finish(self, run: Run, progress: Any) -> dict[str, Any]:
        """forecasts.csv, forecasts.png, and errors beside those of simple forecasts."""
        config, columns = self.config, self.data["columns"]
        made = predict(trained(run), config, self.data, self.test)
        middle = made if config.levels is None else made[..., len(config.levels) // 2]
        actual = self.series.values
        table = _table(self.test, middle, columns, self.series)
        if self.series.series:
            of_row = self.series.names_of(self.test.starts)
            names = [name for name in of_row for _ in range(config.horizon)]
            table.insert(0, config.series_column, names, allow_duplicates=True)
        write_table(run.folder / "forecasts.csv", table)
        plot_forecasts(
            run.folder / "forecasts.png", actual, self.test.starts, made, columns, self.series.units
        )
        if config.metrics == "none":
            return {}
        options = {
            "quantiles": config.levels,
            "period": config.period,
            "stretches": self.series.stretches,
        }
        # A column that never changes says nothing of the forecasts.
        varies = (actual != actual[0]).any(0)
        names = [column for column, kept in zip(columns, varies.tolist(), strict=True) if kept]
        judged = actual[:, varies], self.test.starts, made[:, :, varies], names
        scores = defined_all(SCORES, lambda: forecast_scores(*judged, **options))
        return {"told": _told(scores), **scores}

    @staticmethod
    def forecast(
        model: nn.Module,
        config: ForecasterConfig,
        data: dict[str, Any],
        file: str | None,
        series: str | None = None,
    ) -> tuple[Tensor, list[str]]:
        """What follows a series [horizon, channels], in the data's units; of quantiles, the median.

        Args:
            file: of the series; None: what was trained on.
            series: the name of the one to forecast, where there are several.
        """
        rows = rows_before(config, data, config.history, file, series)
        made = predict(model, config, data, Pairs(rows[None], rows[None, :0], torch.zeros(1)))[0]
        if config.levels is not None:
            made = made[..., len(config.levels) // 2]
        return made, data["columns"]


@torch.no_grad()
def predict(
    model: nn.Module, config: ForecasterConfig, data: dict[str, Any], pairs: Pairs
) -> Tensor:
    """Forecasts [n, horizon, channels (, quantiles)] in the data's units; quantiles in order."""
    model.eval()
    where = next(model.parameters()).device
    made = torch.cat([model(part.to(where)).cpu() for part in pairs.history.split(1024)])
    if config.levels is None:
        return scaler_of(data).unscale(made)
    return scaler_of(data).unscale(made.sort(-1).values.transpose(-1, -2)).transpose(-1, -2)


def _constants(data: dict[str, Any], values: Tensor) -> list[str]:
    """What is told of columns that change only after the rows that the scaler was fitted to."""
    scaler = scaler_of(data)
    later = scaler.changed(values).any(0)
    return [
        f"column {data['columns'][c]} is {scaler.minimum[c]:.6g} in all rows trained on and "
        "changes after them: all that is forecast of it is that value"
        for c in later.nonzero()[:, 0].tolist()
    ]


def _fits(known: Stretches, held: Tensor | int, history: int, horizon: int) -> bool:
    """Whether there are windows to train on, to watch and to test on."""
    if not known.has_room(history + horizon, held, history):
        return False
    left = known.part(known.left(held))
    return left.has_room(history + horizon, held // 2, history)


def _table(pairs: Pairs, made: Tensor, columns: list[str], series: Series) -> pd.DataFrame:
    """A line a row that is forecast: which row of the file it is, from 1, and the values."""
    import pandas as pd

    count, horizon, channels = made.shape
    table = pd.DataFrame(made.reshape(-1, channels).numpy(), columns=columns)
    rows = pairs.starts[:, None] + torch.arange(horizon)
    table.insert(0, "row", series.file_rows[rows.flatten()].numpy() + 1)
    table.insert(1, "ahead", torch.arange(1, horizon + 1).repeat(count).numpy())
    return table


def _told(scores: dict[str, Any]) -> dict[str, str]:
    def line(skill: dict[str, Any] | Undefined) -> str:
        if isinstance(skill, Undefined):
            return "-"
        by_column = ", ".join(f"{c} {shown(v)}" for c, v in skill["by_column"].items())
        return f"{shown(skill['mean'])} ({by_column})"

    skills = {} if isinstance(scores["skill"], Undefined) else scores["skill"]
    return {f"skill against {name}": line(skill) for name, skill in skills.items()}

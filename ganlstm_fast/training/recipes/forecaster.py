"""Forecasts of series."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ganlstm_fast.models import LSTMForecaster
from ganlstm_fast.training.configs import ForecasterConfig
from ganlstm_fast.training.datasets import Pairs, forecast_pairs
from ganlstm_fast.training.errors import InputError
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
from ganlstm_fast.training.tables.given import TableLike
from ganlstm_fast.training.tables.steps import baselines
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
        actual = self.series.values
        write_table(run.folder / "forecasts.csv", self._table(made))
        # Several series are drawn one after the other, though their times are the same.
        times = None if self.series.series else self.series.times
        places = actual, self.test.starts, made
        plot_forecasts(
            run.folder / "forecasts.png", *places, columns, self.series.units, times=times
        )
        if config.metrics == "none":
            return {}
        options = {
            "quantiles": config.levels,
            "baselines": baselines(self.series.step, config.period),
            "stretches": self.series.stretches,
        }
        # A column that never changes says nothing of the forecasts.
        varies = (actual != actual[0]).any(0)
        names = [column for column, kept in zip(columns, varies.tolist(), strict=True) if kept]
        judged = actual[:, varies], self.test.starts, made[:, :, varies], names
        scores = defined_all(SCORES, lambda: forecast_scores(*judged, **options))
        return {"told": _told(scores), **scores}

    def _table(self, made: Tensor) -> pd.DataFrame:
        """A line a row that is forecast: which row of the file it is, from 1, and the values."""
        series, horizon = self.series, self.config.horizon
        rows = (self.test.starts[:, None] + torch.arange(horizon)).flatten()
        beside: list[tuple[Any, Any]] = []
        if series.series:
            beside.append((self.config.series_column, series.names_of(rows)))
        beside.append(("row", series.file_rows[rows].numpy() + 1))
        if series.times is not None:
            beside.append((series.time_column, series.times[rows.numpy()]))
        beside.append(("ahead", torch.arange(1, horizon + 1).repeat(len(self.test)).numpy()))
        return _values(made.flatten(0, 1), self.data["columns"], self.config.levels, beside)

    @staticmethod
    def forecast(
        model: nn.Module,
        config: ForecasterConfig,
        data: dict[str, Any],
        given: TableLike | None,
        series: str | None = None,
        quantiles: bool = False,
    ) -> tuple[Tensor, pd.DataFrame]:
        """What follows a series, in the data's units, also as a table.

        Args:
            given: the series; None: what was trained on.
            series: the name of the one to forecast, where there are several.
            quantiles: all that were trained, and not the median only.

        Returns:
            [horizon, channels (, quantiles)], and a line a row that is forecast: its time if it is
            known, its step, from 1, its series where there are several, and the values.
        """
        if quantiles and config.levels is None:
            raise InputError(
                "`quantiles`: the run was trained with `mean=True`, and forecasts none"
            )
        before = rows_before(config, data, config.history, given, series)
        pairs = Pairs(before.rows[None], before.rows[None, :0], torch.zeros(1))
        made, levels = predict(model, config, data, pairs)[0], config.levels
        if levels is not None and not quantiles:
            made, levels = made[..., len(levels) // 2], None
        steps = torch.arange(1, config.horizon + 1).numpy()
        beside = [*before.times(config.horizon).items(), ("step", steps)]
        if before.series is not None:
            beside.append((config.series_column, [before.series] * config.horizon))
        return made, _values(made, data["columns"], levels, beside)


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
    """Notes on columns that change only after the rows that the scaler was fitted to."""
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


def _values(
    made: Tensor,
    columns: list[str],
    levels: Sequence[float] | None,
    beside: list[tuple[Any, Any]],
) -> pd.DataFrame:
    """The columns ``beside``, and those of the forecasts [rows, channels (, quantiles)].

    A quantile's column is called by its percentage: ``temp_max_q10`` is the 0.1-quantile.
    """
    import pandas as pd

    names = columns
    if levels is not None:
        names = [f"{column}_q{100 * level:g}" for column in columns for level in levels]
    # Not by a dictionary: a file's column may have the name of another.
    left = [pd.Series(values, name=name) for name, values in beside]
    return pd.concat((*left, pd.DataFrame(made.flatten(1).numpy(), columns=names)), axis=1)


def _told(scores: dict[str, Any]) -> dict[str, str]:
    def line(skill: dict[str, Any] | Undefined) -> str:
        if isinstance(skill, Undefined):
            return "-"
        by_column = ", ".join(f"{c} {shown(v)}" for c, v in skill["by_column"].items())
        return f"{shown(skill['mean'])} ({by_column})"

    skills = {} if isinstance(scores["skill"], Undefined) else scores["skill"]
    return {f"skill against {name}": line(skill) for name, skill in skills.items()}

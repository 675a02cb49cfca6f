"""Forecasts of series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ganlstm_fast.models import LSTMForecaster
from ganlstm_fast.training.configs import ForecasterConfig
from ganlstm_fast.training.data import load_series
from ganlstm_fast.training.datasets import Pairs, forecast_pairs
from ganlstm_fast.training.metrics.forecast import SCORES, forecast_scores
from ganlstm_fast.training.outputs import trained, write_table
from ganlstm_fast.training.pictures import plot_forecasts
from ganlstm_fast.training.recipes.series import rows_before, scaled, scaler_of
from ganlstm_fast.training.recipes.supervised import SupervisedRecipe
from ganlstm_fast.training.state import Run
from ganlstm_fast.training.undefined import Undefined, defined_all, shown

if TYPE_CHECKING:
    import pandas as pd


class ForecasterRecipe(SupervisedRecipe):
    """The rows before, and those to forecast."""

    config: ForecasterConfig

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__(config)
        test, sizes = config.held_out, (config.history, config.horizon)
        rows = len(load_series(config.data, config.columns).values)
        fit_to = max(1, rows - test - test // 2 - config.history)
        self.series, self.rows, self.data = scaled(config, fit_to)
        self.name = self.series.name
        self.test = forecast_pairs(self.rows, *sizes, test)[1]
        before, watched = forecast_pairs(self.rows[:-test], *sizes, test // 2)
        self.train, self.held = (
            {"history": part.history.contiguous(), "future": part.future.contiguous()}
            for part in (before, watched)
        )
        self.data["last"] = self.rows[-config.history :].clone()
        self.notes += _constants(self.data, self.series.values)

    @staticmethod
    def model(config: ForecasterConfig, data: dict[str, Any]) -> nn.Module:
        return LSTMForecaster(
            len(data["columns"]),
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
            f"{self.name}: {self.size} times {c.history} rows of {len(self.data['columns'])} "
            f"columns and the {c.horizon} after them; the last {c.held_out} rows are held out"
        )

    def loss(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return self.raw.loss(network(batch["history"]), batch["future"])

    def finish(self, run: Run, progress: Any) -> dict[str, Any]:
        """forecasts.csv, forecasts.png, and errors beside those of simple forecasts."""
        config, columns = self.config, self.data["columns"]
        made = predict(trained(run), config, self.data, self.test)
        middle = made if config.levels is None else made[..., len(config.levels) // 2]
        actual = self.series.values
        write_table(run.folder / "forecasts.csv", _table(self.test, middle, columns))
        plot_forecasts(
            run.folder / "forecasts.png", actual, self.test.starts, made, columns, self.series.units
        )
        if config.metrics == "none":
            return {}
        options = {"quantiles": config.levels, "period": config.period}
        judged = actual, self.test.starts, made, columns
        scores = defined_all(SCORES, lambda: forecast_scores(*judged, **options))
        return {"told": _told(scores), **scores}

    @staticmethod
    def forecast(
        model: nn.Module, config: ForecasterConfig, data: dict[str, Any], file: str | None
    ) -> tuple[Tensor, list[str]]:
        """What follows a series [horizon, channels], in the data's units; of quantiles, the median.

        Args:
            file: of the series; None: what was trained on.
        """
        rows = data["last"]
        if file is not None:
            rows = rows_before(file, data, config.history)
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
    later = ~scaler_of(data).varies & (values != values[0]).any(0)
    return [
        f"column {data['columns'][c]} is {values[0, c]:.6g} in all rows trained on and changes "
        "after them: all that is forecast of it is that value"
        for c in later.nonzero()[:, 0].tolist()
    ]


def _table(pairs: Pairs, made: Tensor, columns: list[str]) -> pd.DataFrame:
    import pandas as pd

    count, horizon, channels = made.shape
    table = pd.DataFrame(made.reshape(-1, channels).numpy(), columns=columns)
    rows = pairs.starts[:, None] + torch.arange(horizon)
    table.insert(0, "row", rows.flatten().numpy() + 1)
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

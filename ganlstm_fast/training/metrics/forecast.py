"""Errors of forecasts, beside those of simple ones."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ganlstm_fast.training.errors import UndefinedScore
from ganlstm_fast.training.tables import steps
from ganlstm_fast.training.undefined import Undefined, check_finite, defined_for
from ganlstm_fast.training.windows import Stretches

SCORES = ("columns", "skill")


def period_before(
    rows: Tensor,
    starts: Tensor,
    horizon: int,
    period: int = 1,
    stretches: Stretches | None = None,
) -> Tensor:
    """The rows ``period`` before those of each forecast (before that, where these are not known).

    Args:
        rows: [rows, channels] the series.
        starts: [n] int64, the first row of each forecast.
        horizon: steps of each.
        period: how many rows to go back; 1 is the last row before, for all steps. Where the horizon
            is longer, it goes back more whole periods.
        stretches: of the rows; None: all follow each other.

    Returns:
        [n, horizon, channels].

    Raises:
        UndefinedScore: a start less than a period after the first row of its stretch.
    """
    source = starts[:, None] + torch.arange(horizon) % period - period
    if stretches is not None and (source[:, 0] < stretches.starts[stretches.of_row[starts]]).any():
        raise UndefinedScore(f"before some forecasts the row {period} back is not known")
    which = "the rows before" if period == 1 else f"the rows {period} before"
    return _rows_at(rows, source, which)


def _rows_at(rows: Tensor, source: Tensor, which: str) -> Tensor:
    if source.numel() and not 0 <= source.min() <= source.max() < len(rows):
        raise UndefinedScore(f"starts: {which} are not all among the {len(rows)} of the series")
    return rows[source]


def pinball_loss(actual: Tensor, forecast: Tensor, quantiles: Sequence[float]) -> Tensor:
    """The mean pinball loss of forecast quantiles, by channel.

    ``max(q (y - f), (q - 1) (y - f))`` for the forecast f of quantile q: Koenker and Bassett,
    Regression Quantiles, Econometrica 1978. Half of the absolute error for q = 0.5.

    Args:
        actual: [n, horizon, channels].
        forecast: [n, horizon, channels, len(quantiles)].
        quantiles: each above 0 and below 1.

    Returns:
        [channels], the mean over all else.

    Raises:
        ValueError: a quantile out of range, or another shape.
    """
    if not quantiles or not all(0 < q < 1 for q in quantiles):
        raise ValueError(f"quantiles: expected numbers above 0 and below 1, got {list(quantiles)}")
    if forecast.shape != (*actual.shape, len(quantiles)):
        raise ValueError(
            f"forecast: expected shape {(*actual.shape, len(quantiles))}, "
            f"got {tuple(forecast.shape)}"
        )
    q = torch.tensor(quantiles, dtype=forecast.dtype, device=forecast.device)
    error = actual[..., None] - forecast
    return torch.maximum(q * error, (q - 1) * error).mean((0, 1, 3))


def forecast_scores(
    rows: Tensor,
    starts: Tensor,
    forecast: Tensor,
    columns: Sequence[str],
    *,
    quantiles: Sequence[float] | None = None,
    baselines: Mapping[str, int] | None = None,
    stretches: Stretches | None = None,
) -> dict[str, object]:
    """Mean absolute and root mean square error of forecasts, and their skill.

    Skill is ``1 - MAE / MAE of a simple forecast``: above 0 where the simple one is beaten, 1 where
    there is no error. (Its mean over the columns has no unit, while the errors are in those of the
    data.) For quantiles there is the pinball loss as well, the simple forecast taken for each of
    them, and its skill.

    Args:
        rows: [rows, channels] the series, in the units in which errors are to be given.
        starts: [n] int64, the first row of each forecast.
        forecast: [n, horizon, channels], or [n, horizon, channels, len(quantiles)].
        columns: the channels' names.
        quantiles: of the forecast. The middle one, which must be 0.5, is judged by the absolute and
            the squared error.
        baselines: the simple forecasts by name, as how many rows they go back (see
            :func:`~ganlstm_fast.training.tables.steps.baselines`); None: the row before.
        stretches: of the rows; None: all follow each other.

    Returns:
        ``count``, ``horizon``; ``columns``, by name ``mae`` and ``rmse`` (and ``pinball``), each
        for the forecast and for every simple one that there is; ``skill`` (and ``pinball_skill``),
        by simple forecast its ``mean`` over the columns and its value ``by_column``. Skill has no
        value against a forecast for which the rows are not there, nor for a column that the simple
        one forecasts without any error (as a scaled error has none: Hyndman and Koehler, Another
        look at measures of forecast accuracy, 2006); such columns are left out of the mean. What
        has none says why; :func:`~ganlstm_fast.training.undefined.for_json` writes it.

    Raises:
        UndefinedScore: forecasts that are not finite, or of rows that are not there.
        ValueError: shapes that do not fit, or quantiles without 0.5 in the middle.
    """
    horizon = forecast.shape[1]
    actual = _rows_at(rows, starts[:, None] + torch.arange(horizon), "the rows to forecast")
    expected = actual.shape if quantiles is None else (*actual.shape, len(quantiles))
    if forecast.shape != expected or len(columns) != rows.shape[1]:
        raise ValueError(
            f"forecast: expected shape {tuple(expected)} with {rows.shape[1]} columns, got "
            f"{tuple(forecast.shape)} with {len(columns)}"
        )
    if quantiles is not None and (len(quantiles) % 2 == 0 or quantiles[len(quantiles) // 2] != 0.5):
        raise ValueError(f"quantiles: expected 0.5 in the middle, got {list(quantiles)}")
    check_finite("forecast", forecast)
    found = defined_for(
        steps.baselines(None) if baselines is None else baselines,
        lambda period: period_before(rows, starts, horizon, period, stretches),
    )
    simple = {name: made for name, made in found.items() if not isinstance(made, Undefined)}
    middle = forecast if quantiles is None else forecast[..., len(quantiles) // 2]
    points = {"forecast": middle, **simple}
    errors: dict[str, dict[str, Tensor]] = {
        "mae": {k: (f - actual).abs().mean((0, 1)) for k, f in points.items()},
        "rmse": {k: (f - actual).square().mean((0, 1)).sqrt() for k, f in points.items()},
    }
    skills = {"skill": "mae"}
    if quantiles is not None:
        wide = {k: f[..., None].expand(*f.shape, len(quantiles)) for k, f in simple.items()}
        errors["pinball"] = {
            k: pinball_loss(actual, f, quantiles) for k, f in {"forecast": forecast, **wide}.items()
        }
        skills["pinball_skill"] = "pinball"
    result: dict[str, object] = {
        "count": len(starts),
        "horizon": horizon,
        "columns": {
            column: {
                measure: {k: values[c].item() for k, values in kinds.items()}
                for measure, kinds in errors.items()
            }
            for c, column in enumerate(columns)
        },
    }
    for skill, measure in skills.items():
        ours = errors[measure]["forecast"]
        result[skill] = {
            name: made
            if isinstance(made, Undefined)
            else _skill(ours, errors[measure][name], columns)
            for name, made in found.items()
        }
    return result


def _skill(error: Tensor, simple: Tensor, columns: Sequence[str]) -> dict[str, object]:
    perfect = Undefined("the simple forecast has no error here, and skill is a share of its error")
    pairs = zip(columns, error.tolist(), simple.tolist(), strict=True)
    by_column = {c: 1 - ours / other if other > 0 else perfect for c, ours, other in pairs}
    known = [v for v in by_column.values() if not isinstance(v, Undefined)]
    return {"mean": statistics.fmean(known) if known else perfect, "by_column": by_column}

"""Errors of forecasts and of simple ones, and the area under the ROC curve."""

import json

import pytest
import torch
from sklearn.metrics import mean_pinball_loss

from ganlstm_fast.training.data import MinMaxScaler, load_series
from ganlstm_fast.training.datasets import Event, Planted, forecast_pairs, plant_anomalies
from ganlstm_fast.training.errors import UndefinedScore
from ganlstm_fast.training.metrics.anomaly import area_under_roc, scores_at, threshold_of
from ganlstm_fast.training.metrics.forecast import (
    forecast_scores,
    period_before,
    pinball_loss,
)
from ganlstm_fast.training.tables.steps import baselines
from ganlstm_fast.training.undefined import Undefined, for_json
from ganlstm_fast.training.windows import windows


def test_simple_forecasts():
    rows = torch.arange(100.0)[:, None].expand(-1, 2)
    starts = torch.tensor([50, 90])
    last = period_before(rows, starts, 3)
    assert last.shape == (2, 3, 2)
    assert last[..., 1].tolist() == [[49, 49, 49], [89, 89, 89]]
    assert period_before(rows, starts, 3, 30)[..., 0].tolist() == [[20, 21, 22], [60, 61, 62]]
    # Further ahead than a period, the last one that is known.
    assert period_before(rows, starts[:1], 5, 2)[0, :, 0].tolist() == [48, 49, 48, 49, 48]
    assert period_before(rows, torch.tensor([30]), 1, 30).tolist() == [[[0, 0]]]
    with pytest.raises(ValueError, match="the rows 30 before are not all among the 100"):
        period_before(rows, torch.tensor([29]), 1, 30)
    with pytest.raises(ValueError, match="the rows before are not all among the 100"):
        period_before(rows, torch.tensor([0]), 1)


def test_pinball_loss():
    actual, forecast = torch.randn(20, 3, 2), torch.randn(20, 3, 2, 3)
    quantiles = (0.1, 0.5, 0.9)
    found = pinball_loss(actual, forecast, quantiles)
    for channel in range(2):
        expected = [
            mean_pinball_loss(
                actual[..., channel].flatten(), forecast[..., channel, k].flatten(), alpha=q
            )
            for k, q in enumerate(quantiles)
        ]
        assert found[channel].item() == pytest.approx(sum(expected) / 3)
    for bad in ((0.0, 0.5, 1.0), ()):
        with pytest.raises(ValueError, match="quantiles: expected numbers above 0 and below 1"):
            pinball_loss(actual, forecast, bad)
    with pytest.raises(ValueError, match=r"forecast: expected shape \(20, 3, 2, 2\)"):
        pinball_loss(actual, forecast, (0.1, 0.9))


TEN = baselines(None, 10)


def ramp() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A series that grows by 1 and by 2 a step, starts, and what follows them."""
    rows = torch.arange(60.0, dtype=torch.float64)[:, None] * torch.tensor([1.0, 2.0])
    starts = torch.tensor([20, 40])
    return rows, starts, rows[starts[:, None] + torch.arange(2)]


def test_scores_of_forecasts():
    rows, starts, actual = ramp()
    columns = ("a", "b")
    wrong = actual + torch.tensor([[0.5], [-1.0]], dtype=torch.float64)
    scores = forecast_scores(rows, starts, wrong, columns, baselines=TEN)
    assert json.loads(json.dumps(scores)) == scores
    assert (scores["count"], scores["horizon"]) == (2, 2)
    # Errors of 0.5 and 1; the last value is wrong by 1 and 2 steps, that of a period before by 10.
    assert scores["columns"]["a"]["mae"] == {
        "forecast": 0.75,
        "same as the row before": 1.5,
        "10 rows before": 10,
    }
    assert scores["columns"]["b"]["mae"]["same as the row before"] == 3
    rmse = scores["columns"]["a"]["rmse"]
    assert rmse["forecast"] == pytest.approx(0.625**0.5)
    assert rmse["same as the row before"] == pytest.approx(2.5**0.5)
    assert scores["skill"]["same as the row before"]["by_column"] == {"a": 0.5, "b": 0.75}
    assert scores["skill"]["same as the row before"]["mean"] == 0.625
    assert scores["skill"]["10 rows before"]["by_column"]["a"] == pytest.approx(0.925)
    assert "pinball_skill" not in scores
    perfect = forecast_scores(rows, starts, actual, columns, baselines=TEN)
    assert perfect["skill"]["same as the row before"]["mean"] == 1


def test_scores_of_quantiles():
    rows, starts, actual = ramp()
    quantiles = (0.25, 0.5, 0.75)
    wide = actual[..., None] + torch.tensor([-1.0, 0.0, 1.0])
    scores = forecast_scores(rows, starts, wide, ("a", "b"), quantiles=quantiles, baselines=TEN)
    a = scores["columns"]["a"]
    assert a["mae"]["forecast"] == 0
    # 0.25 for each of the outer two; the same value for all three is 0.5 of the error on average.
    assert a["pinball"]["forecast"] == pytest.approx(0.5 / 3)
    assert a["pinball"]["same as the row before"] == pytest.approx(0.75)
    assert scores["pinball_skill"]["same as the row before"]["by_column"]["a"] == pytest.approx(
        7 / 9
    )
    for bad in ((0.1, 0.9), (0.1, 0.4, 0.9)):
        with pytest.raises(ValueError, match=r"quantiles: expected 0\.5 in the middle"):
            forecast_scores(
                rows, starts, wide[..., : len(bad)], ("a", "b"), quantiles=bad, baselines=TEN
            )
    with pytest.raises(ValueError, match=r"expected shape \(2, 2, 2, 3\) with 2 columns"):
        forecast_scores(rows, starts, actual, ("a", "b"), quantiles=quantiles)


def test_a_column_that_never_changes_has_no_skill():
    rows, starts, actual = ramp()
    rows[:, 1], actual[..., 1] = 7, 7
    for error, mean in ((0.0, 1), (0.3, 0.8)):
        scores = forecast_scores(rows, starts, actual + error, ("a", "b"), baselines=TEN)
        skill = scores["skill"]["same as the row before"]
        assert isinstance(skill["by_column"]["b"], Undefined)
        assert skill["mean"] == pytest.approx(mean)
    found = forecast_scores(rows[:, 1:], starts, actual[..., 1:] + 1, ("b",), baselines=TEN)
    assert isinstance(found["skill"]["same as the row before"]["mean"], Undefined)
    assert found["columns"]["b"]["mae"]["forecast"] == 1
    written = for_json(found)
    assert written["skill"]["same as the row before"] == {"mean": None, "by_column": {"b": None}}
    reason = written["undefined"]["skill.same as the row before.by_column.b"]
    assert "the simple forecast has no error" in reason


def test_a_series_shorter_than_a_period_keeps_its_other_scores():
    rows, starts, actual = ramp()
    scores = forecast_scores(rows, starts, actual + 0.5, ("a", "b"), baselines=baselines(None, 365))
    assert scores["skill"]["same as the row before"]["by_column"]["a"] == pytest.approx(2 / 3)
    reason = "starts: the rows 365 before are not all among the 60 of the series"
    assert scores["skill"]["365 rows before"] == Undefined(reason)
    assert set(scores["columns"]["a"]["mae"]) == {"forecast", "same as the row before"}


def test_forecasts_that_are_not_finite_have_no_scores():
    rows, starts, actual = ramp()
    with pytest.raises(UndefinedScore, match="forecast: expected finite values"):
        forecast_scores(rows, starts, actual * torch.nan, ("a", "b"), baselines=TEN)


def test_a_forecast_of_the_weather_by_the_simple_one_has_no_skill():
    series = load_series()
    _, test = forecast_pairs(series.values, 100, 7)
    same = period_before(series.values, test.starts, 7, 365)
    scores = forecast_scores(
        series.values, test.starts, same, series.columns, baselines=baselines(series.step)
    )
    assert scores["skill"]["same day last year"]["mean"] == 0
    assert list(scores["skill"]) == ["same as yesterday", "same day last year"]
    # The day before the year before.
    assert torch.equal(same[0, 0], series.values[1096 - 365])
    assert scores["count"] == 359


def test_area_under_the_curve():
    values = load_series().values
    rows = MinMaxScaler.fit(values).scale(values)
    planted = plant_anomalies(rows, 4, generator=torch.Generator().manual_seed(0))
    changed = (windows(planted.rows, 12) - windows(rows, 12)).abs().amax((1, 2))
    areas = area_under_roc(changed, planted)
    assert list(areas) == ["all", "flat", "level-shift", "spike", "swapped"]
    # The differences show all rows of an event, except those that kept their value by chance.
    assert min(areas.values()) > 0.98
    assert areas["spike"] == 1
    backward = area_under_roc(-changed, planted)
    assert backward["spike"] == 0
    chance = area_under_roc(torch.rand(len(changed)), planted)
    assert abs(chance["all"] - 0.5) < 0.05
    # Only spikes are seen: the others are chance against windows without any.
    only = planted.window_labels(12, "spike").float()
    areas = area_under_roc(only, planted)
    assert areas["spike"] == 1
    assert 0.5 <= areas["flat"] < 0.6


def test_scores_that_fit_no_window():
    rows = torch.rand(50, 2)
    planted = plant_anomalies(rows, 1, ("spike",))
    for scores in (torch.rand(51), torch.rand(49, 1), torch.rand(0)):
        with pytest.raises(ValueError, match="scores: expected one for each window of 50 rows"):
            area_under_roc(scores, planted)
    for labels in (torch.zeros(50, dtype=torch.bool), torch.ones(50, dtype=torch.bool)):
        with pytest.raises(UndefinedScore, match="windows both with and without an anomaly"):
            area_under_roc(torch.rand(49), Planted(rows, labels, ()))
    with pytest.raises(UndefinedScore, match="scores: expected finite values"):
        area_under_roc(torch.full((49,), torch.nan), planted)


def test_a_threshold_and_what_is_found_at_it():
    assert threshold_of(torch.arange(101.0), 0.99) == 99
    for usual in (torch.zeros(0), torch.tensor([0.0, torch.inf])):
        with pytest.raises(UndefinedScore):
            threshold_of(usual, 0.99)
    labels = torch.zeros(20, dtype=torch.bool)
    events = (Event("spike", 4, 5, (0,)), Event("spike", 10, 11, (0,)), Event("flat", 18, 20, (0,)))
    for event in events:
        labels[event.start : event.stop] = True
    planted = Planted(torch.rand(20, 1), labels, events)
    scores = torch.zeros(18)
    # Windows of 3: of the first event one of three, one before it, and the last of the third.
    scores[[2, 0, 17]] = 1
    found = scores_at(0.5, scores, planted)
    assert found["found_of"] == {"spike": [1, 2], "flat": [1, 1]}
    assert found["anomalies_found"] == pytest.approx(2 / 3)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["recall"] == pytest.approx(2 / 8)
    none = scores_at(2.0, scores, planted)
    assert none["precision"] == Undefined("no window is above the threshold")
    assert none["anomalies_found"] == none["recall"] == 0


def test_kinds_that_could_not_be_planted_say_why_beside_the_others():
    planted = plant_anomalies(torch.rand(200, 1), 1, strict=False)
    areas = area_under_roc(torch.rand(189), planted)
    assert areas.pop("swapped") == Undefined("such an anomaly takes 2 columns, and there is only 1")
    assert set(areas) == {"all", "flat", "level-shift", "spike"}
    assert all(0 <= area <= 1 for area in areas.values())
    nothing = plant_anomalies(torch.ones(200, 1), 1, strict=False)
    with pytest.raises(UndefinedScore, match="no anomaly could be planted: no column changes"):
        area_under_roc(torch.rand(189), nothing)

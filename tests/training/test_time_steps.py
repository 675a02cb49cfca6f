"""The time step of dated data: names of baselines, times of forecasts, and lengths."""

import dataclasses
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from tqdm import tqdm

from ganlstm_fast.cli import main
from ganlstm_fast.training import InputError, forecast, generate, load_trained, score, train
from ganlstm_fast.training.checkpoint import load_checkpoint, save_checkpoint
from ganlstm_fast.training.configs import (
    AnomalyConfig,
    ConditionalConfig,
    ForecasterConfig,
    TextGANConfig,
    TrainConfig,
)
from ganlstm_fast.training.data import load_series
from ganlstm_fast.training.tables.steps import baselines, find_step

RUN = {"steps": 1, "batch_size": 8, "metrics": "none", "device": "cpu", "hidden": 4}
FORECASTER = ForecasterConfig(**RUN, history=8, horizon=3)
CONDITIONAL = ConditionalConfig(**RUN, noise=2, seq_len=6, condition="history", history=5)
pytestmark = pytest.mark.usefixtures("undrawn")


def run(config, **options):
    return train(config, progress=partial(tqdm, disable=True), **options)


def dated(file, times, name="when", **columns):
    x = np.sin(np.arange(len(times)) / 3)
    pd.DataFrame({name: times, "x": x, **columns}).to_csv(file, index=False)
    return str(file)


def sessions(days):
    hours = pd.date_range("2020-01-06", periods=24 * days, freq="h")
    return hours[(hours.day_of_week < 5) & (hours.hour >= 9) & (hours.hour < 16)]


SAME = "same as the {} before".format
SERIES = {
    "seconds": ("s", {SAME("second"): 1, "an hour before": 3600}),
    "minutes": ("min", {SAME("minute"): 1, "same time yesterday": 1440}),
    "quarters of an hour": ("15min", {"same as 15 minutes before": 1, "same time yesterday": 96}),
    "hours": ("h", {SAME("hour"): 1, "same hour yesterday": 24, "same hour last week": 168}),
    "5 hours": (
        "5h",
        {
            "same as 5 hours before": 1,
            "about a day before (5 rows)": 5,
            "about a week before (34 rows)": 34,
        },
    ),
    "days": ("D", {"same as yesterday": 1, "same day last year": 365}),
    "weekdays": ("B", {SAME("weekday"): 1, "about a year before (261 rows)": 261}),
    "weeks": ("7D", {SAME("week"): 1, "same week last year": 52}),
    "4 weeks": ("28D", {"same as 4 weeks before": 1, "about a year before (13 rows)": 13}),
    "months": ("MS", {SAME("month"): 1, "same month last year": 12}),
    "ends of months": (pd.offsets.MonthEnd(), {SAME("month"): 1, "same month last year": 12}),
    "last weekdays": (pd.offsets.BMonthEnd(), {SAME("month"): 1, "same month last year": 12}),
    "first weekdays": (pd.offsets.BMonthBegin(), {SAME("month"): 1, "same month last year": 12}),
    "quarters": (pd.offsets.QuarterEnd(), {SAME("quarter"): 1, "same quarter last year": 4}),
    "years": ("YS", {SAME("year"): 1}),
}


@pytest.mark.parametrize("name", SERIES)
def test_a_step_is_named_and_goes_on(name):
    freq, named = SERIES[name]
    times = pd.date_range("2020-01-30", periods=60, freq=freq).to_numpy("datetime64[ns]")
    step = find_step([times[:50]])
    assert baselines(step) == named
    assert (step.after(times[49], 10) == times[50:]).all()
    # In times of another series, and with a gap.
    assert find_step([times[:20], np.delete(times, 15)]) == step


def test_times_go_on_where_the_week_has_rows():
    times = sessions(60).to_numpy("datetime64[ns]")
    step = find_step([times[:100]])
    assert (step.after(times[99], 150) == times[100:250]).all()
    assert baselines(step) == {"same as the row before": 1, "about a week before (35 rows)": 35}
    # A single Friday does not show that the dates leave out weekends.
    day = pd.date_range("2020-01-10", periods=24, freq="h").to_numpy("datetime64[ns]")
    assert str(find_step([day]).after(day[-1], 1)[0])[:13] == "2020-01-11T00"


def test_the_30th_of_each_month_comes_back_after_february():
    start = pd.Timestamp("2020-01-30 06:00")
    times = np.array([start + pd.DateOffset(months=k) for k in range(20)], "datetime64[ns]")
    assert (find_step([times[:14]]).after(times[12], 7) == times[13:]).all()


def test_uneven_or_different_steps_are_not_known():
    seconds = np.random.default_rng(0).exponential(100, 300).cumsum() * 1e9
    uneven = np.datetime64("2020-01-01", "ns") + seconds.astype("timedelta64[ns]")
    days, hours = (
        pd.date_range("2020-01-01", periods=30, freq=f).to_numpy("datetime64[ns]") for f in "Dh"
    )
    assert find_step([uneven]) is None
    assert find_step([days, hours]) is None
    assert find_step([days[:2]]) is None
    assert find_step([days, hours[:2]]) == find_step([days])


@pytest.mark.parametrize(
    ("freq", "period", "name"),
    [
        ("D", 7, "7 days before"),
        ("D", 365, "same day last year"),
        ("h", 24, "same hour yesterday"),
        ("15min", 4, "60 minutes before"),
        ("B", 5, "5 rows before"),
        (None, 12, "12 rows before"),
    ],
)
def test_a_period_has_its_own_name(freq, period, name):
    times = pd.date_range("2020-01-01", periods=50, freq=freq or "D").to_numpy("datetime64[ns]")
    step = find_step([times]) if freq else None
    assert list(baselines(step, period).items())[1:] == [(name, period)]
    assert len(baselines(step, 1)) == 1


def test_hourly_data_is_judged_against_its_own_simple_forecasts(tmp_path):
    data = dated(tmp_path / "t.csv", pd.date_range("2020-01-01", periods=400, freq="h"))
    config = dataclasses.replace(FORECASTER, data=data, metrics="quick")
    metrics = run(config, out=tmp_path / "r").metrics
    names = ["same as the hour before", "same hour yesterday", "same hour last week"]
    assert list(metrics["skill"]) == names
    assert "; ".join(names) in metrics["meaning"]["skill"]
    # 21 steps of the sine are about a period more than two.
    mae = metrics["columns"]["x"]["mae"]
    actual = np.sin(np.arange(300, 400) / 3)
    expected = np.abs(actual - np.sin((np.arange(300, 400) - 24) / 3)).mean()
    assert mae["same hour yesterday"] == pytest.approx(expected, rel=0.05)
    config = dataclasses.replace(config, period=19)
    metrics = run(config, out=tmp_path / "p").metrics
    assert list(metrics["skill"]) == ["same as the hour before", "19 hours before"]
    assert metrics["columns"]["x"]["mae"]["19 hours before"] < 0.2 * expected


def test_data_without_dates_or_shorter_than_a_season(tmp_path):
    table = pd.DataFrame({"x": np.sin(np.arange(100) / 3)})
    table.to_csv(tmp_path / "t.csv", index=False)
    config = dataclasses.replace(FORECASTER, data=str(tmp_path / "t.csv"), metrics="quick")
    result = run(config, out=tmp_path / "r")
    assert list(result.metrics["skill"]) == ["same as the row before"]
    assert list(forecast(result.folder)) == ["step", "x"]
    assert list(pd.read_csv(result.folder / "forecasts.csv"))[:2] == ["row", "ahead"]
    data = dated(tmp_path / "d.csv", pd.date_range("2020-01-01", periods=100, freq="h"))
    metrics = run(dataclasses.replace(config, data=data), out=tmp_path / "d").metrics
    assert metrics["skill"]["same hour last week"] is None
    assert "row 168 back is not known" in metrics["undefined"]["skill.same hour last week"]


@pytest.fixture
def monthly(tmp_path):
    """A forecaster of the ends of months, and its file."""
    times = pd.date_range("2010-01-31", periods=100, freq=pd.offsets.MonthEnd())
    data = dated(tmp_path / "t.csv", times.strftime("%d.%m.%Y"), name="Month")
    return run(dataclasses.replace(FORECASTER, data=data), out=tmp_path / "m").folder, times


def test_forecasts_have_times_and_quantiles(tmp_path, monthly, capsys):
    folder, times = monthly
    after = ["2018-05-31", "2018-06-30", "2018-07-31"]
    table = forecast(folder)
    assert list(table) == ["Month", "step", "x"]
    assert table["Month"].astype(str).tolist() == after
    made, columns = forecast(folder, as_tensor=True)
    assert made.shape == (3, 1)
    assert made[:, 0].tolist() == table["x"].tolist()
    wide, quantiles = forecast(folder, quantiles=True), ["x_q10", "x_q50", "x_q90"]
    assert list(wide) == ["Month", "step", *quantiles]
    assert wide["x_q50"].tolist() == table["x"].tolist()
    assert (wide["x_q10"] < wide["x_q90"]).all()
    made, columns = forecast(folder, quantiles=True, as_tensor=True)
    assert (made.shape, columns) == ((3, 1, 3), ["x"])
    capsys.readouterr()
    assert main(["forecast", str(folder), "--quantiles", "--device=cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Month,step,x_q10,x_q50,x_q90"
    assert [line.split(",")[0] for line in lines[1:]] == after
    held = pd.read_csv(folder / "forecasts.csv")
    assert list(held) == ["row", "Month", "ahead", *quantiles]
    assert (pd.to_datetime(held["Month"]) == times[held["row"] - 1]).all()


def test_a_run_without_quantiles(tmp_path, monthly):
    content = load_checkpoint(monthly[0])
    config = ForecasterConfig.from_dict(content["config"] | {"mean": True})
    folder = run(config, out=tmp_path / "mean").folder
    assert list(pd.read_csv(folder / "forecasts.csv")) == ["row", "Month", "ahead", "x"]
    with pytest.raises(InputError, match="quantiles: the run was trained with mean=True"):
        forecast(folder, quantiles=True)


def test_a_checkpoint_of_before_there_were_times(tmp_path, monthly):
    content = load_checkpoint(monthly[0])
    for name in ("step", "time_column", "last_time"):
        del content["data"][name]
    content["config"]["period"] = 365
    save_checkpoint(tmp_path / "checkpoint.pt", content["kind"], content)
    old, new = forecast(tmp_path), forecast(monthly[0])
    assert list(old) == ["step", "x"]
    assert old["x"].tolist() == new["x"].tolist()
    # The file that is given has times.
    assert forecast(tmp_path, str(tmp_path / "t.csv")).equals(new)


def test_a_short_file_goes_on_as_the_data_of_the_run(tmp_path):
    days = pd.bdate_range("2020-01-01", periods=120)
    data = dated(tmp_path / "t.csv", days)
    folder = run(dataclasses.replace(FORECASTER, data=data, history=4), out=tmp_path / "r").folder
    week = dated(tmp_path / "w.csv", pd.date_range("2022-01-03", periods=5))
    assert forecast(folder, week)["when"].dt.day.tolist() == [10, 11, 12]
    hours = dated(tmp_path / "h.csv", pd.date_range("2022-01-03", periods=5, freq="h"))
    assert forecast(folder, hours)["when"].dt.hour.tolist() == [5, 6, 7]


def test_each_of_several_series_goes_on_after_its_own_last_row(tmp_path):
    parts = [
        pd.DataFrame({"t": pd.date_range("2020-01-01", periods=n), "x": np.arange(n) % 7.0})
        for n in (90, 120)
    ]
    table = pd.concat([part.assign(unit=f"u{k}") for k, part in enumerate(parts)])
    table.to_csv(tmp_path / "t.csv", index=False)
    config = dataclasses.replace(FORECASTER, data=str(tmp_path / "t.csv"), series_column="unit")
    folder = run(config, out=tmp_path / "r").folder
    for k, part in enumerate(parts):
        found = forecast(folder, series=f"u{k}")
        assert list(found) == ["t", "step", "unit", "x"]
        assert (found["t"] - part["t"].iloc[-1]).dt.days.tolist() == [1, 2, 3]
        assert set(found["unit"]) == {f"u{k}"}
    held = pd.read_csv(folder / "forecasts.csv")
    lines = table.reset_index(drop=True).loc[held["row"] - 1]
    assert (pd.to_datetime(held["t"]).to_numpy() == lines["t"].to_numpy()).all()


def test_scores_have_the_times_of_windows(tmp_path):
    times = pd.date_range("2020-01-01", periods=150)
    data = dated(tmp_path / "t.csv", times[::-1], y=np.arange(150) % 5)
    config = AnomalyConfig(**RUN, noise=2, seq_len=6, data=data, planted=1, search_steps=1)
    folder = run(config, out=tmp_path / "r", warn=lambda line: None).folder
    found = score(folder)
    assert list(found)[:4] == ["first_row", "last_row", "first_time", "last_time"]
    assert (found["first_time"] == times[:145]).all()
    assert ((found["last_time"] - found["first_time"]).dt.days == 5).all()
    assert found["first_row"].tolist() == list(range(150, 5, -1))


def test_samples_after_a_file_have_the_times_that_follow_it(tmp_path, capsys):
    data = dated(tmp_path / "t.csv", pd.date_range("2020-01-01", periods=100))
    folder = run(dataclasses.replace(CONDITIONAL, data=data), out=tmp_path / "r").folder
    after = dated(tmp_path / "a.csv", pd.date_range("2023-02-01", periods=27), name="day")
    out = tmp_path / "made.csv"
    options = ["-n=2", f"--after={after}", f"-o={out}", "--seq-len=9", "--device=cpu"]
    assert main(["generate", str(folder), *options]) == 0
    assert "2 series of 9 steps and 1 columns" in capsys.readouterr().out
    made = pd.read_csv(out)
    assert list(made) == ["sample", "step", "day", "x"]
    days = pd.date_range("2023-02-28", periods=9).strftime("%Y-%m-%d").tolist()
    assert made["day"].tolist() == days * 2
    assert main(["generate", str(folder), f"-o={out}", "--device=cpu"]) == 0
    assert pd.read_csv(out)["when"][0] == "2020-04-10"
    # Samples without a history have no date.
    assert list(pd.read_csv(folder / "samples.csv")) == ["sample", "step", "x"]


@pytest.mark.parametrize(
    "config",
    [TrainConfig(**RUN, noise=2), TextGANConfig(**RUN, noise=2, pretrain=1), CONDITIONAL],
)
def test_samples_of_any_length(tmp_path, config):
    folder = run(config, out=tmp_path / "r").folder
    for steps in (1, 100):
        made = generate(folder, 2, seq_len=steps, as_tensor=True)[0]
        assert made.shape[:2] == (2, steps)
    as_trained = generate(folder, 2, as_tensor=True)[0]
    same = generate(folder, 2, seq_len=config.seq_len, as_tensor=True)[0]
    assert torch.equal(as_trained, same)
    for bad in (0, -3, 2.5):
        with pytest.raises(InputError, match=f"seq_len: expected a whole number.* got {bad}"):
            generate(folder, 2, seq_len=bad)


def test_the_checkpoint_keeps_what_times_need(monthly):
    data = load_trained(monthly[0]).data
    assert data["time_column"] == "Month"
    assert data["last_time"] == pd.Timestamp("2018-04-30").value
    assert data["step"]["months"] == 1
    assert load_series().step.length == 86_400 * 10**9

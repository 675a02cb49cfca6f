"""Runs on tables of several series, with gaps, in another order, or that are short."""

import dataclasses
import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from tqdm import tqdm

from ganlstm_fast.cli import main
from ganlstm_fast.training import InputError, forecast, generate, score, train
from ganlstm_fast.training.checkpoint import load_checkpoint
from ganlstm_fast.training.configs import (
    AnomalyConfig,
    ConditionalConfig,
    ForecasterConfig,
    TrainConfig,
)
from ganlstm_fast.training.data import load_series
from ganlstm_fast.training.datasets import load_sequences
from ganlstm_fast.training.metrics import PROTOCOLS, Protocol
from ganlstm_fast.training.recipes.anomaly import AnomalyRecipe
from ganlstm_fast.training.recipes.conditional import ConditionalRecipe
from ganlstm_fast.training.recipes.forecaster import ForecasterRecipe
from ganlstm_fast.training.recipes.series import LSTMGANRecipe

RUN = {"steps": 2, "batch_size": 8, "checkpoint_every": 2, "metrics": "none", "device": "cpu"}
GAN = {**RUN, "hidden": 8, "noise": 4, "seq_len": 6}
SEVERAL = {"series_column": "machine"}
CONDITIONAL = ConditionalConfig(**GAN, **SEVERAL, condition="both", history=5)
FORECASTER = ForecasterConfig(**RUN, **SEVERAL, hidden=8, history=8, horizon=2)
ANOMALY = AnomalyConfig(**GAN, **SEVERAL, planted=1, search_steps=2)
RECIPES = [
    (LSTMGANRecipe, TrainConfig(**GAN, **SEVERAL)),
    (ConditionalRecipe, CONDITIONAL),
    (ForecasterRecipe, FORECASTER),
    (AnomalyRecipe, ANOMALY),
]


def table(rows, level=0.0):
    random = np.random.default_rng(rows)
    dates = pd.date_range("2020-01-01", periods=rows).strftime("%Y-%m-%d")
    x = level + np.sin(np.arange(rows) / 3) + 0.1 * random.normal(size=rows)
    return pd.DataFrame({"date": dates, "x": x, "y": random.normal(size=rows)})


@pytest.fixture
def machines(tmp_path):
    """Four series of different levels in one table, sorted by time."""
    parts = [table(n, 100 * k).assign(machine=f"m{k}") for k, n in enumerate((200, 120, 90, 60))]
    file = tmp_path / "machines.csv"
    pd.concat(parts).sort_values(["date", "machine"]).to_csv(file, index=False)
    return str(file)


def run(config, **options):
    return train(config, progress=partial(tqdm, disable=True), **options)


def of_one_series(recipe, samples):
    """Whether all rows of each sample are of one series; they are 100 apart in x."""
    span = 1 / (recipe.data["maximum"] - recipe.data["minimum"])[0]
    return bool((samples[..., 0].amax(1) - samples[..., 0].amin(1) < 5 * span).all())


@pytest.mark.parametrize(("recipe", "config"), RECIPES)
def test_no_window_runs_from_one_series_into_the_next(machines, recipe, config):
    found = recipe(dataclasses.replace(config, data=machines))
    if recipe is ForecasterRecipe:
        parts = [found.train, found.held, vars(found.test)]
        pairs = [torch.cat((part["history"], part["future"]), 1) for part in parts]
        # By series: 200, 120, 90 and 60 rows, of which a quarter is held out.
        assert len(found.test) == sum(n // 4 - 1 for n in (200, 120, 90, 60))
    elif recipe is ConditionalRecipe:
        pairs = [
            torch.cat((inputs["history"], samples), 1)
            for samples, inputs in (
                (found.samples, found.inputs),
                (found.test, found.test_inputs),
            )
        ]
    else:
        pairs = [found.samples]
    assert all(of_one_series(found, part) for part in pairs)
    assert found.found[0] == "4 series by machine"
    with pytest.raises(InputError, match=r"several series: .*give series_column='machine',"):
        recipe(dataclasses.replace(config, data=machines, series_column=None))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("recipe", "config"), RECIPES)
def test_runs_of_several_series_are_scored_and_resumed(
    tmp_path, monkeypatch, machines, recipe, config
):
    monkeypatch.setitem(PROTOCOLS, "quick", Protocol(5, 5))
    config = dataclasses.replace(config, data=machines, metrics="quick")
    whole = run(config, out=tmp_path / "whole")
    assert whole.metrics["data"] == ["4 series by machine", "rows every day"]
    run(dataclasses.replace(config, steps=1, metrics="none"), out=tmp_path / "parts")
    parts = run(None, resume=tmp_path / "parts", changes={"steps": 2})
    histories = [load_checkpoint(r.folder)["history"] for r in (whole, parts)]
    assert torch.equal(*histories)


@pytest.mark.usefixtures("undrawn")
def test_forecasts_of_one_of_several_series(tmp_path, machines):
    config = dataclasses.replace(FORECASTER, data=machines)
    folder = run(config, out=tmp_path / "r").folder
    with pytest.raises(InputError, match=r"series: expected one of .* m0, m1, m2, m3"):
        forecast(folder)
    made = forecast(folder, series="m2", as_tensor=True)[0]
    assert made.shape == (2, 2)
    one = tmp_path / "one.csv"
    table(90, 200).assign(machine="m2").to_csv(one, index=False)
    assert torch.equal(made, forecast(folder, str(one), as_tensor=True)[0])
    table(90, 200).to_csv(one, index=False)
    with pytest.raises(InputError, match="no column machine"):
        forecast(folder, str(one))
    written = pd.read_csv(folder / "forecasts.csv")
    lines = pd.read_csv(machines)
    assert (lines["machine"][written["row"] - 1].to_numpy() == written["machine"]).all()


@pytest.mark.usefixtures("undrawn")
def test_samples_that_follow_one_of_several_series(tmp_path, machines):
    folder = run(dataclasses.replace(CONDITIONAL, data=machines), out=tmp_path / "r").folder
    made = [generate(folder, 2, series=name, as_tensor=True)[0] for name in ("m0", "m3")]
    assert not torch.equal(*made)
    with pytest.raises(InputError, match="series: expected one of"):
        generate(folder, 2)


@pytest.mark.usefixtures("undrawn")
def test_scores_name_the_series_and_the_rows_of_the_file(tmp_path, machines):
    folder = run(dataclasses.replace(ANOMALY, data=machines), out=tmp_path / "r").folder
    found, lines = score(folder), pd.read_csv(machines)
    assert len(found) == sum(n - 5 for n in (200, 120, 90, 60))
    for end in ("first_row", "last_row"):
        assert (lines["machine"][found[end] - 1].to_numpy() == found["machine"]).all()
    days = [pd.to_datetime(lines["date"][found[c] - 1]).to_numpy() for c in found.columns[1:3]]
    assert (days[1] - days[0] == np.timedelta64(5, "D")).all()


@pytest.mark.usefixtures("undrawn")
def test_a_run_of_one_series_refuses_a_file_of_several(tmp_path, machines):
    file = tmp_path / "one.csv"
    table(90)[::-1].to_csv(file, index=False)
    config = dataclasses.replace(ANOMALY, data=str(file), series_column=None)
    # 45 rows have no room for every kind of anomaly, and a message says so.
    folder = run(config, out=tmp_path / "r", warn=lambda line: None).folder
    with pytest.raises(InputError, match="the run was trained on one"):
        score(folder, machines)
    # The file has its newest row first.
    assert score(folder)["first_row"].tolist() == list(range(90, 5, -1))


@pytest.mark.usefixtures("undrawn")
def test_nothing_follows_rows_with_a_gap_in_them(tmp_path):
    file = tmp_path / "gap.csv"
    table(120).drop(index=116).to_csv(file, index=False)
    config = dataclasses.replace(FORECASTER, data=str(file), series_column=None)
    folder = run(config, out=tmp_path / "r").folder
    with pytest.raises(InputError, match="fewer than the 8 that are needed without a gap"):
        forecast(folder)
    table(120).to_csv(file, index=False)
    assert forecast(folder, str(file), as_tensor=True)[0].shape == (2, 2)


@pytest.mark.parametrize(
    ("recipe", "config", "held_out"),
    [
        (AnomalyRecipe, AnomalyConfig(device="cpu"), 200),
        (ForecasterRecipe, ForecasterConfig(device="cpu"), 100),
        (ConditionalRecipe, ConditionalConfig(device="cpu"), 100),
    ],
)
def test_the_default_of_held_out_adapts_to_the_file(tmp_path, recipe, config, held_out):
    file = tmp_path / "t.csv"
    table(400).to_csv(file, index=False)
    found = recipe(dataclasses.replace(config, data=str(file)))
    assert f"the last {held_out} rows are held out" in found.describe()
    bundled = recipe(config)
    explicit = recipe(dataclasses.replace(config, held_out={200: 730}.get(held_out, 365)))
    assert bundled.describe() == explicit.describe()


@pytest.mark.parametrize(
    ("recipe", "config", "message"),
    [
        (AnomalyRecipe, AnomalyConfig(held_out=730), "held_out=730 seq_len=24; held_out=200"),
        (
            ForecasterRecipe,
            ForecasterConfig(history=300),
            "history=300 horizon=1; held_out=80 history=126 ",
        ),
        (
            ForecasterRecipe,
            ForecasterConfig(held_out=365),
            "held_out=365 .*; held_out=133 works",
        ),
        (ConditionalRecipe, ConditionalConfig(held_out=398), "seq_len=7; held_out=200 works"),
    ],
)
def test_what_leaves_no_rows_is_named_with_a_value_that_works(tmp_path, recipe, config, message):
    file = tmp_path / "t.csv"
    table(400).to_csv(file, index=False)
    config = dataclasses.replace(config, data=str(file), device="cpu")
    with pytest.raises(InputError, match=message) as caught:
        recipe(config)
    words = str(caught.value).split("; ")[1].removesuffix(" works").split()
    works = {name: int(value) for name, value in (word.split("=") for word in words)}
    recipe(dataclasses.replace(config, **works))


def test_the_first_line_and_the_summary_say_how_the_file_was_read(tmp_path, capsys):
    file = tmp_path / "t.csv"
    rows = "".join(
        f"{day:%d.%m.%Y};{k % 7},5;n\n"
        for k, day in reversed(list(enumerate(pd.date_range("2020-01-20", periods=40))))
    )
    file.write_text("Tag;x;note\n" + rows)
    options = ["--steps=1", "--hidden=4", "--noise=2", "--seq-len=6", "--metrics=none"]
    out = tmp_path / "r"
    assert main(["train", f"--data={file}", f"--out={out}", *options, "--device=cpu"]) == 0
    said = (
        "semicolons; decimal commas; sorted by Tag, rows come newest first; rows every "
        "day; left out: note (text such as 'n')"
    )
    assert said in capsys.readouterr().out.splitlines()[0]
    assert "; ".join(json.loads((out / "metrics.json").read_text())["data"]) == said
    assert "; ".join(load_checkpoint(out)["data"]["notes"]) == said
    assert main(["report", str(out), "--quiet", "--device=cpu"]) == 0
    assert "semicolons; decimal commas; " in (out / "report.html").read_text()


def test_the_bundled_data_is_what_runs_were_trained_on_before():
    assert load_series().fingerprint == (
        "e0577eccaa5c956df01e730d74949af9c2b730d7f9c273bfb1ee2e346823caa9"
    )


def test_sequences_are_sorted_by_time_and_lose_the_numbers_of_their_steps(tmp_path):
    parts = [
        table(8).assign(series=name, label=label, step=range(8))
        for name, label in (("b", "up"), ("a", "down"))
    ]
    file = tmp_path / "t.csv"
    pd.concat(parts)[::-1].to_csv(file, index=False)
    found = load_sequences(file)
    assert found.names == ("a", "b")
    assert found.columns == ("x", "y")
    assert found.values[0, :, 0].tolist() == table(8)["x"].tolist()
    assert any("step (counts" in note for note in found.notes)

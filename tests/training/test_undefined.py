"""Data for which some scores have no value: the run succeeds, says why, and keeps the others."""

import dataclasses
import io
import json
import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from tqdm import tqdm

from ganlstm_fast import cli
from ganlstm_fast.training import forecast, generate, load_trained, train
from ganlstm_fast.training.configs import (
    AnomalyConfig,
    ClassifierConfig,
    ConditionalConfig,
    ForecasterConfig,
    MLPGANConfig,
    TrainConfig,
)
from ganlstm_fast.training.data import MinMaxScaler
from ganlstm_fast.training.errors import InputError, UndefinedScore
from ganlstm_fast.training.meaning import doubts, meaning_of, meanings
from ganlstm_fast.training.metrics import PROTOCOLS, Protocol
from ganlstm_fast.training.metrics.generated_texts import jensen_shannon
from ganlstm_fast.training.outputs import write_json, write_series, write_table
from ganlstm_fast.training.overlays import plot_overlays
from ganlstm_fast.training.plots import plot_samples
from ganlstm_fast.training.recipes.classifier import ClassifierRecipe
from ganlstm_fast.training.report import write_report
from ganlstm_fast.training.undefined import (
    Undefined,
    defined,
    defined_all,
    defined_for,
    for_json,
    undefined_lines,
)

RUN = {"steps": 2, "batch_size": 8, "checkpoint_every": 2, "metrics": "quick", "device": "cpu"}
LSTM = {"hidden": 4, "noise": 2}
TABLES = {
    "lstm-gan": TrainConfig(**RUN, **LSTM, seq_len=6),
    "conditional-lstm-gan": ConditionalConfig(
        **RUN, **LSTM, seq_len=6, condition="both", history=4, held_out=60
    ),
    "anomaly": AnomalyConfig(**RUN, **LSTM, seq_len=6, held_out=200, planted=1, search_steps=2),
    "lstm-forecaster": ForecasterConfig(**RUN, hidden=4, history=10, held_out=60, period=30),
}
ROWS = 400


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "quick", Protocol(2, 2))


def run(config, **options):
    return train(config, progress=partial(tqdm, disable=True), **options)


def table(file, **columns):
    """A file of ``ROWS`` days."""
    dates = pd.date_range("2019-01-01", periods=ROWS)
    pd.DataFrame({"date": dates, **columns}).to_csv(file, index=False)
    return str(file)


def strict(folder):
    """metrics.json, which has to be JSON to the letter."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads((folder / "metrics.json").read_text(), parse_constant=refuse)


def wave():
    return np.sin(np.arange(ROWS) / 5)


def test_no_error_but_the_declared_one_becomes_a_reason():
    def raises(error):
        raise error

    assert defined(lambda: 1.5) == 1.5
    assert defined(lambda: raises(UndefinedScore("why"))) == Undefined("why")
    assert defined_for({"a": 1, "b": 0}, lambda k: k or raises(UndefinedScore("zero"))) == {
        "a": 1,
        "b": Undefined("zero"),
    }
    assert defined_all(("x", "y"), lambda: raises(UndefinedScore("both"))) == {
        "x": Undefined("both"),
        "y": Undefined("both"),
    }
    for error in (ValueError, InputError, ZeroDivisionError, RuntimeError):
        with pytest.raises(error):
            defined(lambda error=error: raises(error("a mistake")))


def test_what_has_no_value_is_null_with_its_reason(tmp_path):
    scores = {
        "a": 1.0,
        "b": {"generated": Undefined("too few"), "real": 0.5, "of_folds": [0.5, math.nan]},
        "c": Undefined("too few"),
        "d": math.inf,
        "told": {"a": "one"},
    }
    found = for_json(scores)
    assert found["a"] == 1.0
    assert found["b"] == {"generated": None, "real": 0.5, "of_folds": [0.5, None]}
    assert found["c"] is None
    assert found["d"] is None
    assert found["undefined"] == {
        "b.generated": "too few",
        "b.of_folds.1": "it came out as nan, which is not a finite number",
        "c": "too few",
        "d": "it came out as inf, which is not a finite number",
    }
    assert undefined_lines(found)[0] == "no b (generated), c: too few"
    write_json(tmp_path / "m.json", found)
    assert json.loads((tmp_path / "m.json").read_text()) == found
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "n.json", {"a": math.nan})
    assert not (tmp_path / "n.json").exists()
    assert for_json({"a": 1}) == {"a": 1}
    assert undefined_lines({"a": 1}) == []


COUNTS = (np.arange(ROWS) % 50 == 7).astype(int)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_run_of_nearly_equal_rows_ends_with_its_scores(tmp_path, name):
    data = table(tmp_path / "t.csv", x=COUNTS)
    result = run(dataclasses.replace(TABLES[name], data=data), out=tmp_path / "r", warn=str)
    metrics = strict(result.folder)
    assert metrics == result.metrics
    told = {path.split(".")[0] for path in metrics.get("undefined", {})}
    if name == "lstm-forecaster":
        assert not told
        assert metrics["columns"]["x"]["mae"]["forecast"] >= 0
        return
    assert told == ({"area_under_roc"} if name == "anomaly" else set())
    for score in ("marginal_wasserstein", "mmd_squared", "diversity", "autocorrelation_error"):
        assert metrics[score]["generated"] is not None


@pytest.mark.parametrize("name", sorted(TABLES))
def test_data_of_constant_columns_alone_is_refused(tmp_path, name):
    data = table(tmp_path / "t.csv", x=np.full(ROWS, 5), y=np.full(ROWS, 0.25))
    message = r"t has nothing to learn: columns x \(5\), y \(0.25\) are the same in every row;"
    with pytest.raises(InputError, match=message):
        run(dataclasses.replace(TABLES[name], data=data), out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", ["lstm-gan", "conditional-lstm-gan"])
def test_generate_gives_a_constant_column_as_it_is(tmp_path, name):
    data = table(tmp_path / "t.csv", x=wave(), c=np.full(ROWS, 5), big=np.full(ROWS, 12345678.5))
    config = dataclasses.replace(TABLES[name], data=data, metrics="none")
    lines = []
    folder = run(config, out=tmp_path / "r", announce=lines.append).folder
    assert "columns c (5), big (1.23457e+07) are the same in every row: left out" in lines[0]
    assert load_trained(folder).data["learnt"] == ["x"]
    made, columns = generate(folder, 3, as_tensor=True)
    assert columns == ["x", "c", "big"]
    assert (made[..., 1] == 5).all()
    assert (made[..., 2] == 12345678.5).all()
    assert made[..., 0].std() > 0
    written = pd.read_csv(folder / "samples.csv")
    assert set(written["c"]) == {5}
    assert set(written["big"]) == {12345678.5}


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_has_learnt_constant_columns_is_used_and_not_resumed(tmp_path, monkeypatch):
    data = table(tmp_path / "t.csv", x=wave(), c=np.full(ROWS, 5))
    config = dataclasses.replace(TABLES["lstm-gan"], data=data, metrics="none")
    fit = MinMaxScaler.fit
    with monkeypatch.context() as before:
        every = torch.ones(2, dtype=torch.bool)
        before.setattr(MinMaxScaler, "fit", lambda v: dataclasses.replace(fit(v), learnt=every))
        folder = run(config, out=tmp_path / "r").folder
    assert (generate(folder, 3, as_tensor=True)[0][..., 1] == 5).all()
    with pytest.raises(InputError, match="learnt constant columns too"):
        run(None, resume=folder)
    assert "learnt constant columns too" in write_report(folder, device="cpu").read_text()


@pytest.mark.usefixtures("undrawn")
def test_a_column_that_changes_only_after_training_is_forecast_as_it_was_and_told(tmp_path):
    late = np.where(np.arange(ROWS) < ROWS - 50, 7.0, np.arange(ROWS))
    data, told = table(tmp_path / "t.csv", late=late, x=wave(), c=np.full(ROWS, 5)), []
    config = dataclasses.replace(TABLES["lstm-forecaster"], data=data)
    result = run(config, out=tmp_path / "r", warn=told.append)
    lines = [line for line in told if "rows trained on" in line]
    assert len(lines) == 1
    assert lines[0].startswith("column late is 7 in all rows trained on and changes after them")
    made, columns = forecast(result.folder, as_tensor=True)
    assert dict(zip(columns[::2], made[0, ::2].tolist(), strict=True)) == {"late": 7, "c": 5}
    said = "column c is 5 in every row: left out of training"
    assert {said, said.replace("c is 5 in every row", "late is 7 in every row trained on")} <= set(
        result.metrics["data"]
    )
    # The error is that of what is forecast, and the column that never changes has none.
    assert result.metrics["columns"]["late"]["mae"]["forecast"] > 300
    assert set(result.metrics["columns"]) == {"late", "x"}
    assert "undefined" not in result.metrics


@pytest.mark.usefixtures("undrawn")
def test_what_cannot_be_planted_is_told_and_the_windows_are_scored(tmp_path):
    told = []
    data = table(tmp_path / "t.csv", x=wave())
    config = dataclasses.replace(TABLES["anomaly"], data=data)
    result = run(config, out=tmp_path / "one", warn=told.append)
    assert "of the kind swapped could be planted to test with: such an anomaly takes 2" in told[0]
    for areas in result.metrics["area_under_roc"].values():
        assert areas.pop("swapped") is None
        assert set(areas) == {"all", "flat", "level-shift", "spike"}
        assert all(0 <= area <= 1 for area in areas.values())
    assert "total.swapped" in str(result.metrics["undefined"].keys())

    x = np.where(np.arange(ROWS) < ROWS - 200, wave(), 0.5)
    data = table(tmp_path / "c.csv", x=x, y=2 * x)
    config = dataclasses.replace(config, data=data)
    result = run(config, out=tmp_path / "none", warn=told.append)
    reason = "no anomaly could be planted: no column changes its value in the 200 rows"
    parts = {"total", "critic", "reconstruction"}
    assert result.metrics["area_under_roc"] == dict.fromkeys(parts)
    assert {result.metrics["undefined"][f"area_under_roc.{part}"] for part in parts} == {reason}
    assert len(pd.read_csv(result.folder / "scores.csv")) == 195
    assert "area under the ROC curve, total" not in result.metrics["told"]


def equal_windows(file):
    """Series of one window each, all windows equal."""
    step = np.arange(ROWS) % 6
    data = table(file, s=np.arange(ROWS) // 6, x=step**2)
    return dataclasses.replace(TABLES["lstm-gan"], data=data, series_column="s")


def test_the_summary_and_the_report_tell_what_has_no_value(tmp_path, capsys):
    result = run(equal_windows(tmp_path / "t.csv"), out=tmp_path / "r")
    cli._print_scores(result.metrics)
    printed = capsys.readouterr()
    line = "no diversity (generated, real, noise): all 33 real samples are equal"
    assert line in printed.err
    assert "marginal_wasserstein" in printed.out
    page = write_report(result.folder, device="cpu").read_text()
    assert line[1:] in page
    assert "Not drawn: all 66 real samples are equal" in page


def test_pictures_of_a_generator_that_diverged(tmp_path):
    real = torch.rand(9, 4, 2)
    some = real.clone()
    some[3:] = torch.nan
    for k, made in enumerate((some, torch.full_like(real, torch.inf))):
        plot_samples(tmp_path / f"{k}.png", real, made, ("a", "b"))
        assert (tmp_path / f"{k}.png").stat().st_size > 0
        with pytest.raises(UndefinedScore, match="generated: expected finite values"):
            plot_overlays(real, made)


@pytest.mark.usefixtures("undrawn")
def test_patience_without_anything_to_watch_trains_to_the_end(tmp_path):
    told = []
    config = equal_windows(tmp_path / "t.csv")
    config = dataclasses.replace(config, metrics="none", steps=8, patience=1)
    result = run(config, out=tmp_path / "r", warn=told.append)
    assert result.step == 8
    assert "best" not in result.metrics
    assert len(told) == 1
    assert told[0].startswith("step 2: patience has nothing to go by: all 66 samples are equal")


def sequences(file, count):
    rows = [(f"s{k}", "ab"[k % 2], k % 2 + 0.1 * t) for k in range(count) for t in range(4)]
    pd.DataFrame(rows, columns=["series", "label", "x"]).to_csv(file, index=False)
    return ClassifierConfig(**RUN | {"metrics": "none"}, data=str(file), hidden=4)


@pytest.mark.usefixtures("undrawn")
def test_a_classifier_of_few_sequences_or_that_diverged(tmp_path, monkeypatch):
    told = []
    config = dataclasses.replace(sequences(tmp_path / "s.csv", 5 + 1), patience=1)
    # Of 3 of each class none is held out to test: 5 of one are needed.
    with pytest.raises(InputError, match="5 sequences or more of a class"):
        run(config, out=tmp_path / "few")
    rows = pd.read_csv(tmp_path / "s.csv").assign(label="a")
    rows.loc[rows["series"] == "s5", "label"] = "b"
    rows.to_csv(tmp_path / "s.csv", index=False)
    result = run(config, out=tmp_path / "r", warn=told.append)
    assert "patience has nothing to go by: there are too few samples" in told[0]
    assert 0 <= result.metrics["accuracy"] <= 1

    parts = ClassifierRecipe.setup

    def spoilt(self, fabric):
        parts(self, fabric)
        self.raw.predict_proba = lambda inputs, **_: torch.full((len(inputs), 2), torch.nan)

    monkeypatch.setattr(ClassifierRecipe, "setup", spoilt)
    metrics = run(config, out=tmp_path / "nan", warn=told.append).metrics
    assert metrics["accuracy"] is None
    assert "finite" in metrics["undefined"]["cross_entropy"]
    assert strict(tmp_path / "nan")["count"] == 1


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("folders", "pixels", "without"),
    [
        ("ab", 4, {"inception_score", "class_entropy", "frechet_distance"}),
        ("a" * 3, 3, {"mmd_squared", "diversity"}),
        ("a" * 8, 1, {"mmd_squared", "diversity"}),
        ("a" * 8, 8, set()),
    ],
    ids=["none held out", "too few", "all equal", "enough"],
)
def test_folders_of_few_or_equal_images(tmp_path, folders, pixels, without):
    from PIL import Image

    for k, folder in enumerate(folders):
        (tmp_path / "photos" / folder).mkdir(parents=True, exist_ok=True)
        # ``pixels`` different images.
        grey = np.full((9, 9, 3), 10 * (k % pixels), dtype=np.uint8)
        Image.fromarray(grey).save(tmp_path / "photos" / folder / f"{k}.png")
    config = MLPGANConfig(
        **RUN, data=str(tmp_path / "photos"), channels=3, hidden=(8,), size=8, noise=4
    )
    result = run(config, out=tmp_path / "r")
    metrics = strict(result.folder)
    assert {path.split(".")[0] for path in metrics.get("undefined", {})} == without


def test_groups_of_symbols():
    a = torch.tensor([[0, 1, 2, 3]])
    assert jensen_shannon(a, a.flip(1), 1, 4) == 0
    assert jensen_shannon(a, a + 4, 2, 8) == pytest.approx(1)
    # Each text has two groups, and they share one.
    b = torch.tensor([[0, 1], [5, 6]])
    assert jensen_shannon(torch.tensor([[0, 1], [2, 3]]), b, 2, 8) == pytest.approx(0.5)
    # As many symbols as Chinese has: 10^14 possible groups, of which four are there.
    assert jensen_shannon(a, a + 50_000, 3, 60_000) == pytest.approx(1)
    with pytest.raises(UndefinedScore, match="1 sequences of 4 symbols have no groups of 5"):
        jensen_shannon(a, a, 5, 4)


def test_tables_keep_what_tells_their_numbers_apart():
    made = torch.zeros(2, 2, 5, dtype=torch.float64)
    made[..., 0] = 5
    made[..., 1] = 1234567.25
    made[..., 2] = 1 / 3
    made[..., 3] = 1.7e9 + torch.arange(4.0, dtype=torch.float64).view(2, 2)
    made[..., 4] = torch.tensor([[0.123456789, 1e-7], [math.nan, 33.3333333]])
    file = io.StringIO()
    write_series(file, made, list("abcde"))
    lines = file.getvalue().splitlines()
    assert lines[1] == "1,1,5,1234567.25,0.3333333333333333,1700000000,0.123457"
    assert lines[2] == "1,2,5,1234567.25,0.3333333333333333,1700000001,1e-07"
    assert lines[3] == "2,1,5,1234567.25,0.3333333333333333,1700000002,"
    assert lines[4] == "2,2,5,1234567.25,0.3333333333333333,1700000003,33.3333"
    one = io.StringIO()
    write_table(one, pd.DataFrame({"x": [-0.8549784433965121], "y": [12345678.4321], "n": [3]}))
    assert one.getvalue() == "x,y,n\n-0.854978,12345678.4321,3\n"
    none = io.StringIO()
    write_table(none, pd.DataFrame({"x": np.zeros(0), "y": np.zeros(0)}))
    assert none.getvalue() == "x,y\n"


@pytest.mark.parametrize(
    ("noise", "real", "is_told"), [(0.5, 0.01, False), (0.2, 0.01, True), (None, 0.1, False)]
)
def test_a_judge_that_cannot_tell_noise_from_real_data_is_told(noise, real, is_told):
    said = doubts({"discriminative_score": {"noise": {"score": noise}, "real": real}})
    assert len(said) == is_told
    if is_told:
        assert said[0].startswith("noise has a discriminative score of 0.20, and real data 0.01:")


@pytest.mark.parametrize("metrics", [{}, {"discriminative_score": None}])
def test_without_a_judge_there_is_nothing_to_doubt(metrics):
    assert doubts(metrics) == []


def test_meanings_are_of_whole_names():
    assert meaning_of("slant_agreement").startswith("correlation of the slant that is measured")
    assert meaning_of("accuracy") != meaning_of("accuracy_of_symbol_frequencies")
    assert meaning_of("inaccuracy") is None
    assert list(meanings({"accuracy": 0.5, "count": 3})) == ["accuracy"]

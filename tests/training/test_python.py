"""Use from the Python prompt: tables in memory, examples, reprs and messages."""

import dataclasses
import doctest
import pydoc
import sys
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from tqdm import tqdm

import ganlstm_fast.training as training
from ganlstm_fast.cli import main
from ganlstm_fast.training import (
    InputError,
    TrainConfig,
    classify,
    evaluate_run,
    forecast,
    generate,
    load_trained,
    score,
)
from ganlstm_fast.training.checkpoint import load_checkpoint
from ganlstm_fast.training.configs import (
    MODELS,
    AnomalyConfig,
    ClassifierConfig,
    ForecasterConfig,
    SequenceToSequenceConfig,
    TextClassifierConfig,
)
from ganlstm_fast.training.data import load_series
from ganlstm_fast.training.errors import Line
from ganlstm_fast.training.fabric import OneProcess
from ganlstm_fast.training.state import _launch

RUN = {"steps": 2, "batch_size": 8, "metrics": "none", "device": "cpu"}
GAN = TrainConfig(**RUN, hidden=4, noise=2, seq_len=6)

train = partial(training.train, progress=partial(tqdm, disable=True))


@pytest.fixture(autouse=True)
def unwritten(undrawn, tmp_path, monkeypatch):
    """Pictures are empty, and what an example writes is not kept."""
    monkeypatch.chdir(tmp_path)


def frame(rows=60):
    days = pd.date_range("2024-01-01", periods=rows)
    values = np.random.default_rng(0).random((rows, 2))
    return pd.DataFrame(values, columns=["x", "y"], index=days)


def read(data, **options):
    found = load_series(data, **options)
    return found.columns, found.values.tolist(), found.times, found.fingerprint


def test_a_frame_is_read_as_the_file_that_is_written_of_it(tmp_path):
    table = frame()
    table.to_csv("t.csv", index_label="date")
    columns, values, times, fingerprint = read("t.csv")
    for same in (
        table,
        table.reset_index(names="day"),
        table.to_period("D"),
        table[::-1].astype({"x": "Float64"}),
        table.astype({"y": object}).assign(note="text"),
    ):
        found = read(same)
        assert found[:2] == (columns, values)
        assert (found[2] == times).all()
        assert found[3] == fingerprint
    assert load_series(table[::-1]).notes[0] == "sorted by date, rows come newest first"


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (pd.array([1, None, 3], dtype="Int64"), None),
        (pd.array([1, 2, 4], dtype="Int64"), [1, 2, 4]),
        (pd.Categorical([1.5, 2.5, 1.5]), [1.5, 2.5, 1.5]),
        (pd.Series(["1", "2", "4"], dtype="string"), [1, 2, 4]),
        (np.array([1, 2, 4], dtype=np.float16), [1, 2, 4]),
    ],
)
def test_numbers_however_pandas_holds_them(column, values):
    table = pd.DataFrame({"a": column, "b": [1.0, 0.0, 1.0]})
    if values is None:
        with pytest.raises(InputError, match=r"<DataFrame 3x2>: missing .* in a, row 1 from 0;"):
            load_series(table)
    else:
        assert load_series(table).values[:, 0].tolist() == values


def test_arrays_have_the_names_that_are_given():
    values = np.random.default_rng(0).random((12, 3))
    assert load_series(values).columns == ("x1", "x2", "x3")
    assert load_series(values, ["x3", "x1"]).values.tolist() == values[:, [2, 0]].tolist()
    named = load_series(torch.tensor(values).requires_grad_(), ["a", "b", "c"])
    assert (named.columns, named.values.tolist()) == (("a", "b", "c"), values.tolist())
    several = load_series(values.reshape(3, 4, 3), series_column="series")
    assert several.series == ("1", "2", "3")
    assert several.stretches.lengths.tolist() == [4, 4, 4]
    assert load_series(values[:, 0].astype(np.float32)).columns == ("x1",)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((2, 2, 2, 2)), r"data: expected an array \[rows\], .*shape \(2, 2, 2, 2\)"),
        (np.zeros((0, 2)), "<ndarray 0x2> has no rows"),
        (np.zeros((4, 2), complex), "column x1: expected real numbers, got complex ones"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "the name a stands twice"),
        (
            pd.DataFrame({"a": ["u", "v"]}),
            r"<DataFrame 2x1> has no column of numbers \(a: text such as 'u'\)$",
        ),
        ([[1.0]], r"data: expected a path, .* or a torch Tensor, got \[\[1.0\]\]"),
        (pd.DataFrame({"a": [1.0, "v", 2.0]}), r"2 numbers and 1 .* 'v' \(row 1 from 0\)"),
    ],
)
def test_tables_that_cannot_be_read(data, message):
    with pytest.raises(InputError, match=message):
        load_series(data)


def test_a_run_on_a_frame_goes_on_with_it_and_with_nothing_else():
    table = frame()
    whole = train(dataclasses.replace(GAN, data=table), out="whole")
    config = dataclasses.replace(GAN, data=table, steps=1)
    folder = train(config, out="parts").folder
    assert load_checkpoint(folder)["config"]["data"] == "<DataFrame 60x2>"
    lacks = r"trained on <DataFrame 60x2>, .*; give the same as data$"
    for use in (partial(train, resume=folder), partial(evaluate_run, folder)):
        with pytest.raises(InputError, match=lacks):
            use()
        with pytest.raises(InputError, match="<DataFrame 59x2> is not what this run was trained"):
            use(data=table[:-1])
    assert main(["report", folder.name, "--quiet", "--device=cpu"]) == 0
    assert "Without a comparison: the run was trained on" in (folder / "report.html").read_text()
    parts = train(resume=folder, changes={"data": table, "steps": 2})
    histories = [load_checkpoint(r.folder)["history"] for r in (whole, parts)]
    assert torch.equal(*histories)
    assert evaluate_run(folder, "none", "cpu", data=table)["steps"] == 2
    table.to_csv("t.csv", index_label="date")
    assert train(resume=folder, data="t.csv", changes={"steps": 3}).step == 3
    assert train(resume=folder, changes={"steps": 4}).step == 4


def test_a_command_says_how_to_give_what_a_checkpoint_lacks(capsys):
    folder = train(GAN, data=frame(), out="r").folder
    assert main(["train", "--resume", str(folder)]) == 2
    assert capsys.readouterr().err.endswith("; give the same as --data\n")


def test_windows_of_an_array_of_several_series_stay_in_one():
    values = np.random.default_rng(0).random((3, 20, 2)) + 10 * np.arange(3)[:, None, None]
    run = train(GAN, data=values, out="r")
    assert load_checkpoint(run.folder)["config"]["series_column"] == "series"
    assert run.metrics["data"][0] == "3 series by series"
    settings = ForecasterConfig(**RUN, hidden=4, history=5, horizon=2, held_out=5)
    folder = train(settings, data=torch.tensor(values), out="f").folder
    assert len(forecast(folder, series="2", device="cpu")) == 2


@pytest.mark.parametrize("difference", [0, 1])
def test_processes_that_made_different_tables_say_so(difference):
    class Two(OneProcess):
        world_size = 2

        def all_reduce(self, number, reduce_op):
            return number + difference

    recipe = SimpleNamespace(data={"fingerprint": load_series(frame()).fingerprint})
    raises = pytest.raises(InputError, match="data: the processes of the run have different")
    with raises if difference else nullcontext():
        _launch(Two(torch.device("cpu")), recipe)


def test_several_processes_need_a_script_to_run(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(InputError, match="devices=2: each process runs the script that trains"):
        train(dataclasses.replace(GAN, devices=2), data=frame())


def test_anomalies_of_a_frame_and_of_an_array_with_the_runs_columns():
    table = frame(90)
    config = AnomalyConfig(**vars(GAN) | {"data": table, "search_steps": 1, "planted": 1})
    folder = train(config, out="r", warn=lambda line: None).folder
    found = score(folder, table, device="cpu")
    assert found["first_time"][0] == table.index[0]
    untimed = score(folder, table.to_numpy(), device="cpu")
    assert untimed.equals(found.drop(columns=["first_time", "last_time"]))
    assert len(found) == 85
    with pytest.raises(InputError, match=r"expected 2 channels \(x, y\), got 3"):
        score(folder, np.zeros((9, 3)), device="cpu")
    with pytest.raises(InputError, match="give the same as data"):
        score(folder, device="cpu")


def test_classes_of_sequences_and_of_texts_in_frames():
    random = np.random.default_rng(0)
    steps = pd.DataFrame({"series": np.arange(40).repeat(5), "x": random.random(200)})
    steps["label"] = steps["series"].map({k: "ab"[k % 2] for k in range(40)})
    folder = train(ClassifierConfig(**RUN, hidden=4), data=steps, out="s").folder
    found = classify(folder, steps, device="cpu")
    assert len(found) == 40
    same = classify(folder, steps["x"].to_numpy().reshape(40, 5, 1), device="cpu")
    assert np.allclose(found["p_a"], same["p_a"])
    texts = pd.DataFrame({"text": ["good", "nice", "bad"] * 6, "label": [1, 1, 0] * 6})
    folder = train(TextClassifierConfig(**RUN, hidden=4), data=texts, out="t").folder
    assert classify(folder, texts, device="cpu")["text"].tolist() == texts["text"].tolist()
    pairs = pd.DataFrame({"source": [f"a{k}" for k in range(9)], "target": range(9)})
    run = train(SequenceToSequenceConfig(**RUN, hidden=4), data=pairs, out="p")
    assert run.folder.name == "p"
    with pytest.raises(InputError, match=r"<DataFrame 9x2> has no column text, label; it has"):
        train(TextClassifierConfig(**RUN), data=pairs, out="q")


@pytest.mark.parametrize("name", ["dcgan", "text-gan", "video-gan", "sound-gan", "cyclegan"])
def test_models_that_read_no_table_say_what_they_take(name):
    config = MODELS[name].config
    help = config.__dataclass_fields__["data"].metadata["help"]
    with pytest.raises(InputError) as error:
        config(data=frame())
    assert str(error.value) == f"data: expected a path ({help}), got <DataFrame 60x2>"


def test_examples_run():
    names = ["train", "generate", "forecast", "score", "classify"]
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    for part in (training, *(getattr(training, name) for name in names)):
        (example,) = finder.find(part, globs={})
        assert example.examples
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_help_of_settings_says_what_each_is(model):
    text = " ".join(pydoc.plain(pydoc.render_doc(model.config)).replace("|", " ").split())
    for field in dataclasses.fields(model.config):
        assert f"; default {field.default!r}" in text
        assert " ".join(field.metadata["help"].split()) in text
        rule = field.metadata["rule"]
        assert rule is None or f"; default {field.default!r}; {rule.words}" in text


def test_reprs():
    table = frame()
    assert repr(TrainConfig()) == "TrainConfig()"
    config = TrainConfig(data=table, seq_len=8, columns=["x"])
    assert repr(config) == "TrainConfig(data=<DataFrame 60x2>, columns=('x',), seq_len=8)"
    done = training.TrainResult("r", 3, None, {"mmd_squared": {"generated": 0.25, "real": 0.1}})
    assert repr(done) == "r: 3 steps\nmmd_squared 0.25"
    stopped = training.TrainResult("r", 3, 2, None)
    assert repr(stopped).startswith("r: 3 steps, stopped by SIGINT; go on with train(resume='r')\n")
    folder = train(GAN, data=table, out="r").folder
    first, second = repr(load_trained(folder)).splitlines()
    assert first == "lstm-gan of x, y: 2 of 2 steps, on cpu"
    assert second.startswith("TrainConfig(data='<DataFrame 60x2>', ")


def test_a_setting_that_is_not_there():
    with pytest.raises(TypeError, match=r"TrainConfig has no setting stepz; did you mean steps\?"):
        TrainConfig(stepz=3)
    folder = train(GAN, out="r").folder
    with pytest.raises(InputError, match="changes go with a run that is resumed"):
        train(GAN, changes={"steps": 1})
    with pytest.raises(InputError, match=r"stepz is not a setting of .*; did you mean steps\?"):
        train(resume=folder, changes={"stepz": 1})


@pytest.mark.parametrize(
    ("marked", "python", "command"),
    [
        ("`lr_g`: less", "lr_g: less", "--lr-g: less"),
        ("give `seq_len=4` or", "give seq_len=4 or", "give --seq-len 4 or"),
        ("`condition=month`", "condition='month'", "--condition month"),
        ("`feedback=False`", "feedback=False", "--no-feedback"),
        ("`resume=a b`", "resume='a b'", "--resume 'a b'"),
        ("`Not` one", "`Not` one", "`Not` one"),
    ],
)
def test_a_line_names_settings_for_python_and_for_the_command(marked, python, command):
    for line in (Line(marked), Line(Line(marked)), InputError(marked).args[0]):
        assert str(line) == python
        assert line.for_command() == command


def test_a_warning_names_settings_for_whoever_reads_it(monkeypatch, capsys):
    recipe = MODELS["lstm-gan"].load()
    describe = recipe.describe
    monkeypatch.setattr(
        recipe, "describe", lambda self: self.notes.append("a `lr_g`") or describe(self)
    )
    told = []
    train(GAN, out="r", warn=told.append)
    assert told == ["a lr_g"]
    options = [f"--{name.replace('_', '-')}={value}" for name, value in RUN.items()]
    assert main(["train", "--out=s", "--quiet", *options]) == 0
    assert capsys.readouterr().err == "ganlstm-fast: warning: a --lr-g\n"


def test_numbers_of_numpy_in_settings_are_kept_as_numbers():
    config = dataclasses.replace(GAN, steps=np.int64(2), lr_g=np.float64(1e-3))
    folder = train(config, out="r").folder
    assert load_trained(folder).config.steps == 2
    assert len(generate(folder, 2)) == 12

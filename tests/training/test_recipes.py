"""Every model: trained for a few steps, resumed, judged and used."""

import dataclasses
import json
import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from tqdm import tqdm

from ganlstm_fast.training import (
    MODELS,
    InputError,
    classify,
    forecast,
    generate,
    load_trained,
    score,
    train,
)
from ganlstm_fast.training.checkpoint import load_checkpoint
from ganlstm_fast.training.configs import (
    AnomalyConfig,
    ClassifierConfig,
    ConditionalConfig,
    CycleGANConfig,
    DCGANConfig,
    ForecasterConfig,
    MLPGANConfig,
    SequenceToSequenceConfig,
    SoundGANConfig,
    TextClassifierConfig,
    TextGANConfig,
    TextToImageConfig,
    TrainConfig,
    VideoGANConfig,
)
from ganlstm_fast.training.metrics import PROTOCOLS, Protocol, generated_texts
from ganlstm_fast.training.metrics.videos import ITERATIONS

RUN = {"steps": 4, "batch_size": 8, "checkpoint_every": 2, "metrics": "none", "device": "cpu"}
LSTM = {"hidden": 8, "noise": 4}
TINY = {
    "lstm-gan": TrainConfig(**RUN, **LSTM, seq_len=6),
    "conditional-lstm-gan": ConditionalConfig(**RUN, **LSTM, condition="both", history=5),
    "mlp-gan": MLPGANConfig(**RUN, hidden=(16,), size=8, noise=8),
    "dcgan": DCGANConfig(**RUN, width=4, noise=8),
    "text-to-image": TextToImageConfig(**RUN, width=4, noise=8, hidden=8, embedding=4),
    "text-gan": TextGANConfig(**RUN, **LSTM, seq_len=8, pretrain=3, warmup_d=0),
    # Fewer kept than two steps make, so that a resumed run has a full pool.
    "cyclegan": CycleGANConfig(**RUN, width=4, blocks=1, size=16, pool=12),
    "video-gan": VideoGANConfig(**RUN, **LSTM, width=4, frames=4),
    "sound-gan": SoundGANConfig(**RUN, **LSTM, seconds=0.128, window=256),
    "lstm-forecaster": ForecasterConfig(**RUN, hidden=8, history=20, horizon=2),
    "lstm-classifier": ClassifierConfig(**RUN, hidden=8, sequences="columns", dropout=0.1),
    "text-classifier": TextClassifierConfig(**RUN, hidden=8, dropout=0.0),
    "sequence-to-sequence": SequenceToSequenceConfig(**RUN, hidden=8, embedding=4, dropout=0.1),
    "anomaly": AnomalyConfig(**RUN, **LSTM, seq_len=6, held_out=300, planted=1, search_steps=2),
}
FILES = {
    "lstm-gan": {"samples.csv", "samples.png"},
    "conditional-lstm-gan": {"samples.csv", "samples.png"},
    "mlp-gan": {"samples.png"},
    "dcgan": {"samples.png"},
    "text-to-image": {"samples.png"},
    "cyclegan": {"translations.png"},
    "text-gan": {"samples.txt"},
    "video-gan": {"samples.gif", "samples.png"},
    "sound-gan": {"samples.png", "samples.wav"},
    "lstm-forecaster": {"forecasts.csv", "forecasts.png"},
    "lstm-classifier": {"confusion.png"},
    "text-classifier": {"confusion.png"},
    "sequence-to-sequence": {"attention.png", "translations.csv"},
    "anomaly": {"samples.csv", "samples.png", "scores.csv", "scores.png"},
}
GANS = sorted(name for name in TINY if "ema" in {f.name for f in dataclasses.fields(TINY[name])})


def run(config, **options):
    return train(config, progress=partial(tqdm, disable=True), **options)


def test_all_models_are_here():
    assert set(TINY) == set(MODELS) == set(FILES)
    assert all(type(config) is MODELS[name].config for name, config in TINY.items())


@pytest.mark.parametrize("name", sorted(TINY))
def test_trains_and_resumes(tmp_path, name, request):
    whole = run(TINY[name], out=tmp_path / "whole").folder
    request.getfixturevalue("undrawn")  # the pictures have been drawn
    run(dataclasses.replace(TINY[name], steps=2), out=tmp_path / "parts")
    parts = run(None, resume=tmp_path / "parts", changes={"steps": 4}).folder
    names = {file.name for file in whole.iterdir()}
    assert names == FILES[name] | {"checkpoint.pt", "losses.png", "metrics.json"}
    one, two = load_checkpoint(whole), load_checkpoint(parts)
    assert one["history"].isfinite().all()
    assert torch.equal(one["history"], two["history"])
    assert one["model"].keys() == two["model"].keys()
    assert all(torch.equal(value, two["model"][key]) for key, value in one["model"].items())
    assert not torch.equal(one["history"][0], one["history"][3])


def as_dict(value):
    return value if isinstance(value, dict) else {}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", sorted(TINY))
def test_is_judged(tmp_path, monkeypatch, name):
    monkeypatch.setitem(PROTOCOLS, "quick", Protocol(5, 5))
    monkeypatch.setitem(ITERATIONS, "quick", 5)
    monkeypatch.setitem(generated_texts.ITERATIONS, "quick", 2)
    config = dataclasses.replace(TINY[name], metrics="quick", steps=2)
    metrics = run(config, out=tmp_path / "r").metrics
    assert json.loads((tmp_path / "r" / "metrics.json").read_text()) == metrics
    expected = {
        "lstm-gan": {"discriminative_score", "predictive_score", "mmd_squared", "diversity"},
        "conditional-lstm-gan": {"discriminative_score", "condition_error"},
        "mlp-gan": {"frechet_distance", "class_entropy"},
        "dcgan": {"frechet_distance", "class_entropy"},
        "text-to-image": {"digit_agreement", "slant_agreement", "weight_agreement"},
        "text-gan": {"distance_of_2_grams", "known_words", "reverse_language_model"},
        "cyclegan": {"recognised_a_to_b", "style_b_to_a", "slant_a_to_b", "cycle_error_a"},
        "video-gan": {"speed_distance", "turn", "discriminative_score"},
        "sound-gan": {"in_tune", "notes_heard", "spectral_distance", "note_as_asked"},
        "lstm-forecaster": {"skill", "columns"},
        "lstm-classifier": {"accuracy", "cross_entropy", "confusion"},
        "text-classifier": {"accuracy", "accuracy_of_symbol_frequencies"},
        "sequence-to-sequence": {"exact_match", "right_symbols_of_nearest_text"},
        "anomaly": {"area_under_roc", "discriminative_score"},
    }
    assert expected[name] <= metrics.keys()
    kinds = {"generated", "real"}
    scores = {k for k, v in metrics.items() if isinstance(v, float) or kinds & set(as_dict(v))}
    assert scores <= metrics["meaning"].keys()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", GANS)
def test_generates(tmp_path, name):
    folder = run(dataclasses.replace(TINY[name], steps=1), out=tmp_path / "r").folder
    made, columns = generate(folder, 3, seed=1, as_tensor=True)
    assert len(made) == 3
    assert torch.equal(made, generate(folder, 3, seed=1, as_tensor=True)[0])
    assert not torch.equal(made, generate(folder, 3, seed=2, as_tensor=True)[0])
    plain = generate(folder, 3, seed=1)
    if columns:
        assert torch.equal(torch.tensor(plain[columns].to_numpy()).reshape(made.shape), made)
    elif name == "text-gan":
        assert list(map(len, plain)) == [made.shape[1]] * 3
        assert set("".join(plain)) <= set(load_checkpoint(folder)["data"]["symbols"])
    else:
        assert torch.equal(plain, made)
    assert columns == load_checkpoint(folder)["data"].get("columns", [])


@pytest.mark.usefixtures("undrawn")
def test_forecasts_are_those_of_the_latest_rows(tmp_path):
    folder = run(TINY["lstm-forecaster"], out=tmp_path / "r").folder
    made, columns = forecast(folder, as_tensor=True)
    assert made.shape == (2, 4)
    file = tmp_path / "rows.csv"
    weather = pd.read_csv("ganlstm_fast/training/seattle_weather.csv")
    weather[columns].tail(25).to_csv(file, index=False)
    assert torch.equal(made, forecast(folder, str(file), as_tensor=True)[0])
    weather[columns].tail(19).to_csv(file, index=False)
    with pytest.raises(InputError, match="19 rows; 20 are needed"):
        forecast(folder, str(file))


@pytest.mark.usefixtures("undrawn")
def test_quantiles_of_a_forecast(tmp_path):
    config = dataclasses.replace(TINY["lstm-forecaster"], metrics="full")
    assert "pinball_skill" in run(config, out=tmp_path / "quantiles").metrics
    mean = dataclasses.replace(config, mean=True)
    assert "pinball_skill" not in run(mean, out=tmp_path / "mean").metrics
    with pytest.raises(InputError, match="quantiles: "):
        dataclasses.replace(config, quantiles=(0.1, 0.9))


def _sequences(file, count=20, **columns):
    """Sequences that go up or down, with labels, in a file; those of other columns beside them."""
    random, rows = np.random.default_rng(0), []
    for k in range(count):
        for step in range(int(random.integers(4, 9))):
            sign = 1 if k % 2 else -1
            rows.append((f"s{k}", ("down", "up")[k % 2], sign * step + 0.1 * random.normal()))
    table = pd.DataFrame(rows, columns=["series", "label", "x"]).assign(**columns)
    table.to_csv(file, index=False)
    return table


@pytest.mark.usefixtures("undrawn")
def test_classes_of_a_file(tmp_path):
    file = tmp_path / "moves.csv"
    table = _sequences(file)
    config = ClassifierConfig(data=str(file), steps=60, hidden=8, batch_size=16)
    result = run(config, out=tmp_path / "r")
    assert result.metrics["accuracy"] == 1
    assert result.metrics["count"] == 4
    found = classify(result.folder)
    assert list(found.columns) == ["series", "class", "p_down", "p_up"]
    assert list(found["series"]) == [f"s{k}" for k in range(20)]
    assert list(found["class"]) == ["down", "up"] * 10
    new = tmp_path / "new.csv"
    table.drop(columns="label").iloc[::-1].iloc[-20:].to_csv(new, index=False)
    assert set(classify(result.folder, str(new))["series"]) <= set(found["series"])
    table.drop(columns="x").to_csv(new, index=False)
    with pytest.raises(InputError, match="has no column x"):
        classify(result.folder, str(new))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.assign(label="up"), "two classes or more, got up"),
        (lambda t: t[t["series"].isin([f"s{k}" for k in range(8)])], "5 sequences or more"),
        (lambda t: t.assign(label=["up", *t["label"][1:-1], "up"]), "s0 has several values of"),
        (lambda t: t.drop(columns="series"), "has no column series"),
        (lambda t: t.assign(series=[None, *t["series"][1:]]), "series is empty in line 2"),
        (lambda t: t.assign(x=[*t["x"][:-1], math.nan]), "missing or infinite values in x, line"),
    ],
)
def test_files_of_sequences_that_are_wrong(tmp_path, spoil, message):
    file = tmp_path / "moves.csv"
    spoil(_sequences(file)).to_csv(file, index=False)
    with pytest.raises(InputError, match=message):
        run(ClassifierConfig(data=str(file), steps=1), out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.usefixtures("undrawn")
def test_digits_classify_no_file(tmp_path):
    folder = run(TINY["lstm-classifier"], out=tmp_path / "r").folder
    with pytest.raises(InputError, match="a run of the digits"):
        classify(folder)


@pytest.mark.usefixtures("undrawn")
def test_series_under_a_condition(tmp_path):
    folder = run(TINY["conditional-lstm-gan"], out=tmp_path / "r").folder
    options = {"seed": 3, "as_tensor": True}
    in_turn, columns = generate(folder, 12, **options)
    july = generate(folder, 12, month=7, **options)[0]
    assert torch.equal(july[6], in_turn[6])
    assert not torch.equal(july[0], in_turn[0])
    file = tmp_path / "rows.csv"
    weather = pd.read_csv("ganlstm_fast/training/seattle_weather.csv")[columns]
    weather.to_csv(file, index=False)
    for rows in (str(file), weather, weather.to_numpy()):
        assert torch.equal(in_turn, generate(folder, 12, after=rows, **options)[0])
    weather.head(700).to_csv(file, index=False)
    assert not torch.equal(in_turn, generate(folder, 12, after=str(file), **options)[0])
    weather.head(4).to_csv(file, index=False)
    with pytest.raises(InputError, match="4 rows; 5 are needed"):
        generate(folder, 1, after=str(file))
    with pytest.raises(InputError, match="month: expected 1 to 12, got 13"):
        generate(folder, 1, month=13)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("condition", "given"), [("history", {"month": 1}), ("month", {"after": "rows.csv"})]
)
def test_a_condition_that_was_not_trained_on(tmp_path, condition, given):
    config = dataclasses.replace(TINY["conditional-lstm-gan"], condition=condition)
    folder = run(config, out=tmp_path / "r").folder
    with pytest.raises(InputError, match=f"trained with condition='{condition}'"):
        generate(folder, 1, **given)


@pytest.mark.usefixtures("undrawn")
def test_other_models_are_given_no_condition(tmp_path):
    folder = run(TINY["mlp-gan"], out=tmp_path / "r").folder
    with pytest.raises(InputError, match="month: a run of mlp-gan does not take month"):
        generate(folder, 1, month=1)
    conditional = run(
        dataclasses.replace(TINY["conditional-lstm-gan"], steps=1), out=tmp_path / "c"
    )
    with pytest.raises(InputError, match=r"does not take mnth; did you mean month\?"):
        generate(conditional.folder, 1, mnth=1)


@pytest.mark.usefixtures("undrawn")
def test_scores_are_of_each_window(tmp_path):
    folder = run(TINY["anomaly"], out=tmp_path / "r").folder
    file = tmp_path / "rows.csv"
    weather = pd.read_csv("ganlstm_fast/training/seattle_weather.csv").tail(20)
    weather.iloc[10, weather.columns.get_loc("temp_max")] = 400.0
    weather.to_csv(file, index=False)
    table = score(folder, str(file))
    assert list(table["first_row"]) == list(range(1, 16))
    strange = (table["first_row"] <= 11) & (table["last_row"] >= 11)
    assert table["total"][strange].min() > table["total"][~strange].max()
    with pytest.raises(InputError, match="of lstm-forecaster can"):
        forecast(folder)


@pytest.mark.usefixtures("undrawn")
def test_images_of_a_folder(tmp_path):
    from PIL import Image

    folder = tmp_path / "photos"
    random = np.random.default_rng(0)
    for k in range(12):
        (folder / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 255, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "ab"[k % 2] / f"{k}.png")
    (folder / "a" / "bad.png").write_text("no image")
    told = []
    config = dataclasses.replace(TINY["mlp-gan"], data=str(folder), channels=3)
    result = run(config, out=tmp_path / "r", warn=told.append)
    assert generate(result.folder, 2).shape == (2, 3, 8, 8)
    assert len(told) == 1
    assert "skipped 1 files" in told[0]
    assert "bad.png" in told[0]


@pytest.mark.usefixtures("undrawn")
def test_patience_stops_and_keeps_the_best(tmp_path, monkeypatch):
    values = iter([3.0, 1.0, 2.0, 2.0, 0.5])
    recipe = MODELS["lstm-forecaster"].load()
    monkeypatch.setattr(recipe, "watched", lambda self: next(values))
    config = dataclasses.replace(
        TINY["lstm-forecaster"], steps=50, checkpoint_every=2, patience=2, lr=0.1
    )
    result = run(config, out=tmp_path / "r")
    assert result.step == 8
    assert result.metrics["best"] == {"step": 4, "value": 1.0}
    content = load_checkpoint(result.folder)
    early = run(dataclasses.replace(config, steps=4, patience=0), out=tmp_path / "early").folder
    model = load_checkpoint(early)["model"]
    for key, value in content["best"]["weights"].items():
        assert torch.equal(value, model[key])
        assert not torch.equal(value, content["model"][key])
        assert torch.equal(value, load_trained(result.folder).model.state_dict()[key])


@pytest.mark.usefixtures("undrawn")
def test_sines(tmp_path):
    config = dataclasses.replace(TINY["lstm-gan"], data="sines", batch_size=4, steps=1)
    folder = run(config, out=tmp_path / "r").folder
    assert generate(folder, 2).shape == (2 * 6, 2 + 5)

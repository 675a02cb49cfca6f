"""Runs: what they write, that they resume exactly, and that nothing spoilt is kept."""

import dataclasses
import json
import os
import signal
from functools import partial

import pandas as pd
import pytest
import torch
from tqdm import tqdm

from ganlstm_fast.losses import LOSSES, gan_loss
from ganlstm_fast.models import LSTMGAN
from ganlstm_fast.training import InputError, TrainConfig, TrainingError, generate, train
from ganlstm_fast.training import outputs as outputs_module
from ganlstm_fast.training.checkpoint import atomic_write, load_checkpoint, save_checkpoint
from ganlstm_fast.training.metrics import Protocol
from ganlstm_fast.training.recipes import gan as gan_module
from ganlstm_fast.training.recipes import series as series_module
from ganlstm_fast.training.recipes.series import LSTMGANRecipe

TINY = TrainConfig(
    steps=6,
    hidden=8,
    noise=4,
    batch_size=8,
    seq_len=6,
    checkpoint_every=2,
    metrics="none",
    device="cpu",
)
quiet = partial(tqdm, disable=True)


@pytest.fixture(autouse=True)
def no_pictures(request, monkeypatch):
    """Pictures take most of the time of a tiny run."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(outputs_module, "plot_losses", lambda *arguments: None)
        monkeypatch.setattr(series_module, "plot_samples", lambda *arguments: None)


@pytest.fixture
def pictures():
    """Overrides the fixture above, for a run that draws pictures."""


def run(config, **options):
    return train(config, progress=quiet, **options)


def history(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["history"]


def same_weights(a, b):
    a, b = (torch.load(f / "checkpoint.pt", weights_only=True) for f in (a, b))
    for part in ("model", "average"):
        for name, value in a[part].items():
            assert torch.equal(value, b[part][name]), name
    assert torch.equal(a["random"], b["random"])


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"wgan-gp"}))
@pytest.mark.parametrize("penalty", [None, 0.0])
def test_other_losses(tmp_path, loss, penalty):
    config = dataclasses.replace(TINY, loss=loss, penalty=penalty)
    folder = run(config, out=tmp_path / "r").folder
    assert history(folder).isfinite().all()
    assert bool((history(folder)[:, 3] > 0).all()) == (penalty is None)


@pytest.mark.parametrize("loss", ["relativistic", "relativistic-average-hinge"])
def test_the_generators_step_compares_with_real_windows(tmp_path, monkeypatch, loss):
    seen = []

    def watched(name, **options):
        pair = gan_loss(name, **options)

        def generator(fake_scores, real_scores):
            # The critic's scores after its own step, which has changed them.
            scored = critics[-1](real_windows[-1])
            seen.append((real_scores.requires_grad, torch.equal(real_scores, scored)))
            return pair.generator(fake_scores, real_scores)

        return dataclasses.replace(pair, generator=generator)

    def step(recipe, state):
        critics.append(recipe.raw.critic)
        return train_step(recipe, state)

    def penalty(critic, real, fake, **options):
        real_windows.append(real)
        return gradient_penalty(critic, real, fake, **options)

    critics, real_windows = [], []
    train_step, gradient_penalty = LSTMGANRecipe.step, gan_module.gradient_penalty
    monkeypatch.setattr(gan_module, "gan_loss", watched)
    monkeypatch.setattr(LSTMGANRecipe, "step", step)
    monkeypatch.setattr(gan_module, "gradient_penalty", penalty)
    run(dataclasses.replace(TINY, loss=loss), out=tmp_path / "r")
    assert seen == [(False, True)] * TINY.steps


def test_lazy_penalty_comes_every_so_often_with_so_many_times_its_weight(tmp_path, monkeypatch):
    def penalty(critic, real, fake, *, batch_fraction, **options):
        assert batch_fraction == 0.25
        calls.append(None)
        return 1e3 + 0 * critic(real).sum()

    def update(fabric, network, loss, *rest):
        losses.append(loss.item())
        return _update(fabric, network, loss, *rest)

    calls, losses, _update = [], [], gan_module.update
    monkeypatch.setattr(gan_module, "gradient_penalty", penalty)
    monkeypatch.setattr(gan_module, "update", update)
    lazy = dataclasses.replace(TINY, n_critic=2, penalty_every=3, penalty_fraction=0.25)
    folder = run(lazy, out=tmp_path / "r").folder
    of_critic = [loss for k, loss in enumerate(losses) if k % 3 < 2]
    assert len(of_critic) == 2 * TINY.steps
    for k, loss in enumerate(of_critic):
        assert loss == pytest.approx(3e3 if k % 3 == 0 else 0, abs=100)
    assert len(calls) == -(-len(of_critic) // 3)
    assert (history(folder)[:, 3] == 1e3).all()  # also for steps without a penalty


def test_a_resumed_run_has_its_lazy_penalties_at_the_same_steps(tmp_path):
    lazy = dataclasses.replace(TINY, n_critic=2, penalty_every=3, penalty_fraction=0.5)
    whole = run(lazy, out=tmp_path / "whole").folder
    run(dataclasses.replace(lazy, steps=2), out=tmp_path / "parts")
    parts = run(None, resume=tmp_path / "parts", changes={"steps": lazy.steps}).folder
    assert torch.equal(history(whole), history(parts))


@pytest.mark.parametrize(
    ("name", "value"), [("penalty_every", 0), ("penalty_fraction", 0.0), ("penalty_fraction", 1.5)]
)
def test_lazy_penalties_that_cannot_be(name, value):
    with pytest.raises(InputError, match=rf"{name}: expected .*, got {value}"):
        dataclasses.replace(TINY, **{name: value})


def test_label_smoothing_changes_what_is_learnt(tmp_path):
    config = dataclasses.replace(TINY, loss="non-saturating")
    plain = run(config, out=tmp_path / "plain")
    smoothed = run(dataclasses.replace(config, label_smoothing=0.1), out=tmp_path / "smoothed")
    assert history(smoothed.folder).isfinite().all()
    # Of the first step's critic, whose scores are near 0, where the label moves the gradient.
    assert not torch.equal(history(plain.folder)[0], history(smoothed.folder)[0])
    with pytest.raises(InputError, match="label_smoothing cannot change"):
        run(None, resume=smoothed.folder, changes={"label_smoothing": 0.2})


def test_runs_from_before_these_settings_go_on(tmp_path):
    whole = run(TINY, out=tmp_path / "whole")
    short = run(dataclasses.replace(TINY, steps=3), out=tmp_path / "short")
    file = short.folder / "checkpoint.pt"
    content = torch.load(file, weights_only=True)
    for name in ("label_smoothing", "precision", "critic", "patience"):
        del content["config"][name]
    for name in ("precision", "best", "signs"):
        del content[name]
    torch.save(content, file)
    longer = run(None, resume=short.folder, changes={"steps": 6})
    assert torch.equal(history(whole.folder), history(longer.folder))


def test_a_run_writes_its_files(tmp_path, pictures):
    result = run(dataclasses.replace(TINY, layers=2), out=tmp_path / "r")
    assert result.step == 6
    assert result.signal is None
    names = {"checkpoint.pt", "samples.csv", "samples.png", "losses.png", "metrics.json"}
    assert set(os.listdir(result.folder)) == names
    assert json.loads((result.folder / "metrics.json").read_text()) == result.metrics
    table = pd.read_csv(result.folder / "samples.csv")
    assert list(table) == ["sample", "step", "precipitation", "temp_max", "temp_min", "wind"]
    assert history(result.folder).shape == (6, 6)
    assert history(result.folder).isfinite().all()


def test_metrics_are_written(tmp_path, monkeypatch):
    # The protocol's learning rate times ten makes up for fewer iterations.
    fast = Protocol(250, 50, learning_rate=1e-2)
    monkeypatch.setitem(series_module.PROTOCOLS, "quick", fast)
    result = run(dataclasses.replace(TINY, metrics="quick", steps=1), out=tmp_path / "r")
    told = result.metrics["discriminative_score"]
    assert result.metrics["protocol"]["discriminative_iterations"] == 250
    assert told["noise"]["score"] >= 0.45
    assert told["real"]["score"] <= 0.05


def test_short_data_still_gives_a_run(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("a\n" + "\n".join(str(i % 3) for i in range(12)))
    config = dataclasses.replace(TINY, data=str(file), metrics="full", steps=1)
    result = run(config, out=tmp_path / "r")
    for score in ("discriminative_score", "predictive_score"):
        assert result.metrics[score] is None
        assert "too few" in result.metrics["undefined"][score]
    assert result.metrics["mmd_squared"]["generated"] is not None


@pytest.mark.parametrize("stop_at", [2, 3])
def test_resumed_equals_uninterrupted(tmp_path, monkeypatch, stop_at):
    whole = run(TINY, out=tmp_path / "whole")
    step = LSTMGANRecipe.step

    def interrupted(recipe, state):
        if state.step == stop_at - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(recipe, state)

    monkeypatch.setattr(LSTMGANRecipe, "step", interrupted)
    part = run(TINY, out=tmp_path / "part")
    assert part.signal == signal.SIGINT
    assert part.step == stop_at
    assert part.metrics is None
    monkeypatch.undo()
    rest = run(None, resume=part.folder)
    assert rest.step == 6
    assert torch.equal(history(whole.folder), history(rest.folder))
    same_weights(whole.folder, rest.folder)
    assert (whole.folder / "samples.csv").read_bytes() == (rest.folder / "samples.csv").read_bytes()


def test_stopped_while_it_is_scored(tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(series_module, "evaluate", interrupted)
    part = run(dataclasses.replace(TINY, metrics="full"), out=tmp_path / "r")
    assert (part.signal, part.step, part.metrics) == (signal.SIGTERM, 6, None)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert run(None, resume=part.folder, changes={"metrics": "none"}).metrics is not None


def test_a_finished_run_can_be_prolonged(tmp_path):
    whole = run(TINY, out=tmp_path / "whole")
    short = run(dataclasses.replace(TINY, steps=3), out=tmp_path / "short")
    longer = run(None, resume=short.folder, changes={"steps": 6, "metrics": "none"})
    assert torch.equal(history(whole.folder), history(longer.folder))
    with pytest.raises(InputError, match="6 already"):
        run(None, resume=short.folder, changes={"steps": 5})
    with pytest.raises(InputError, match="hidden cannot change"):
        run(None, resume=short.folder, changes={"hidden": 9})


def test_epochs(tmp_path):
    config = dataclasses.replace(TINY, epochs=1, batch_size=1000)
    assert run(config, out=tmp_path / "r").step == 2


def test_resume_refuses_other_data(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("a\n" + "\n".join(str(i) for i in range(20)))
    folder = run(dataclasses.replace(TINY, data=str(file)), out=tmp_path / "r").folder
    file.write_text("a\n" + "\n".join(str(i) for i in range(21)))
    with pytest.raises(InputError, match="not what this run was trained on"):
        run(None, resume=folder)


def test_nan_stops_at_the_last_good_checkpoint(tmp_path, monkeypatch):
    step = LSTMGANRecipe.step

    def spoilt(recipe, state):
        values = step(recipe, state)
        if state.step == 4:
            values[4] = torch.nan
            recipe.raw.critic.head.bias.data.fill_(torch.nan)
        return values

    monkeypatch.setattr(LSTMGANRecipe, "step", spoilt)
    with pytest.raises(TrainingError, match=r"grad_norm_d is not finite at step 5.*step 4"):
        run(TINY, out=tmp_path / "r")
    content = load_checkpoint(tmp_path / "r", "LSTMGAN")
    assert content["step"] == 4
    assert all(v.isfinite().all() for v in content["model"].values())


def test_generate(tmp_path):
    folder = run(TINY, out=tmp_path / "r").folder
    series, columns = generate(folder, 7, seed=3, as_tensor=True)
    assert series.shape == (7, 6, 4)
    assert columns == ["precipitation", "temp_max", "temp_min", "wind"]
    low, high = torch.tensor([0, -1.6, -7.1, 0.4]), torch.tensor([55.9, 35.6, 18.3, 9.5])
    assert (series >= low - 1e-5).all()
    assert (series <= high + 1e-5).all()
    assert torch.equal(series, generate(folder / "checkpoint.pt", 7, seed=3, as_tensor=True)[0])
    assert not torch.equal(series, generate(folder, 7, seed=4, as_tensor=True)[0])
    table = generate(folder, 7, seed=3)
    assert list(table) == ["sample", "step", *columns]
    assert table["sample"].tolist() == [n for n in range(1, 8) for _ in range(6)]
    assert table["step"].tolist() == [*range(1, 7)] * 7
    assert (table[columns].to_numpy().reshape(7, 6, 4) == series.numpy()).all()
    with pytest.raises(InputError, match="1 or more"):
        generate(folder, 0)


def test_the_global_generator_is_left_alone(tmp_path):
    before = torch.get_rng_state()
    run(TINY, out=tmp_path / "r")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"no checkpoint", "not a checkpoint"),
        ({"weights": torch.ones(2)}, "something else"),
        ({"format": "ganlstm_fast run", "version": 99, "kind": "LSTMGAN"}, "format 99"),
        ({"format": "ganlstm_fast run", "version": 1, "kind": "VAE"}, "damaged"),
        ({"format": "ganlstm_fast run", "version": 1, "kind": "LSTMGAN"}, "damaged"),
        (LSTMGAN(1), "objects other than tensors"),
    ],
)
def test_checkpoints_that_cannot_be_used(tmp_path, content, message):
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    for use in (partial(run, None, resume=tmp_path), partial(generate, tmp_path, 1)):
        with pytest.raises(InputError, match=message):
            use()


def test_truncated_checkpoint(tmp_path):
    folder = run(TINY, out=tmp_path / "r").folder
    file = folder / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(InputError, match="damaged"):
        generate(folder, 1)


def test_atomic_write(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(file) as temporary:
        temporary.write_text(f"ne{1 / 0}")
    assert file.read_text() == "old"
    with atomic_write(file) as temporary:
        temporary.write_text("new")
    assert file.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]
    with pytest.raises(InputError, match="cannot write"):
        save_checkpoint(tmp_path / "missing" / "c.pt", "x", {})


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 0},
        {"seq_len": 1},
        {"lr_g": 0.0},
        {"lr_d": float("nan")},
        {"clip": -1.0},
        {"ema": 1.0},
        {"loss": "mse"},
        {"label_smoothing": 0.1},
        {"label_smoothing": 1.0, "loss": "lsgan"},
        {"label_smoothing": float("nan"), "loss": "lsgan"},
        {"metrics": "some"},
        {"device": "warp"},
    ],
)
def test_bad_settings_leave_nothing_behind(tmp_path, bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        run(dataclasses.replace(TINY, **bad), out=tmp_path / "a" / "b")
    assert os.listdir(tmp_path) == []


def test_an_existing_run_is_not_overwritten(tmp_path):
    run(TINY, out=tmp_path / "r")
    with pytest.raises(InputError, match="go on with it with resume='"):
        run(TINY, out=tmp_path / "r")


def test_folders_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = dataclasses.replace(TINY, steps=1)
    assert [str(run(config).folder) for _ in range(2)] == [
        "runs/seattle_weather",
        "runs/seattle_weather-2",
    ]


def test_model_takes_another_lstm():
    gan = LSTMGAN(3, noise=4, hidden=5, layers=2, lstm=torch.nn.LSTM)
    fake = gan(gan.generator.noise(2, 7))
    assert fake.shape == (2, 7, 3)
    assert gan.critic(fake).shape == (2,)
    assert type(gan.generator.lstm) is torch.nn.LSTM
    noise = gan.generator.noise(2, 7)
    assert torch.equal(noise[:, 0, :2], noise[:, 6, :2])
    assert not torch.equal(noise[:, 0, 2:], noise[:, 6, 2:])

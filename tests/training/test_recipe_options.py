"""Options of the loop and of a GAN's step."""

import dataclasses
import itertools
from functools import partial

import pytest
import torch
from tqdm import tqdm

from ganlstm_fast.training import InputError, TrainConfig, train
from ganlstm_fast.training import outputs as outputs_module
from ganlstm_fast.training import trainer as trainer_module
from ganlstm_fast.training.checkpoint import load_checkpoint
from ganlstm_fast.training.configs import DCGANConfig
from ganlstm_fast.training.fabric import Share
from ganlstm_fast.training.recipes import series as series_module
from ganlstm_fast.training.recipes.gan import GANRecipe
from ganlstm_fast.training.state import start_run

RUN = {"steps": 4, "batch_size": 8, "checkpoint_every": 2, "metrics": "none", "device": "cpu"}
TINY = TrainConfig(**RUN, hidden=8, noise=4, seq_len=6)
DIGITS = DCGANConfig(**RUN, width=4, noise=8, penalty=1.0)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(outputs_module, "plot_losses", lambda *arguments: None)
    monkeypatch.setattr(series_module, "plot_samples", lambda *arguments: None)


def run(config, **options):
    return train(config, progress=partial(tqdm, disable=True), **options)


def weights(folder, part):
    model = load_checkpoint(folder)["model"]
    return torch.cat([v.flatten() for k, v in model.items() if k.startswith(part)])


@pytest.mark.parametrize("loss", ["wgan-gp", "hinge", "lsgan", "non-saturating", "relativistic"])
@pytest.mark.parametrize("norm", [False, True])
def test_losses_with_and_without_spectral_norm(tmp_path, loss, norm):
    config = dataclasses.replace(TINY, loss=loss, spectral_norm=norm)
    history = load_checkpoint(run(config, out=tmp_path / "r").folder)["history"]
    assert history.isfinite().all()
    assert (history[:, 3] > 0).all()


def test_a_step_shares_one_power_iteration(tmp_path, monkeypatch):
    from ganlstm_fast.training.recipes import gan

    entered = []
    inside = gan.spectral_norm_step
    monkeypatch.setattr(gan, "spectral_norm_step", lambda m: entered.append(m) or inside(m))
    run(dataclasses.replace(DIGITS, steps=1, n_critic=2), out=tmp_path / "r")
    assert len(entered) == 3
    run(dataclasses.replace(DIGITS, steps=1, norm="none"), out=tmp_path / "none")
    assert len(entered) == 3


def test_warm_ups_train_one_network(tmp_path):
    config = dataclasses.replace(TINY, warmup_d=2, warmup_g=2, steps=1)
    seen = []
    for steps in range(1, 6):
        part = dataclasses.replace(config, steps=steps)
        folder = run(part, out=tmp_path / str(steps)).folder
        seen.append((weights(folder, "generator"), weights(folder, "critic")))
    # After each step: which of the two has changed since the step before.
    changed = [
        tuple(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        for before, after in itertools.pairwise(seen)
    ]
    assert changed == [(False, True), (True, False), (True, False), (True, True)]


def test_augmentation_changes_what_the_critic_sees(tmp_path, monkeypatch):
    seen = []

    def watched(self, samples, **inputs):
        seen.append(samples.detach())
        return scores(self, samples, **inputs)

    scores = GANRecipe._scores
    monkeypatch.setattr(GANRecipe, "_scores", watched)
    config = dataclasses.replace(DIGITS, steps=1, augment=("flip", "shift"))
    run(dataclasses.replace(config, augment=None), out=tmp_path / "plain")
    plain = seen[0]
    seen.clear()
    run(config, out=tmp_path / "changed")
    changed = seen[0]
    assert plain.shape == changed.shape
    assert not torch.equal(plain, changed)
    # A shifted digit keeps its values, except those that leave the image.
    assert set(changed.unique().tolist()) <= set(plain.unique().tolist())
    for bad, config in (("flip", TINY), ("blur", DIGITS)):
        with pytest.raises(InputError, match="augment: expected some of"):
            dataclasses.replace(config, augment=(bad,))


def test_augmentation_is_resumed(tmp_path):
    config = dataclasses.replace(TINY, augment=("jitter", "scale", "shift"))
    whole = run(config, out=tmp_path / "whole").folder
    run(dataclasses.replace(config, steps=2), out=tmp_path / "parts")
    parts = run(None, resume=tmp_path / "parts", changes={"steps": 4}).folder
    assert torch.equal(load_checkpoint(whole)["history"], load_checkpoint(parts)["history"])


def test_trouble_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "EARLY", 0)
    told = []
    config = dataclasses.replace(TINY, steps=12, lr_d=0.05, lr_g=1e-9)
    run(config, out=tmp_path / "r", warn=told.append)
    assert len(told) == 1
    assert "the critic wins outright" in told[0]
    assert "lr_d" in told[0]
    # Also if the run is resumed in between.
    told.clear()
    run(dataclasses.replace(config, steps=4), out=tmp_path / "s", warn=told.append)
    assert told == []
    run(None, resume=tmp_path / "s", changes={"steps": 12}, warn=told.append)
    assert len(told) == 1


def test_a_collapse_is_told(tmp_path):
    run_ = start_run(TINY, tmp_path / "r")
    recipe = run_.state.recipe
    assert "collapse" not in recipe.troubles(run_.state)
    torch.nn.init.zeros_(recipe.average.module.head.weight)
    assert "the generator has collapsed" in recipe.troubles(run_.state)["collapse"]


def test_no_trouble_is_told_of_real_samples(tmp_path, monkeypatch):
    run_ = start_run(TINY, tmp_path / "r")
    recipe = run_.state.recipe
    real = recipe.samples[:64]
    monkeypatch.setattr(recipe, "some", lambda generator: (real, real.flip(0), {}))
    assert recipe.troubles(run_.state) == {}


def test_early_stop_of_a_gan_watches_the_distance_of_its_samples(tmp_path):
    config = dataclasses.replace(TINY, steps=40, patience=2, lr_g=1e-30)
    result = run(config, out=tmp_path / "r")
    assert result.step < 40
    assert result.metrics["best"]["value"] > 0


def test_16_bits(tmp_path):
    config = dataclasses.replace(TINY, precision="bf16-mixed")
    whole = run(config, out=tmp_path / "whole").folder
    history = load_checkpoint(whole)["history"]
    wide = load_checkpoint(run(TINY, out=tmp_path / "wide").folder)["history"]
    assert history.isfinite().all()
    assert not torch.equal(history, wide)
    torch.testing.assert_close(history[0, 3:], wide[0, 3:], rtol=0.05, atol=0)
    assert all(v.dtype != torch.bfloat16 for v in load_checkpoint(whole)["model"].values())
    with pytest.raises(InputError, match="precision='16-mixed' needs a GPU"):
        run(dataclasses.replace(TINY, precision="16-mixed"), out=tmp_path / "no")


def test_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run(dataclasses.replace(TINY, log="tensorboard"), out=tmp_path / "r").folder
    found = EventAccumulator(str(folder / "tensorboard")).Reload()
    history = load_checkpoint(folder)["history"]
    assert [s.step for s in found.Scalars("loss_d")] == [1, 2, 3, 4]
    assert [s.value for s in found.Scalars("loss_d")] == history[:, 0].tolist()


def test_shares_make_the_batch():
    batch = torch.arange(12).view(6, 2)
    shares = [Share(rank, 3)(batch) for rank in range(3)]
    assert torch.equal(torch.stack(shares, 1).view(6, 2), batch)
    # The first third of the batch is the first third of each share.
    assert torch.equal(torch.cat([share[:1] for share in shares]), batch[:3])

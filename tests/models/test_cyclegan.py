"""Translated images: the model, the pool, digits in two styles, folders, scores, the command."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import ganlstm_fast as gf
from ganlstm_fast.cli import main
from ganlstm_fast.models import CycleGAN
from ganlstm_fast.models.cyclegan import ResidualBlock
from ganlstm_fast.training import InputError, generate, train
from ganlstm_fast.training.checkpoint import load_checkpoint
from ganlstm_fast.training.configs import PATCH_LOSSES, CycleGANConfig
from ganlstm_fast.training.datasets import digit_images, slanted_outlines, solid, styled_digits
from ganlstm_fast.training.metrics.translations import evaluate_translations
from ganlstm_fast.training.pictures import write_image
from ganlstm_fast.training.recipes import cyclegan as cyclegan_module
from ganlstm_fast.training.recipes.cyclegan import CycleGANRecipe, mean_slant
from ganlstm_fast.training.recipes.gan import Batch
from ganlstm_fast.training.recipes.image_pool import ImagePool

TINY = CycleGANConfig(
    steps=2, batch_size=4, size=16, width=4, blocks=1, metrics="none", device="cpu"
)


def run(config: CycleGANConfig | None, **options: object):
    return train(config, progress=partial(tqdm, disable=True), **options)


def _gan() -> CycleGAN:
    torch.manual_seed(0)
    return CycleGAN(1, 4, 1)


# ---- model ----


def test_each_kind_is_at_its_place() -> None:
    gan, pairs = _gan(), torch.rand(3, 2, 1, 20, 16) * 2 - 1
    fake = gan(pairs)
    assert fake.shape == pairs.shape
    assert fake.abs().max() <= 1
    torch.testing.assert_close(fake[:, 0], gan.generator.b_to_a(pairs[:, 1]))
    torch.testing.assert_close(fake[:, 1], gan.generator.a_to_b(pairs[:, 0]))
    scores = gan.critic.eval()(pairs)
    assert scores.shape == (3, 2, 5, 4)
    other = pairs.clone()
    other[:, 1] = 0
    changed = (gan.critic(other) != scores).flatten(2).any(2)
    assert changed.tolist() == [[False, True]] * 3


def test_an_image_is_translated_alone() -> None:
    generator = _gan().generator
    images = torch.rand(5, 1, 16, 16) * 2 - 1
    for direction, translator in (("a-to-b", generator.a_to_b), ("b-to-a", generator.b_to_a)):
        made = generator.translate(images, direction, batch=2)
        torch.testing.assert_close(made, translator(images))
    assert generator.training
    with pytest.raises(ValueError, match="direction: expected one of"):
        generator.translate(images, "b")
    with pytest.raises(ValueError, match="images: expected shape"):
        generator.translate(images[0])


def test_a_score_sees_a_patch() -> None:
    critic = _gan().critic.a.eval()
    image = torch.zeros(1, 1, 64, 64, requires_grad=True)
    critic(image)[0, 8, 8].backward()
    rows, columns = image.grad[0, 0].nonzero().T
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == 26


def test_a_residual_block_without_weights_changes_nothing() -> None:
    block, x = ResidualBlock(4), torch.randn(2, 4, 8, 8)
    assert not torch.equal(block(x), x)
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(block(x), x)


def test_the_critics_are_those_of_torchs_spectral_norm_to_second_order() -> None:
    pairs, results = torch.randn(3, 2, 1, 16, 16, dtype=torch.float64), []
    for convert in (lambda critic: None, gf.to_torch):
        critic = _gan().double().critic.eval()
        convert(critic)
        penalty = gf.gradient_penalty(critic, pairs, kind="r1")
        grads = torch.autograd.grad(penalty, list(critic.parameters()), allow_unused=True)
        results.append([penalty, *(g for g in grads if g is not None)])
    assert len(results[0]) == len(results[1]) >= 9
    torch.testing.assert_close(*results)


# ---- pool ----


def _images(first: int, count: int) -> Tensor:
    return torch.arange(first, first + count).float().view(-1, 1, 1, 1)


def test_a_pool_keeps_what_it_gives_back() -> None:
    pool, random = ImagePool(6, (1, 1, 1)), torch.Generator().manual_seed(0)
    assert torch.equal(pool.exchange(_images(0, 4), random), _images(0, 4))
    seen = pool.exchange(_images(4, 4), random)
    assert torch.equal(seen[:2], _images(4, 2))  # until it was full
    kept = {*range(8)} - {*seen[2:].flatten().tolist()}
    assert {*pool.images.flatten().tolist()} == kept
    latest = 0
    for first in range(8, 408, 4):
        before, new = {*pool.images.flatten().tolist()}, _images(first, 4)
        seen = pool.exchange(new, random)
        shown, after = {*seen.flatten().tolist()}, {*pool.images.flatten().tolist()}
        assert shown | after == before | {*new.flatten().tolist()}
        assert not shown & after
        latest += (seen == new).sum().item()
    assert 160 < latest < 240  # of 400, each with a probability of a half


def test_a_pool_goes_on_from_its_state() -> None:
    pool, random = ImagePool(5, (1, 1, 1)), torch.Generator().manual_seed(0)
    pool.exchange(_images(0, 3), random)
    other = ImagePool(5, (1, 1, 1))
    other.load_state_dict(copy.deepcopy(pool.state_dict()))
    again = torch.Generator()
    again.set_state(random.get_state())
    for first in (3, 20):
        new = _images(first, 12)  # more than there is room for
        assert torch.equal(pool.exchange(new, random), other.exchange(new, again))


def test_no_pool() -> None:
    images = _images(0, 3)
    assert torch.equal(ImagePool(0, (1, 1, 1)).exchange(images, torch.Generator()), images)


# ---- digits ----


def test_no_digit_is_in_both_styles() -> None:
    (train_a, test_a), (train_b, test_b) = styled_digits()
    for a, b, digits in zip((train_a, test_a), (train_b, test_b), digit_images(), strict=True):
        plain = {image.numpy().tobytes() for image in a.inputs}
        styled = {image.numpy().tobytes() for image in b.inputs}
        drawn = zip(solid(digits.inputs), slanted_outlines(digits.inputs), strict=True)
        where = [
            (image.numpy().tobytes() in plain, other.numpy().tobytes() in styled)
            for image, other in drawn
        ]
        assert all(one != two for one, two in where)
        assert torch.bincount(a.labels).min() >= len(a) // 10 - 5
        assert (torch.bincount(a.labels) - torch.bincount(b.labels)).abs().max() <= 1
    assert train_b.inputs.aminmax() == (-1, 1)


def test_a_stroke_is_outlined_and_leans() -> None:
    image = -torch.ones(1, 1, 28, 28)
    image[..., 4:24, 12:16] = 1
    outlined = slanted_outlines(image)[0, 0]
    rows = outlined.amax(1) > 0
    assert mean_slant(solid(image)) == pytest.approx(0, abs=1e-6)
    # How much narrower the SLANT makes the digit.
    assert mean_slant(slanted_outlines(image)) == pytest.approx(0.15 / 1.1, abs=0.03)
    middle = [(outlined[row] > 0).nonzero().float().mean().item() for row in (8, 14, 20)]
    assert 16 <= rows.sum() <= 20
    assert middle[0] > middle[1] + 0.7 > middle[2] + 1.4
    across = (outlined[14] > 0).int().diff()
    assert (across == 1).sum() == 2  # two strokes
    assert slanted_outlines(torch.full((1, 1, 28, 28), -1.0)).max() == -1


def test_scores_tell_digits_that_were_exchanged() -> None:
    (train_a, test_a), (train_b, test_b) = styled_digits()
    judge = partial(evaluate_translations, (train_a, train_b), (test_a, test_b))
    # Right translations, by what is known of the digits.
    digits = digit_images()[1].inputs
    drawn = solid(digits), slanted_outlines(digits)

    def other(images: Tensor, kind: int) -> Tensor:
        number = {image.numpy().tobytes(): k for k, image in enumerate(drawn[kind])}
        return drawn[1 - kind][[number[image.numpy().tobytes()] for image in images]]

    right = other(test_a.inputs, 0), other(test_b.inputs, 1)
    scores = judge(right, (test_a.inputs, test_b.inputs))
    for way in ("a_to_b", "b_to_a"):
        assert scores[f"recognised_{way}"]["generated"] > 0.93
        assert scores[f"recognised_{way}"]["untranslated"] < 0.8
        assert scores[f"style_{way}"]["generated"] > 0.98
        assert scores[f"style_{way}"]["untranslated"] < 0.02
        assert scores[f"recognised_{way}"]["real"] > 0.95
    assert scores["cycle_error_a"] == scores["cycle_error_b"] == 0
    exchanged = judge(tuple(part.roll(7, 0) for part in right), (test_a.inputs, right[1]))
    assert exchanged["style_a_to_b"]["generated"] > 0.98
    assert exchanged["recognised_a_to_b"]["generated"] < 0.3
    assert exchanged["cycle_error_b"] > 0.1


# ---- recipe ----


def test_losses_beside_the_scores() -> None:
    recipe = CycleGANRecipe(TINY)
    recipe.generator = lambda pairs: pairs.flip(1) + 1  # translates to itself, and one more
    batch = Batch(torch.rand(4, 2, 1, 16, 16), {})
    fake = recipe.generator(batch.real)
    assert recipe.beside_the_scores(fake, batch, None).item() == pytest.approx(5 * 2 + 2.5 * 1)
    recipe.config = dataclasses.replace(TINY, identity=0.0)
    assert recipe.beside_the_scores(fake, batch, None).item() == pytest.approx(5 * 2)


def test_kinds_are_drawn_independently() -> None:
    recipe = CycleGANRecipe(TINY)
    pairs = recipe.noise(None, 4000, torch.Generator().manual_seed(0))
    assert pairs.shape == (4000, 2, 1, 16, 16)
    (train_a, _), (train_b, _) = styled_digits(16)
    counts = []
    for kind, images in enumerate((train_a.inputs, train_b.inputs)):
        known = {image.numpy().tobytes() for image in images}
        drawn = {image.numpy().tobytes() for image in pairs[:, kind]}
        assert drawn <= known
        counts.append(len(drawn))
    both = {pair.numpy().tobytes() for pair in pairs}
    assert len(both) > 3900
    assert min(counts) > 700


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("loss", PATCH_LOSSES)
def test_losses_and_a_penalty(tmp_path: Path, loss: str) -> None:
    config = dataclasses.replace(TINY, loss=loss, penalty=0.01, n_critic=2, pool=3)
    history = load_checkpoint(run(config, out=tmp_path / "r").folder)["history"]
    assert history.isfinite().all()
    assert (history[:, 3] > 0).all()


def test_other_losses_are_refused() -> None:
    for loss in ("wgan-gp", "relativistic-average"):
        with pytest.raises(InputError, match="loss: expected one of lsgan"):
            dataclasses.replace(TINY, loss=loss)


@pytest.mark.usefixtures("undrawn")
def test_pools_are_resumed(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, steps=6, pool=10)
    whole = load_checkpoint(run(config, out=tmp_path / "whole").folder)
    run(dataclasses.replace(config, steps=3), out=tmp_path / "parts")
    half = load_checkpoint(tmp_path / "parts")
    parts = load_checkpoint(run(None, resume=tmp_path / "parts", changes={"steps": 6}).folder)
    assert torch.equal(whole["history"], parts["history"])
    for name in ("pool_a", "pool_b"):
        assert torch.equal(whole[name]["images"], parts[name]["images"])
        assert not torch.equal(whole[name]["images"], half[name]["images"])
    assert not torch.equal(whole["pool_a"]["images"], whole["pool_b"]["images"])
    without = dataclasses.replace(config, pool=0)
    history = load_checkpoint(run(without, out=tmp_path / "without").folder)["history"]
    assert not torch.equal(history, whole["history"])


def test_pictures_come_during_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(cyclegan_module, "plot_translations", lambda _, rows: shown.append(rows))
    config = dataclasses.replace(TINY, steps=4, checkpoint_every=2)
    folder = run(config, out=tmp_path / "r").folder
    assert len(shown) == 3  # two checkpoints, and the end
    held = CycleGANRecipe(config).test
    for (images, there, back), part in zip(shown[-1], held, strict=True):
        assert images.shape == there.shape == back.shape == (12, 1, 16, 16)
        assert torch.equal(images[0], part.inputs[0])
    assert not torch.equal(shown[0][0][1], shown[1][0][1])
    assert folder.exists()


def test_translations_are_drawn(tmp_path: Path) -> None:
    run(TINY, out=tmp_path / "r")
    with Image.open(tmp_path / "r" / "translations.png") as picture:
        assert picture.width > 800
        assert len(picture.convert("L").getcolors()) > 50


@pytest.mark.usefixtures("undrawn")
def test_the_way_back_is_learnt(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, steps=60, metrics="quick", lr_g=2e-3, lr_d=2e-3, ema=0.5)
    learnt = run(config, out=tmp_path / "with").metrics
    config = dataclasses.replace(config, cycle=0.0, identity=0.0)
    without = run(config, out=tmp_path / "without").metrics
    for kind in "ab":
        assert learnt[f"cycle_error_{kind}"] < 0.5 * without[f"cycle_error_{kind}"]


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    arguments = ["train", "cyclegan", "--size=16", "--width=4", "--blocks=1", "--batch-size=4"]
    arguments += ["--steps=6", "--pool=6", "--metrics=none", "--quiet", "--device=cpu"]
    assert main([*arguments, f"--out={tmp_path / 'one'}"]) == 0
    command = [sys.executable, "-m", "ganlstm_fast", *arguments, f"--out={tmp_path / 'two'}"]
    done = subprocess.run([*command, "--devices=2"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one, two = load_checkpoint(tmp_path / "one"), load_checkpoint(tmp_path / "two")
    torch.testing.assert_close(one["history"], two["history"], rtol=2e-4, atol=2e-5)
    assert not torch.equal(one["history"], two["history"])  # they did share the work
    assert torch.equal(one["random"], two["random"])
    for name in ("pool_a", "pool_b"):
        torch.testing.assert_close(one[name]["images"], two[name]["images"], rtol=0, atol=2e-3)


@pytest.mark.usefixtures("undrawn")
def test_16_bits(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, precision="bf16-mixed")
    content = load_checkpoint(run(config, out=tmp_path / "r").folder)
    assert content["history"].isfinite().all()
    assert all(v.dtype != torch.bfloat16 for v in content["model"].values())


# ---- folders ----


def _folder(path: Path, count: int, *, side: int = 20, level: float = 0.0) -> Path:
    path.mkdir(parents=True)
    for k in range(count):
        generator = torch.Generator().manual_seed(k)
        image = torch.rand(1, 1, side, side + k, generator=generator) - 1 + level
        write_image(path / f"{k}.png", image)
    return path


def _folders(path: Path) -> dict[str, str]:
    return {
        "data": str(_folder(path / "night", 6)),
        "data_b": str(_folder(path / "day", 12, side=40, level=1.0)),
    }


@pytest.mark.usefixtures("undrawn")
def test_two_folders_of_images_of_any_size(tmp_path: Path) -> None:
    (data := _folders(tmp_path))["steps"] = 3
    (tmp_path / "day" / "bad.png").write_text("no image")
    told: list[str] = []
    config = dataclasses.replace(TINY, **data, metrics="quick")
    result = run(config, out=tmp_path / "r", warn=told.append)
    assert len(told) == 1
    assert "bad.png cannot be read as an image" in told[0]
    assert {"style_a_to_b", "style_b_to_a", "cycle_error_a"} <= result.metrics.keys()
    assert not {"recognised_a_to_b", "slant_a_to_b"} & result.metrics.keys()
    assert result.metrics["style_a_to_b"]["real"] == 1
    recipe = CycleGANRecipe(config)
    assert recipe.counts == (5, 10)
    assert torch.equal(recipe.samples[:5, 0], recipe.samples[5:, 0])
    assert [len(part) for part in recipe.test] == [1, 2]
    assert len(generate(result.folder, 9, direction="b-to-a")) == 2
    again = run(None, resume=tmp_path / "r", changes={"steps": 4}, warn=told.append)
    assert again.step == 4


@pytest.mark.usefixtures("undrawn")
def test_folders_with_the_same_classes_are_recognised(tmp_path: Path) -> None:
    for kind, level in (("x", 0.0), ("y", 0.5)):
        for name, more in (("dark", 0.0), ("light", 0.5)):
            _folder(tmp_path / kind / name, 5, level=level + more)
    data = {"data": str(tmp_path / "x"), "data_b": str(tmp_path / "y")}
    metrics = run(dataclasses.replace(TINY, **data, metrics="quick"), out=tmp_path / "r").metrics
    assert metrics["recognised_a_to_b"].keys() == {"generated", "untranslated", "real"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data=night"], "--data-b: expected a folder of the other kind"),
        (["--data-b=night"], "--data: expected a folder beside that of --data-b, got None"),
        (["--data=night", "--data-b=night"], "--data-b: expected another folder than --data"),
        (["--data=night", "--data-b=empty"], "empty has no image"),
        (["--data=night", "--data-b=bad"], "none can be read: bad/1.png cannot be read"),
        (["--data=night", "--data-b=one"], "one has one image that can be read; at least 2"),
        (["--data=night", "--data-b=nowhere"], "nowhere is not a folder"),
        (["--size=30"], "--size: expected a multiple of 4, 16 or more, got 30"),
        (["--channels=3"], "--channels: expected 1 for the digits"),
    ],
)
def test_data_that_cannot_be_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    _folder(tmp_path / "night", 3)
    _folder(tmp_path / "one", 1)
    for name in ("empty", "bad"):
        (tmp_path / name).mkdir()
    (tmp_path / "bad" / "1.png").write_text("no image")
    assert main(["train", "cyclegan", *arguments, "--out=run"]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert message in errors.replace(f"{tmp_path}/", "")
    assert not (tmp_path / "run").exists()


# ---- generate ----


@pytest.mark.usefixtures("undrawn")
def test_images_are_translated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(TINY, out=tmp_path / "r").folder
    photos = _folder(tmp_path / "photos", 3, side=50)
    (photos / "more").mkdir()
    Image.open(photos / "0.png").convert("RGB").save(photos / "more" / "x.jpg")
    Image.open(photos / "0.png").save(photos / "1.bmp")

    def made(*options: str) -> int:
        return main(["generate", str(folder), "--images", str(photos), *options])

    capsys.readouterr()
    out = tmp_path / "out"
    assert made("-o", str(out)) == 0
    assert capsys.readouterr().out.endswith("out: 5 translated images of 16 pixels\n")
    names = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    assert names == {"0.png", "1.png.png", "1.bmp.png", "2.png", "more/x.png"}
    with Image.open(out / "0.png") as one, Image.open(out / "1.bmp.png") as other:
        assert one.size == (16, 16)
        assert one.tobytes() == other.tobytes()  # the same image
    # A second time there: refused, and what is there stays.
    assert made("-o", str(out)) == 2
    assert "cannot write" in capsys.readouterr().err
    assert (out / "0.png").exists()
    assert made("--direction", "b-to-a", "-o", str(tmp_path / "back")) == 0
    assert (tmp_path / "back" / "0.png").read_bytes() != (out / "0.png").read_bytes()
    single = ["--images", str(photos / "0.png"), "-o", str(tmp_path / "one.png")]
    assert main(["generate", str(folder), *single]) == 0
    with Image.open(tmp_path / "one.png") as one, Image.open(out / "0.png") as same:
        assert one.convert("L").tobytes() == same.convert("L").tobytes()


@pytest.mark.usefixtures("undrawn")
def test_held_out_digits_are_translated(tmp_path: Path) -> None:
    folder = run(TINY, out=tmp_path / "r").folder
    made = generate(folder, 1000, device="cpu")
    assert len(made) == len(styled_digits(16)[0][1]) == 179
    assert main(["generate", str(folder), "-n", "11", "-o", str(tmp_path / "made")]) == 0
    names = sorted(file.name for file in (tmp_path / "made").iterdir())
    assert names == [f"{k:02}.png" for k in range(1, 12)]


@pytest.mark.usefixtures("undrawn")
def test_what_cannot_be_translated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(TINY, out=tmp_path / "r").folder
    photos = _folder(tmp_path / "photos", 2)
    (photos / "bad.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    for options, message in (
        (["--images", str(photos), "-o", str(out)], "bad.png cannot be read as an image"),
        (["--images", str(tmp_path / "empty"), "-o", str(out)], "empty has no image"),
        (["--images", str(tmp_path / "no.png"), "-o", str(out)], "no.png cannot be read"),
        (["-o", str(out.with_suffix(".jpg"))], "or a file that ends with .png"),
        ([], "do not go to a screen"),
        (["--month", "3", "-o", str(out)], "a run of cyclegan does not take month"),
    ):
        capsys.readouterr()
        assert main(["generate", str(folder), *options]) == 2
        errors = capsys.readouterr().err
        assert message in errors
        assert errors.count("\n") == 1
    assert {file.name for file in tmp_path.iterdir()} == {"r", "photos", "empty"}
    with pytest.raises(InputError, match="direction: expected a-to-b or b-to-a, got up"):
        generate(folder, 1, direction="up")


def test_a_folder_comes_whole_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import image

    from ganlstm_fast.training.pictures import write_images

    written = []

    def full(file: Path, *_: object, **__: object) -> None:
        written.append(file)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        file.touch()

    monkeypatch.setattr(image, "imsave", full)
    with pytest.raises(InputError, match=r"cannot write .*made: No space left"):
        write_images(tmp_path / "made", torch.zeros(3, 1, 8, 8), ["a.png", "b.png", "c.png"])
    assert len(written) == 2
    assert list(tmp_path.iterdir()) == []

"""Images for a text: the model, the digits' descriptions, folders with captions, the command."""

from __future__ import annotations

import copy
import dataclasses
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from tqdm import tqdm

import ganlstm_fast as gf
from ganlstm_fast.models import TextToImageGAN
from ganlstm_fast.training import InputError, generate, train
from ganlstm_fast.training.configs import TextToImageConfig
from ganlstm_fast.training.datasets import Words, captioned_digits, load_captions, weight_and_slant
from ganlstm_fast.training.datasets.captions import FORMS, NUMBERS, SLANTS, WEIGHTS, describe_digit
from ganlstm_fast.training.pictures import write_image
from ganlstm_fast.training.recipes.text_to_image import TextToImageRecipe, agreement

TINY = TextToImageConfig(
    steps=1, batch_size=8, width=4, noise=8, hidden=8, embedding=4, metrics="none", device="cpu"
)


def _gan(lstm: type[nn.LSTM] = gf.FastLSTM) -> TextToImageGAN:
    torch.manual_seed(0)
    return TextToImageGAN(7, 28, 1, 5, 4, embedding=3, hidden=6, lstm=lstm)


def _texts() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(7, (4, 5), generator=generator), torch.tensor([5, 2, 3, 1])


def test_what_follows_a_text_is_not_read() -> None:
    gan = _gan().eval()
    words, lengths = _texts()
    noise = torch.randn(4, 5)
    images = gan(noise, words, lengths)
    assert images.shape == (4, 1, 28, 28)
    scores = gan.critic(images, words, lengths)
    other = words.clone()
    for row, length in zip(other, lengths, strict=True):
        row[length:] = 6
    torch.testing.assert_close(gan(noise, other, lengths), images)
    torch.testing.assert_close(gan.critic(images, other, lengths), scores)
    other[1, 1] = (other[1, 1] + 1) % 7
    changed = gan.critic(images, other, lengths) != scores
    assert changed.tolist() == [False, True, False, False]


def test_a_penalty_with_texts_is_that_of_torchs_lstm() -> None:
    """To second order, through the convolutions and the projection of the text."""
    words, lengths = _texts()
    x = torch.randn(4, 1, 28, 28, dtype=torch.float64)
    results = []
    for lstm in (gf.FastLSTM, nn.LSTM):
        critic = _gan(lstm).double().critic.eval()
        penalty = gf.gradient_penalty(critic, x, kind="r1", critic_args=(words, lengths))
        used = [p for p in critic.parameters() if p is not critic.images.head.bias]
        grads = torch.autograd.grad(penalty, used, allow_unused=True)
        results.append([penalty, *(g for g in grads if g is not None)])
    assert len(results[0]) == len(results[1]) > 8
    torch.testing.assert_close(*results)


def test_the_critic_learns_to_read() -> None:
    gan, (words, lengths) = _gan(), _texts()
    critic, x = gan.critic, torch.randn(4, 1, 28, 28)
    optimiser = torch.optim.Adam(critic.parameters(), 0.01)
    for _ in range(30):
        optimiser.zero_grad()
        wrong = critic(x, words.roll(1, 0), lengths.roll(1))
        loss = (1 - critic(x, words, lengths)).relu().mean() + (1 + wrong).relu().mean()
        loss.backward()
        optimiser.step()
    assert loss < 0.5


def test_samples_are_of_their_texts() -> None:
    # Noise of 12 numbers or fewer is drawn one by one.
    gan, (words, lengths) = _gan().eval(), (part[:2] for part in _texts())
    many = gan.generator.sample(words, lengths, torch.Generator().manual_seed(2))
    parts = gan.generator.sample(words, lengths, torch.Generator().manual_seed(2), batch=1)
    torch.testing.assert_close(many, parts)
    assert not torch.equal(many[0], many[1])


def test_words_of_the_wrong_kind() -> None:
    with pytest.raises(TypeError, match=r"words: expected an int64 tensor of shape"):
        _gan()(torch.randn(4, 5), torch.rand(4, 5))


# ---- descriptions ----


def _line(slant: float, thickness: int = 1) -> Tensor:
    """A stroke [1, 1, 28, 28] whose column grows by ``slant`` for each row upwards."""
    image = -torch.ones(1, 1, 28, 28)
    for row in range(4, 24):
        column = round(14 + slant * (14 - row))
        image[0, 0, row, column : column + thickness] = 1
    return image


def test_weight_and_slant_of_a_line() -> None:
    images = torch.cat([_line(0.5), _line(-0.5), _line(0.0), _line(0.0, 3)])
    weight, slant = weight_and_slant(images).T
    torch.testing.assert_close(slant, torch.tensor([0.5, -0.5, 0, 0]).double(), atol=0.03, rtol=0)
    torch.testing.assert_close(weight[3], 3 * weight[2])
    assert weight_and_slant(-torch.ones(1, 1, 28, 28)).tolist() == [[0.0, 0.0]]


def test_digits_are_described_by_what_is_measured() -> None:
    digits, held = captioned_digits()
    again, _ = captioned_digits()
    assert digits.texts == again.texts
    assert set(Words.of(held.texts).words) == set(Words.of(digits.texts).words)
    measured = weight_and_slant(digits.images)
    for number, word in enumerate(NUMBERS):
        of_class = digits.labels == number
        for part in range(2):
            values = [measured[of_class & (digits.looks[:, part] == k), part] for k in range(3)]
            assert values[0].max() <= values[1].min()
            assert values[1].max() <= values[2].min()
        first = of_class.nonzero()[0].item()
        weight, slant = digits.looks[first].tolist()
        text = digits.texts[first]
        assert {word, *SLANTS[slant].split(), WEIGHTS[weight] or "medium"} <= set(Words.split(text))
    assert len(set(digits.texts)) > 300


def test_forms_of_a_text() -> None:
    assert describe_digit(7, 0, 2) == "a thin seven, leaning right"
    assert len({describe_digit(7, 0, 2, form) for form in range(len(FORMS))}) == len(FORMS)


def test_words() -> None:
    words = Words.of(["A thin seven, leaning right!", "two"])
    numbers, lengths = words.encode(["RIGHT seven", "thin"])
    assert lengths.tolist() == [2, 1]
    assert [words.words[n] for n in numbers[0]] == ["right", "seven"]
    with pytest.raises(
        InputError, match="the text 'thin elephant' has a word that is not known, 'e"
    ):
        words.encode(["thin elephant"])
    with pytest.raises(InputError, match="the text ' , ' has no word"):
        words.encode([" , "])


def test_agreement_tells_a_generator_that_reads_from_one_that_does_not() -> None:
    digits, held = captioned_digits()
    scores = agreement(digits, held, held.images)
    assert scores["digit_agreement"]["generated"] == scores["digit_agreement"]["real"] > 0.95
    assert scores["slant_agreement"]["generated"] > 0.8
    assert scores["digit_agreement"]["shuffled"] < 0.2
    assert abs(scores["slant_agreement"]["shuffled"]) < 0.15
    flat = agreement(digits, held, torch.zeros_like(held.images))
    assert flat["slant_agreement"]["generated"].reason == "all images measure the same"


# ---- folders ----


def _folder(path: Path, table: str, size: int = 40) -> Path:
    path.mkdir()
    torch.manual_seed(0)
    for name in ("a.png", "b.png", "c.png"):
        write_image(path / name, torch.rand(1, 1, size, size + 8) * 2 - 1)
    (path / "captions.csv").write_text(table)
    return path


GOOD = 'file,caption\na.png,a red bird\nb.png,"a blue bird, flying"\nc.png,bird\n'


def test_a_folder_with_captions(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "birds", GOOD)
    found = load_captions(folder, 28, 1)
    assert found.images.shape == (3, 1, 28, 28)
    assert found.texts[1] == "a blue bird, flying"
    config = dataclasses.replace(TINY, data=str(folder), steps=2, metrics="quick")
    done = train(config, out=tmp_path / "run", progress=partial(tqdm, disable=True))
    assert {"mmd_squared", "diversity"} & set(done.metrics)
    made = generate(tmp_path / "run", 2, text="a red bird", device="cpu")
    assert made.shape == (2, 1, 28, 28)
    with pytest.raises(
        InputError, match="not known, 'green'; known are a, bird, blue, flying, red"
    ):
        generate(tmp_path / "run", 2, text="a green bird", device="cpu")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,text\na.png,x\n", r"captions.csv has no column caption"),
        ("file,caption\na.png,\n", r"captions.csv, line 2: the caption has no word"),
        ("file,caption\na.png,bird\nz.png,bird\n", r"z.png cannot be read as an image"),
        ("file,caption\na.png,bird\n", r"names 1 images; at least 2 are needed"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, table: str, message: str) -> None:
    folder = _folder(tmp_path / "birds", table)
    with pytest.raises(InputError, match=message) as told:
        load_captions(folder, 28, 1)
    assert "\n" not in str(told.value)


def test_no_captions(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape("captions.csv is not there; give a folder")):
        load_captions(tmp_path, 28, 1)


def test_wrong_texts_are_drawn_for_the_whole_batch() -> None:
    """Each process takes its share of the images, so that several processes train like one."""
    recipe = TextToImageRecipe(TINY)
    seen = {}

    def critic(images: Tensor, **told: Tensor) -> Tensor:
        seen.update(told, images=images)
        return images.flatten(1).sum(1)

    recipe.critic = critic

    class State:
        generator, device = torch.Generator().manual_seed(0), torch.device("cpu")

        @staticmethod
        def share(values: Tensor) -> Tensor:
            return values

    batch = recipe.draw(State())
    fake = torch.zeros_like(batch.real)
    right, generated = recipe.scores_of(batch.real, fake, batch)
    assert len(right) == len(generated) == 16
    assert torch.equal(right[:8], right[8:])
    assert torch.equal(generated[8:], right[:8])  # the same images, with other texts
    assert torch.equal(seen["words"][:8], seen["words"][8:16])
    assert not torch.equal(seen["words"][:8], seen["words"][16:])
    assert copy.copy(batch.inputs).keys() == batch.wrong.keys()

"""The scores of generated text, and what a text-gan run makes of its data."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from ganlstm_fast.cli import main
from ganlstm_fast.training import InputError, train
from ganlstm_fast.training.checkpoint import load_checkpoint
from ganlstm_fast.training.configs import TextGANConfig
from ganlstm_fast.training.datasets import Vocabulary, load_text, text_windows
from ganlstm_fast.training.errors import UndefinedScore
from ganlstm_fast.training.metrics.generated_texts import (
    ITERATIONS,
    entropy,
    evaluate_texts,
    groups,
    kinds_of,
    known_words,
    self_overlap,
    share_in,
    trained_language_model,
)
from ganlstm_fast.training.state import start_run

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = TextGANConfig(
    steps=4,
    batch_size=8,
    seq_len=8,
    hidden=8,
    noise=4,
    pretrain=2,
    warmup_d=0,
    metrics="none",
    checkpoint_every=2,
    device="cpu",
)


@pytest.fixture(scope="module")
def real() -> tuple[torch.Tensor, torch.Tensor, Vocabulary]:
    text = load_text()
    vocabulary = Vocabulary.of(text)
    return *(part[::32] for part in text_windows(text, vocabulary, 32)), vocabulary


def test_entropy_of_groups() -> None:
    text = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]])
    assert entropy(text, 1, 4) == pytest.approx(2)
    assert entropy(text, 2, 4) == pytest.approx(math.log2(6))
    assert entropy(torch.zeros(3, 5, dtype=torch.int64), 2, 4) == 0


def test_shares_of_groups() -> None:
    text, other = torch.tensor([[0, 1, 0, 1]]), torch.tensor([[1, 0, 3, 3]])
    assert share_in(text, other, 2, 4) == pytest.approx(1 / 3)
    assert share_in(other, text, 2, 4) == pytest.approx(1 / 3)
    # A group that occurs twice in one window, and in no other, does not count.
    assert self_overlap(text, 2, 4) == 0
    assert self_overlap(torch.cat((text, other)), 2, 4) == pytest.approx(2 / 6)
    assert self_overlap(text.repeat(3, 1), 2, 4) == 1
    with pytest.raises(UndefinedScore, match="1 sequences of 4 symbols have no groups of 5"):
        share_in(text, other, 5, 4)


def test_long_groups_of_many_symbols_stay_apart() -> None:
    """Their numbers exceed 64 bits; with a power of two as base they must not lose a place."""
    text = torch.randint(64, (50, 16))
    changed = text.clone()
    changed[:, 15] = (changed[:, 15] + 1) % 64
    assert not torch.isin(groups(changed, 16, 64), groups(text, 16, 64)).any()
    assert share_in(text, text.flip(0), 16, 64) == 1


def test_known_words() -> None:
    windows = ["xx Thou, art! fxir yy", "zz thy-self   'tis; zz"]
    # The first and the last word of a window may be cut; thou, art and 'tis are known.
    assert known_words(windows, "thou art\nas 'Tis said") == pytest.approx(3 / 5)
    with pytest.raises(UndefinedScore, match="no whole words"):
        known_words(["nospaceshere"], "thou")


def test_noise_and_shuffled_words(real) -> None:
    train_text, _, vocabulary = real
    made = torch.zeros(2000, 32, dtype=torch.int64)
    kinds = kinds_of(train_text, made, vocabulary, torch.Generator().manual_seed(0))
    share = [torch.bincount(kinds[k].flatten(), minlength=59) / kinds[k].numel() for k in kinds]
    _, of_real, of_noise, of_shuffled = share
    torch.testing.assert_close(of_noise, of_real, atol=0.004, rtol=0)
    torch.testing.assert_close(of_shuffled, of_real)
    words = [sorted(vocabulary.decode(kind.flatten()).split()) for kind in (train_text,)]
    assert sorted(vocabulary.decode(kinds["shuffled"].flatten()).split()) == words[0]
    assert not torch.equal(kinds["shuffled"], train_text)


def test_a_language_model_learns_what_follows() -> None:
    text = (torch.randint(5, (200, 1)) + torch.arange(9)) % 5
    state = torch.get_rng_state()
    model = trained_language_model(text, 5, 150)
    assert torch.equal(torch.get_rng_state(), state)
    # The first of nine symbols is one of five, the others are certain.
    assert model.negative_log_likelihood(text) == pytest.approx(math.log(5) / 9, abs=0.05)
    assert model.negative_log_likelihood(text.flip(1)) > 1
    again = trained_language_model(text, 5, 150)
    assert again.negative_log_likelihood(text) == model.negative_log_likelihood(text)


def test_scores_tell_real_text_noise_and_collapse_apart(real) -> None:
    train_text, held, vocabulary = real
    ticks = []
    # Real text in the place of generated, a part that the scores do not have.
    half = len(train_text) // 2
    scores = evaluate_texts(
        train_text[:half], held, train_text[half:], vocabulary, 60, tick=lambda: ticks.append(1)
    )
    assert len(ticks) == 4 * 60
    for name, score in scores.items():
        assert score.keys() == {"generated", "real", "noise", "shuffled"}, name
        if not name.startswith("copied"):
            to_real = abs(score["generated"] - score["real"])
            assert to_real < 0.25 * abs(score["generated"] - score["noise"]), (name, score)
    one = train_text[:1].repeat(half, 1)
    collapsed = evaluate_texts(train_text[half:], held, one, vocabulary, 60)
    assert collapsed["self_overlap_of_4_grams"]["generated"] == 1
    assert collapsed["coverage_of_4_grams"]["generated"] < scores["coverage_of_4_grams"]["noise"]
    reverse = collapsed["reverse_language_model"]
    assert reverse["generated"] > reverse["noise"] > reverse["real"]
    copied = evaluate_texts(train_text[half:], held, train_text[half:], vocabulary, 1)
    assert copied["copied_16_grams"]["generated"] == 1
    assert copied["copied_16_grams"]["real"] == 0


def test_scores_of_short_windows_say_what_is_missing() -> None:
    text = torch.randint(4, (20, 3))
    scores = evaluate_texts(text, text[:5], text, Vocabulary(" abc"), 1)
    assert "no groups of 4" in scores["overlap_of_4_grams"]["generated"].reason
    assert scores["entropy_of_3_grams"]["generated"] > 0


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("critic", "reads"), [("lstm", True), ("conv", False)])
def test_pretraining_by_likelihood(tmp_path, critic, reads) -> None:
    folders = [
        train(
            dataclasses.replace(TINY, steps=steps, critic=critic), out=tmp_path / str(steps)
        ).folder
        for steps in (1, 2, 3)
    ]
    found = [load_checkpoint(folder)["model"] for folder in folders]
    layers = ("critic.prepare", "critic.lstm") if reads else ("critic.prepare", "critic.convs")
    parts = {"generator": [True, True], layers[0]: [reads, True], layers[1]: [reads, True]}
    parts["critic.head.weight" if reads else "critic.head"] = [False, True]
    for part, after in parts.items():
        weights = [
            torch.cat([v.flatten() for k, v in model.items() if k.startswith(part)])
            for model in found
        ]
        pairs = itertools.pairwise(weights)
        assert [not torch.equal(a, b) for a, b in pairs] == after, part
    history = load_checkpoint(folders[2])["history"]
    # Nearly as unsure as one that knows nothing: 59 symbols.
    assert history[0, 1] == pytest.approx(math.log(59), abs=0.2)
    assert (history[:2, 2:4] == 0).all()
    assert (history[:2, 0] > 3).all() if reads else (history[:2, [0, 4]] == 0).all()
    assert history[2, 4] > 0


@pytest.mark.usefixtures("undrawn")
def test_the_weight_of_the_likelihood_changes_the_generators_gradient(tmp_path) -> None:
    norms = []
    for weight in (0.0, 5.0):
        config = dataclasses.replace(TINY, pretrain=0, steps=1, likelihood=weight)
        folder = train(config, out=tmp_path / str(weight)).folder
        norms.append(load_checkpoint(folder)["history"][0, 5].item())
    assert norms[1] > 2 * norms[0]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "change", [{"feedback": False, "pretrain": 0, "likelihood": 0.0}, {"precision": "bf16-mixed"}]
)
def test_other_ways_to_train(tmp_path, change) -> None:
    folder = train(dataclasses.replace(TINY, **change), out=tmp_path / "r").folder
    assert load_checkpoint(folder)["history"].isfinite().all()


@pytest.mark.usefixtures("undrawn")
def test_evaluate_is_repeatable(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(ITERATIONS, "quick", 5)
    arguments = ["--steps=1", "--pretrain=1", "--hidden=4", "--metrics=none", "--device=cpu"]
    folder = tmp_path / "r"
    assert main(["train", "text-gan", *arguments, f"--out={folder}", "--quiet"]) == 0
    printed = []
    for _ in range(2):
        assert main(["evaluate", str(folder), "--metrics=quick", "--device=cpu"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    head, *lines = printed[0].splitlines()
    assert head.split() == ["generated", "shuffled", "noise", "real"]
    assert any(line.startswith("language_model") for line in lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "has no text, only spaces and line ends"),
        (b"aaaa" * 200, "has no symbol but 'a'; expected two or more"),
        (b"To be, or not to be.", "has 20 symbols, too few for windows of 8"),
        ("\u00fcber".encode("latin-1") * 99, "is not text in UTF-8"),
    ],
)
def test_files_that_are_no_text(tmp_path, capsys, content, message) -> None:
    file, out = tmp_path / "poems.txt", tmp_path / "r"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"poems\.txt .*"):
        start_run(dataclasses.replace(TINY, data=str(file)), out)
    arguments = ["train", "text-gan", f"--data={file}", "--seq-len=8", f"--out={out}"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(file) in error
    assert message in error
    assert not out.exists()

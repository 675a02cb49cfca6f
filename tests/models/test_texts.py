"""Models that read texts, from the model to the command."""

from __future__ import annotations

import dataclasses
import itertools
import re
from datetime import date
from functools import partial

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ganlstm_fast.cli import main
from ganlstm_fast.models import LSTMClassifier, SequenceToSequence, beam_search
from ganlstm_fast.training import InputError, classify, load_trained, train, translate
from ganlstm_fast.training.configs import SequenceToSequenceConfig, TextClassifierConfig
from ganlstm_fast.training.datasets import (
    Labelled,
    Vocabulary,
    date_pairs,
    dates_in_words,
    load_text,
    load_texts,
    one_line,
    pad_texts,
    text_pieces,
)
from ganlstm_fast.training.datasets.date_words import FORMATS
from ganlstm_fast.training.datasets.texts import TEXTS
from ganlstm_fast.training.metrics.texts import (
    most_frequent,
    nearest_targets,
    right_symbols,
    symbol_frequencies,
)

pytestmark = [pytest.mark.usefixtures("one_thread")]

B, STEPS, SYMBOLS, TARGETS = 4, 7, 9, 5
LENGTHS = torch.tensor([7, 4, 1, 6])
SOURCE = torch.randint(SYMBOLS, (B, STEPS), generator=torch.Generator().manual_seed(0))
TARGET = torch.randint(1, TARGETS, (B, 3), generator=torch.Generator().manual_seed(1))


def run(config, **options):
    return train(config, progress=partial(tqdm, disable=True), **options)


def seq2seq(**options) -> SequenceToSequence:
    return SequenceToSequence(SYMBOLS, TARGETS, embedding=4, hidden=5, **options)


@pytest.mark.parametrize("attention", ["additive", "dot"])
@pytest.mark.parametrize("layers", [1, 2])
def test_sequence_to_sequence_is_that_of_torchs_layers(attention: str, layers: int) -> None:
    options = {"attention": attention, "layers": layers}
    ours, torchs = seq2seq(**options).double(), seq2seq(lstm=nn.LSTM, **options).double()
    torchs.load_state_dict(ours.state_dict())
    for lengths in (None, LENGTHS):
        outs = [model(SOURCE, TARGET, lengths=lengths) for model in (ours, torchs)]
        assert outs[0].shape == (B, 4, TARGETS)
        torch.testing.assert_close(*outs)
        grads = [
            torch.autograd.grad(out.square().sum(), list(model.parameters()))
            for model, out in zip((ours, torchs), outs, strict=True)
        ]
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("attention", ["additive", "dot"])
def test_padding_of_the_source_does_not_matter(attention: str) -> None:
    model = seq2seq(attention=attention).double()
    other = torch.where(torch.arange(STEPS) < LENGTHS[:, None], SOURCE, 8 - SOURCE)
    together = model(SOURCE, TARGET, lengths=LENGTHS)
    assert torch.equal(together, model(other, TARGET, lengths=LENGTHS))
    weights = model.attended(SOURCE, TARGET, lengths=LENGTHS)
    assert weights.shape == (B, 4, STEPS)
    torch.testing.assert_close(weights.sum(2), torch.ones_like(weights[..., 0]))
    for b, length in enumerate(LENGTHS.tolist()):
        alone = model(SOURCE[b : b + 1, :length], TARGET[b : b + 1])
        torch.testing.assert_close(alone[0], together[b])
        assert (weights[b, :, length:] == 0).all()


def test_a_logit_knows_the_symbols_before_it_alone() -> None:
    model = seq2seq()
    changed = TARGET.clone()
    changed[:, 1] = TARGET[:, 1] % (TARGETS - 1) + 1
    one, two = model(SOURCE, TARGET), model(SOURCE, changed)
    torch.testing.assert_close(one[:, :2], two[:, :2])
    assert (one[:, 2] != two[:, 2]).any(1).all()


def _score(model: nn.Module, source: Tensor, written: tuple[int, ...], ended: bool) -> float:
    target = torch.tensor([written], dtype=torch.int64)
    chances = model(source, target).log_softmax(2)[0]
    wanted = F.pad(target[0], (0, 1))[: len(written) + ended]
    return chances[torch.arange(len(wanted)), wanted].mean().item()


def test_enough_beams_find_the_best_of_all_sequences() -> None:
    """The best sequences by exhaustive search: those that end and those of the greatest length."""
    torch.manual_seed(3)
    model = SequenceToSequence(SYMBOLS, 3, embedding=4, hidden=5).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    for b in range(B):
        source = SOURCE[b : b + 1]
        every = {
            (written, ended): _score(model, source, written, ended)
            for length in range(4)
            for written in itertools.product((1, 2), repeat=length)
            # Three steps; the end symbol may be one of them.
            for ended in ([True] if length < 3 else [False])
            if length or ended
        }
        best = max(every, key=every.get)
        found = model.translate(source, 3, beams=100)
        length = int(found.lengths)
        assert tuple(found.symbols[0, :length].tolist()) == best[0]
        assert (found.symbols[0, length:] == 0).all()
        assert found.scores.item() == pytest.approx(every[best], abs=1e-5)


def test_one_beam_is_greedy_and_rows_do_not_meet() -> None:
    torch.manual_seed(0)
    model = seq2seq(layers=2, dropout=0.5)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    together = model.translate(SOURCE, 7, lengths=LENGTHS, beams=1)
    three = model.translate(SOURCE, 7, lengths=LENGTHS.tolist(), beams=3)
    assert model.training
    for b, length in enumerate(LENGTHS.tolist()):
        source = SOURCE[b : b + 1, :length]
        written: list[int] = []
        model.eval()
        while len(written) < 7:
            target = torch.tensor([written], dtype=torch.int64)
            symbol = int(model(source, target)[0, -1].argmax())
            if symbol == 0:
                break
            written.append(symbol)
        model.train()
        assert together.symbols[b, : int(together.lengths[b])].tolist() == written
        alone = model.translate(source, 7, beams=3)
        size = int(three.lengths[b])
        assert int(alone.lengths) == size
        assert torch.equal(alone.symbols[0, :size], three.symbols[b, :size])


def test_beams_that_have_ended_stay() -> None:
    """A decoder by hand: the end, or one symbol and then a costly end."""
    table = torch.tensor([[0.6, 0.4, 0.0], [0.05, 0.05, 0.9], [0.05, 0.9, 0.05]]).log()

    def step(last: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        return table[last], state

    start = (torch.zeros(1, 2, 1),)
    found = beam_search(step, start, 4, beams=2)
    # log 0.6 is -0.51; 1 2 1 2 has a mean of (log 0.4 + 3 log 0.9) / 4 = -0.31.
    assert found.symbols.tolist() == [[1, 2, 1, 2]] * 2
    assert found.lengths.tolist() == [4, 4]
    greedy = beam_search(step, start, 4, beams=1)
    assert greedy.lengths.tolist() == [0, 0]
    assert greedy.scores.tolist() == pytest.approx([table[0, 0].item()] * 2)


def test_sequence_to_sequence_learns_to_reverse() -> None:
    torch.manual_seed(0)
    lengths = torch.randint(1, 6, (256,))
    target = torch.randint(1, 6, (256, 5))
    target = target.masked_fill(torch.arange(5) >= lengths[:, None], 0)
    back = (lengths[:, None] - 1 - torch.arange(5)).clamp(min=0)
    source = target.gather(1, back)
    model = SequenceToSequence(6, 6, embedding=8, hidden=24)
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        optimiser.zero_grad()
        logits = model(source, target, lengths=lengths)
        valid = torch.arange(6) <= lengths[:, None]
        F.cross_entropy(logits[valid], F.pad(target, (0, 1))[valid]).backward()
        optimiser.step()
    found = model.translate(source, 6, lengths=lengths)
    written = F.pad(found.symbols, (0, 6 - found.symbols.size(1)))
    assert (written[:, :5] == target).all(1).float().mean() > 0.95


def test_symbols_of_a_classifier_are_embedded() -> None:
    model = LSTMClassifier(4, 3, symbols=SYMBOLS, hidden=5, attention="additive").double()
    plain = LSTMClassifier(4, 3, hidden=5, attention="additive").double()
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("embedding")}
    plain.load_state_dict(state)
    embedded = model.embedding.weight[SOURCE]
    torch.testing.assert_close(model(SOURCE, lengths=LENGTHS), plain(embedded, lengths=LENGTHS))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SequenceToSequence(0, 5), "symbols: expected 1 or more, got 0"),
        (lambda: SequenceToSequence(5, 1), "targets: expected 2 or more, got 1"),
        (lambda: seq2seq(attention="none"), "attention: expected one of 'additive', 'dot'"),
        (lambda: seq2seq()(SOURCE.float(), TARGET), "source: expected an int64 tensor"),
        (lambda: seq2seq()(SOURCE[0], TARGET), r"source: expected shape \(batch, steps\)"),
        (lambda: seq2seq()(SOURCE + 9, TARGET), "source: expected values in 0..8, got"),
        (lambda: seq2seq()(SOURCE, TARGET - 5), "target: expected values in 0..4, got -"),
        (lambda: seq2seq().translate(SOURCE, 3, beams=0), "beams: expected 1 or more, got 0"),
        (lambda: LSTMClassifier(4, 2, symbols=0), "symbols: expected 1 or more, got 0"),
        (lambda: LSTMClassifier(4, 2, symbols=9)(SOURCE.double()), "sequence: expected an int64"),
    ],
)
def test_model_errors(call, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        call()


def test_ways_to_write_a_date() -> None:
    written = [write(date(1998, 3, 3)) for write in FORMATS]
    assert len(set(written)) == len(FORMATS)
    assert {
        "3 March 1998",
        "March 3, 1998",
        "3 Mar 1998",
        "March the 3rd, 1998",
        "the 3rd of March 1998",
        "Tuesday, 3 March 1998",
        "March the third, nineteen ninety-eight",
    } <= set(written)
    in_words = FORMATS[-1]
    assert in_words(date(2026, 11, 22)) == "the twenty-second of November, twenty twenty-six"
    assert in_words(date(1900, 5, 12)) == "the twelfth of May, nineteen hundred"
    assert in_words(date(1905, 1, 30)) == "the thirtieth of January, nineteen oh five"
    assert in_words(date(2000, 1, 11)) == "the eleventh of January, two thousand"
    assert in_words(date(2007, 1, 8)) == "the eighth of January, two thousand and seven"
    assert FORMATS[3](date(2012, 6, 12)) == "June the 12th, 2012"


def test_dates_are_held_out_by_date() -> None:
    pairs, test = date_pairs(300, 50)
    assert len({target for _, target in pairs + test}) == 350
    assert (pairs, test) == date_pairs(300, 50)
    assert pairs != date_pairs(300, 50, seed=1)[0]
    for source, target in pairs:
        found = re.search(r"\d{4}", source)
        assert found is None or target.startswith(found[0])
    with pytest.raises(ValueError, match="count: expected 73049 or less"):
        dates_in_words(80_000)


def test_pieces_of_the_bundled_texts() -> None:
    pieces, test = text_pieces()
    assert (pieces, test) == text_pieces()
    of_class = [sum(name == text for _, name in pieces) for text in TEXTS]
    assert of_class[0] == of_class[1] > 3000
    assert min(sum(name == text for _, name in test) for text in TEXTS) > 25
    lengths = {len(piece) for piece, _ in pieces + test}
    assert max(lengths) <= 200
    assert len(lengths) > 90
    whole = {name: one_line(load_text(file)) for name, file in TEXTS.items()}
    assert all(piece in whole[name] for piece, name in pieces[:200] + test)
    # The training set has nothing of the held-out set.
    known = {name: " ".join(p for p, n in pieces if n == name) for name in TEXTS}
    assert not any(piece[10:50] in known[name] for piece, name in test)


def test_padded_texts() -> None:
    numbers, lengths = pad_texts(["ab", "c"], Vocabulary("abc"))
    assert numbers.tolist() == [[0, 1], [2, 0]]
    assert lengths.tolist() == [2, 1]
    with pytest.raises(InputError, match="text 4 is empty"):
        pad_texts(["a", ""], Vocabulary("abc"), 2)
    with pytest.raises(InputError, match=r"text 1: the text has symbols .*\['z'\]"):
        pad_texts(["az"], Vocabulary("abc"))


def test_texts_of_a_table_stay_text(tmp_path) -> None:
    file = tmp_path / "texts.csv"
    file.write_text('text,label\n007,1.50\n"a, b\nc",2\n12 of 30,2\n')
    rows = [("007", "1.50"), ("a, b\nc", "2"), ("12 of 30", "2")]
    assert load_texts(file, ("text", "label")) == rows
    with pytest.raises(InputError, match="has no column body; it has text, label"):
        load_texts(file, ("body",))
    file.write_text("text,label\na,1\n ,2\n")
    with pytest.raises(InputError, match="column text is empty in line 3"):
        load_texts(file, ("text", "label"))


def test_simple_rivals() -> None:
    inputs, lengths = torch.tensor([[0, 0], [0, 1], [1, 1], [1, 0]]), torch.tensor([2, 1, 2, 1])
    part = Labelled(inputs, torch.tensor([0, 0, 1, 1]), ("a", "b"), lengths)
    assert symbol_frequencies(part, part, 2) == 1
    assert most_frequent(part.take(torch.tensor([0, 1, 2])), part) == 0.5
    pairs = [("one two", "12"), ("three four", "34")]
    assert nearest_targets(["tree four", "one too"], pairs) == ["34", "12"]
    assert right_symbols(["12", "345", ""], ["13", "34", "5"]) == 0.6


@pytest.mark.usefixtures("undrawn")
def test_translations_of_a_file(tmp_path, capsys, monkeypatch) -> None:
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    rows = [
        (" ".join(words[int(digit)] for digit in number), number)
        for number in (f"{k:03d}" for k in range(1000))
    ]
    file = tmp_path / "numbers.csv"
    pd.DataFrame(rows, columns=["words", "digits"]).to_csv(file, index=False)
    config = SequenceToSequenceConfig(
        data=str(file),
        source_column="words",
        target_column="digits",
        steps=150,
        hidden=24,
        embedding=8,
        lr=1e-2,
        device="cpu",
    )
    result = run(config, out=tmp_path / "r")
    assert result.metrics["count"] == 200
    assert result.metrics["exact_match"] > 0.8
    assert result.metrics["exact_match_of_nearest_text"] < 0.2
    table = pd.read_csv(tmp_path / "r" / "translations.csv", dtype=str)
    right = (table["target"] == table["translation"]).mean()
    assert right == pytest.approx(result.metrics["exact_match"])
    made = translate(result.folder, ["one two three", "nine nine nine"])
    assert made[0] == "123"
    assert main(["translate", str(result.folder), "--device", "cpu", "one two three"]) == 0
    assert capsys.readouterr().out == "123\n"
    picture = tmp_path / "looked.png"
    translate(result.folder, ["one two three", "nine"], picture=picture)
    assert picture.exists()
    out = tmp_path / "made.txt"
    monkeypatch.setattr("sys.stdin", _Lines("one two three\nnine nine nine\n"))
    assert main(["translate", str(result.folder), "-o", str(out), "--device=cpu"]) == 0
    assert out.read_text().splitlines() == made
    assert "2 lines" in capsys.readouterr().out
    for text, message in (("ONE", "text 1: the text has symbols"), (" ", "text 1 is empty")):
        assert main(["translate", str(result.folder), text]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    with pytest.raises(InputError, match="cannot classify"):
        classify(result.folder, texts=["one"])


class _Lines:
    """A standard input."""

    def __init__(self, text: str) -> None:
        self.text = text

    def read(self) -> str:
        return self.text


@pytest.mark.usefixtures("undrawn")
def test_texts_of_a_file_are_classified(tmp_path, capsys) -> None:
    file, random = tmp_path / "texts.csv", torch.Generator().manual_seed(0)
    rows = []
    for k in range(60):
        size = int(torch.randint(3, 9, (), generator=random))
        rows.append((" ".join([("good", "bad")[k % 2]] * size), ("praise", "blame")[k % 2]))
    table = pd.DataFrame(rows, columns=["body", "label"])
    table.to_csv(file, index=False)
    config = TextClassifierConfig(
        data=str(file), text_column="body", longest=30, steps=40, hidden=8, device="cpu"
    )
    result = run(config, out=tmp_path / "r")
    assert result.metrics["accuracy"] == 1
    assert result.metrics["accuracy_of_most_frequent_class"] == 0.5
    assert "texts are cut to 30 symbols" in result.metrics["data"][0]
    found = classify(result.folder)
    assert list(found["class"]) == list(table["label"])
    assert list(found.columns) == ["body", "class", "p_blame", "p_praise"]
    assert classify(result.folder, texts=["bad  bad\nbad"])["class"][0] == "blame"
    assert main(["classify", str(result.folder), "good good", "--device=cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("good good,praise,")
    for arguments, message in (
        (["no é"], "text 1: the text has symbols"),
        ([""], "text 1 is empty"),
        (["good", f"--data={file}"], "--data: expected none beside texts"),
    ):
        assert main(["classify", str(result.folder), *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "content", "message"),
    [
        (["text-classifier"], "text,label\na,x\nb,x\n", "two classes or more, got x"),
        (["text-classifier"], "text,label\na,x\nb,y\n", "5 sequences or more of a class"),
        (["text-classifier"], "body,label\na,x\n", "has no column text; it has body, label"),
        (["text-classifier", "--label-column=y"], "text,label\na,x\n", "has no column y"),
        (["text-classifier"], "text,label\n,x\n", "column text is empty in line 2"),
        (["text-classifier", "--noise=1"], "", "--noise: expected at least 0 and below 1"),
        (["sequence-to-sequence"], "source,target\na,x\n", "5 different texts or more"),
        (["sequence-to-sequence"], "source,to\na,x\n", "has no column target"),
        (["sequence-to-sequence", "--beams=0"], "", "--beams: expected 1 or more, got 0"),
    ],
)
def test_files_that_are_wrong(tmp_path, capsys, arguments, content, message) -> None:
    file, out = tmp_path / "texts.csv", tmp_path / "r"
    file.write_text(content)
    assert main(["train", *arguments, f"--data={file}", f"--out={out}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "config",
    [
        TextClassifierConfig(patience=5, metrics="quick", hidden=4, attention="none"),
        TextClassifierConfig(precision="bf16-mixed", metrics="none", hidden=4),
        SequenceToSequenceConfig(patience=5, metrics="none", hidden=4, attention="dot"),
        SequenceToSequenceConfig(precision="bf16-mixed", metrics="none", hidden=4, layers=2),
    ],
    ids=["watched", "bfloat16", "translation-watched", "translation-bfloat16"],
)
def test_other_settings(tmp_path, config) -> None:
    settings = {"steps": 2, "checkpoint_every": 1, "batch_size": 4, "device": "cpu"}
    folder = run(dataclasses.replace(config, **settings), out=tmp_path / "r").folder
    assert load_trained(folder).content["history"].isfinite().all()


def test_the_attention_is_drawn(tmp_path) -> None:
    from ganlstm_fast.training.pictures import plot_attention

    weights = torch.eye(3, 5)
    plot_attention(tmp_path / "a.png", [("a b c", "ab", weights), ("abc", "", weights[:1, :3])])
    assert (tmp_path / "a.png").stat().st_size > 1000

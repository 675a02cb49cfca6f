"""Whole trainings: the table of whole trainings, and the commands that make it."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import scores, text_stages
from benchmarks.report import scores as tables
from benchmarks.report.text_stages import section


def _result(*values, impl=None):
    """A result whose seeds have these scores; None: not reported."""
    seeds = [
        {
            "seed": seed,
            "train_seconds": 60.0 + seed,
            "scores": {"discriminative_score": {"generated": {"score": value}}, "reported": True},
        }
        for seed, value in enumerate(values)
    ]
    return {
        "schema": scores.SCHEMA,
        "command": "ganlstm-fast train lstm-gan",
        "impl": impl,
        "jobs": 2,
        "environment": {},
        "seeds": seeds,
    }


def test_table_has_the_mean_and_the_spread():
    text = tables.table([_result(0.02, 0.04), _result(0.1, impl="lstm=torch")])
    assert text.splitlines()[2:] == [
        "| `ganlstm-fast train lstm-gan` | 60 (60 .. 61), 2 at a time | discriminative score | "
        "0.030 (0.020 .. 0.040) of 2 seeds |",
        "| `GANLSTM_FAST_IMPL=lstm=torch ganlstm-fast train lstm-gan` | 60, 2 at a time | "
        "discriminative score | 0.100 |",
    ]


def test_table_tells_of_a_missing_score():
    assert "0.020, 1 of 2" in tables.table([_result(0.02, None)])


def test_another_schema_is_named_and_left_out(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps(_result(0.02)))
    (tmp_path / "b.json").write_text(json.dumps(_result(0.02) | {"schema": 99}))
    assert [found["name"] for found in tables.read(tmp_path)] == ["a"]
    assert "b.json: schema 99" in capsys.readouterr().err


def test_a_seed_is_trained_and_scored_by_commands(tmp_path):
    pytest.importorskip("sklearn")
    train = ["lstm-classifier", "--steps", "2", "--hidden", "4"]
    (found,) = scores.measure(train, seeds=1, jobs=1, impl=None, keep=tmp_path)
    assert found["seed"] == 0
    assert 0 <= found["scores"]["accuracy"] <= 1
    assert [path.name for path in tmp_path.iterdir()] == ["seed-0"]


def test_seeds_are_trained_at_the_same_time(tmp_path, monkeypatch):
    both = threading.Barrier(2, timeout=60)

    def command(*words, impl=None):
        if words[0] == "evaluate":
            return 0.0, json.dumps({"scored": words[1]})
        both.wait()
        return 1.0, words[words.index("--seed") + 1]

    monkeypatch.setattr(scores, "command", command)
    found = scores.measure(["lstm-gan"], seeds=2, jobs=2, impl=None, keep=tmp_path)
    assert [seed["seed"] for seed in found] == [0, 1]
    assert [seed["scores"]["scored"] for seed in found] == [
        str(tmp_path / f"seed-{seed}") for seed in (0, 1)
    ]


def test_each_kept_result_was_made_as_the_table_has_it():
    kept = {result["name"]: result for result in tables.read(scores.FOLDER)}
    assert kept.keys() == scores.KNOWN.keys()
    for name, known in scores.KNOWN.items():
        found = kept[name]
        assert found["command"] == known.command, name
        assert (found["impl"], len(found["seeds"])) == (known.impl, known.seeds), name
        # What it takes is rounded, of the mean.
        seconds = [seed["train_seconds"] for seed in found["seeds"]]
        mean = sum(seconds) / len(seconds) / 60
        assert known.takes == pytest.approx(mean, abs=0.6, rel=0.1), name


def test_commands_of_the_table_can_be_trained():
    """``ganlstm-fast train`` knows the model and the options of each."""
    from ganlstm_fast.cli_options import parse
    from ganlstm_fast.training.configs import MODELS

    for known in scores.KNOWN.values():
        options = parse(["train", *known.train.split()])
        assert options["model"] == known.train.split()[0]
        assert options["model"] in MODELS


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["sines"], {"sines": scores.KNOWN["sines"]}),
        (["--all"], scores.KNOWN),
        (["texts", "--seeds", "1"], {"texts": replace(scores.KNOWN["texts"], seeds=1)}),
        (["weather", "--", "dcgan", "--size", "64"], {"weather": ("dcgan --size 64", 5, 2, None)}),
    ],
)
def test_what_is_trained(arguments, expected):
    _, found = scores.chosen(scores._options(), arguments)
    if arguments[-1] == "64":
        found = {k: (v.train, v.seeds, v.jobs, v.impl) for k, v in found.items()}
    assert found == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected the NAME of a result, or one of --all and --list"),
        (["sines", "--all"], "expected the NAME of a result, or one of --all and --list"),
        (["nothing"], "nothing: expected one of anomaly, classifier"),
        (["sines", "--jobs", "0"], "--jobs: expected 1 or more, got 0"),
    ],
)
def test_what_cannot_be_trained(capsys, arguments, message):
    with pytest.raises(SystemExit):
        scores.main(arguments)
    assert message in capsys.readouterr().err


def test_all_are_made_and_one_that_fails_is_named(tmp_path, monkeypatch, capsys):
    made = []

    def measure(train, seeds, jobs, impl, keep):
        made.append((*train, seeds, jobs, impl))
        if train[0] == "bad":
            raise scores.Failed("bad: no such model")
        return _result(0.02)["seeds"]

    known = {"a": scores.Known("lstm-gan --data sines", 1, seeds=2), "b": scores.Known("bad", 1)}
    known["c"] = scores.Known("dcgan", 1, impl="lstm=torch")
    monkeypatch.setattr(scores, "KNOWN", known)
    monkeypatch.setattr(scores, "measure", measure)
    monkeypatch.setattr(scores, "FOLDER", tmp_path)
    monkeypatch.setattr(scores, "ROOT", tmp_path)
    assert scores.main(["--all"]) == 1
    assert made == [
        ("lstm-gan", "--data", "sines", 2, 1, None),
        ("bad", 1, 1, None),
        ("dcgan", 1, 1, "lstm=torch"),
    ]
    written = {result["name"]: result for result in tables.read(tmp_path)}
    assert {name: result["command"] for name, result in written.items()} == {
        "a": "ganlstm-fast train lstm-gan --data sines",
        "c": "ganlstm-fast train dcgan",
    }
    captured = capsys.readouterr()
    assert "bad: no such model" in captured.err
    assert "b: ganlstm-fast train bad: a seed, usually 1 min each" in captured.out


def _stage(title, steps, **scores):
    """A stage whose scores stand beside noise of 4 and real text of 2."""
    beside = {"noise": 4.0, "shuffled": 3.0, "real": 2.0}
    return {
        "title": title,
        "command": f"ganlstm-fast train text-gan --steps {steps}",
        "seconds": 12.0,
        "scores": {"steps": steps}
        | {name: {"generated": value, **beside} for name, value in scores.items()},
        "samples": [f"by {title}"],
    }


def test_stages_of_text_are_put_on_the_way_from_noise_to_real():
    early = _stage("early", 2, entropy_of_2_grams=3.5, language_model=3.9, copied_16_grams=4.0)
    late = _stage("trained", 9, entropy_of_2_grams=2.5, language_model=1.9, copied_16_grams=4.0)
    result = {
        "stages": [early, late],
        "beside": {name: [f"some {name}"] for name in ("noise", "shuffled", "real")},
        "environment": {"device": "Some CPU", "torch": "2.13", "commit": "abc"},
    }
    lines = section(result).splitlines()
    assert lines[0].startswith(
        "Of 2 scores of the trained generator, 2 are nearer to those of real"
    )
    assert lines[0].endswith("beyond those of real text: language model.")
    assert "It is nearer to real text than the other stages are in: early 2 of 2 scores." in lines
    assert "| entropy of 2 grams | 25% | 75% |" in lines
    assert "| language model | 5% | 105% |" in lines
    assert "| language model | 4.000 | 3.900 | 1.900 | 3.000 | 2.000 |" in lines
    assert not any("copied" in line and "%" in line for line in lines)
    assert "| trained | `ganlstm-fast train text-gan --steps 9` | 12 |" in lines
    assert {"some noise", "by early", "by trained", "some real"} <= set(lines)


def test_a_stage_goes_on_with_the_run_before_it(tmp_path, monkeypatch):
    called = []

    def command(*words, impl=None):
        called.append(words)
        out = words[words.index("--out") + 1] if "--out" in words else None
        if out is not None:
            Path(out).mkdir()
        return 2.0, "{}" if words[0] == "evaluate" else "one\ntwo\n"

    monkeypatch.setattr(text_stages, "command", command)
    stages = [text_stages.Stage("a", "", 3), text_stages.Stage("b", "", 5)]
    stages.append(text_stages.Stage("c", "--pretrain 5", 5))
    found = list(text_stages.run(stages, tmp_path))
    trained = [" ".join(words) for words in called if words[0] == "train"]
    one, two = tmp_path / "run-0", tmp_path / "run-1"
    end = "--metrics none --quiet"
    assert trained == [
        f"train text-gan --seed 0 --out {one} --steps 3 {end}",
        f"train --resume {one} --steps 5 {end}",
        f"train text-gan --pretrain 5 --seed 0 --out {two} --steps 5 {end}",
    ]
    assert [stage["seconds"] for stage in found] == [2.0, 4.0, 2.0]
    assert [stage["samples"] for stage in found] == [["one", "two"]] * 3


def test_a_command_s_own_message_is_told(tmp_path):
    with pytest.raises(scores.Failed, match="--batch-size: expected"):
        scores.run_seed(["lstm-gan", "--batch-size", "0"], 0, tmp_path / "run", None)

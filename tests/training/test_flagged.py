"""Windows above a threshold: which are flagged, and what the user is told."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from ganlstm_fast.cli import main
from ganlstm_fast.training import evaluate_run, score, train
from ganlstm_fast.training.checkpoint import add_to_data, load_checkpoint
from ganlstm_fast.training.configs import AnomalyConfig
from ganlstm_fast.training.flagged import flagged_rows, flagged_words
from ganlstm_fast.training.metrics import PROTOCOLS, Protocol

TINY = AnomalyConfig(
    steps=2,
    batch_size=8,
    hidden=4,
    noise=2,
    seq_len=6,
    search_steps=2,
    planted=1,
    metrics="none",
    device="cpu",
)


def scores(first, totals, length=10, threshold=1.0, **columns):
    first, totals = np.array(first), np.array(totals, dtype=float)
    table = pd.DataFrame({**columns, "first_row": first, "last_row": first + length - 1})
    table = table.assign(total=totals, flagged=totals > threshold)
    table.attrs = {"threshold": threshold, "changed": []}
    return table


def test_rows_of_windows_that_overlap_are_one_stretch():
    table = scores([1, 2, 5, 11, 12, 40, 70], [2, 3, 0, 2, 1.5, 9, 0])
    assert flagged_words(table) == (
        "5 of 7 windows lie above the threshold of 1, the worst first: rows 40 to 49, rows 1 to 21"
    )
    # As from a file with its newest row first.
    backward = table.assign(first_row=table["last_row"], last_row=table["first_row"])
    assert flagged_rows(backward).equals(flagged_rows(table))
    table.attrs["changed"] = ["c"]
    assert "threshold of 1, or have a change of c, constant in training, the" in flagged_words(
        table
    )


def test_rows_of_several_series_are_told_apart_and_times_are_said():
    days = pd.date_range("2020-01-01", periods=40)
    first = [1, 2, 4, 20]
    table = scores(first, [2, 2, 2, 3], m=["a", "b", "a", "b"])
    table.insert(3, "first_time", days[[k - 1 for k in first]])
    table.insert(4, "last_time", days[[k + 8 for k in first]])
    assert flagged_words(table).endswith(
        ": b rows 20 to 29 (2020-01-20 to 2020-01-29), a rows 1 to 13 (2020-01-01 to 2020-01-13), "
        "b rows 2 to 11 (2020-01-02 to 2020-01-11)"
    )


def test_many_stretches_are_counted():
    line = flagged_words(scores(range(1, 200, 20), np.arange(10) + 2))
    assert line.endswith("rows 101 to 110 and 5 more")
    none = scores([1, 2], [0, 0])
    assert flagged_words(none) == "none of 2 windows lies above the threshold of 1"
    none.attrs["threshold"] = None
    assert flagged_words(none).startswith("no window is flagged: the run has no threshold")


@pytest.mark.usefixtures("undrawn")
def test_score_flags_what_is_above_the_threshold_of_held_out_windows(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PROTOCOLS, "quick", Protocol(2, 2))
    rows = 300
    dates = pd.date_range("2020-01-01", periods=rows)
    wave = np.sin(np.arange(rows) / 5) + 0.1 * np.random.default_rng(0).normal(size=rows)
    table = pd.DataFrame({"date": dates, "c": 5, "x": wave, "y": np.roll(wave, 9)})
    file, run = tmp_path / "t.csv", tmp_path / "r"
    table.to_csv(file, index=False)
    config = dataclasses.replace(TINY, data=str(file), threshold_quantile=0.9)
    metrics = train(config, out=run, warn=str).metrics
    assert load_checkpoint(run)["data"]["threshold"] == metrics["threshold"]
    written = pd.read_csv(run / "scores.csv")
    assert (written["flagged"] == (written["total"] > metrics["threshold"])).all()

    # The threshold flags about a tenth of the held-out rows without anomalies.
    held = tmp_path / "held.csv"
    table.tail(150).to_csv(held, index=False)
    found = score(run, str(held))
    assert found.attrs == {"threshold": metrics["threshold"], "changed": []}
    assert found["flagged"].mean() == pytest.approx(0.1, abs=0.03)

    table = table.tail(60)
    table.iloc[20, 2] = 40
    table.iloc[40:42, 1] = 6
    table.to_csv(held, index=False)
    found = score(run, str(held))
    assert found["flagged"][15:21].all()
    assert found["flagged"][35:42].all()
    assert found.attrs["changed"] == ["c"]
    out = tmp_path / "scores.csv"
    assert main(["score", str(run), f"--data={held}", f"--output={out}", "--device=cpu"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == flagged_words(found)
    assert "or have a change of c, constant in training, the worst first: " in line
    assert (pd.read_csv(out)["flagged"] == found["flagged"]).all()

    # A run that was stopped before it had one.
    add_to_data(run / "checkpoint.pt", threshold=None)
    assert main(["score", str(run), f"--data={held}", "--device=cpu"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("no window is flagged: the run has no threshold")
    assert "True" not in captured.out
    metrics = evaluate_run(run, device="cpu")
    assert load_checkpoint(run)["data"]["threshold"] == metrics["threshold"]
    assert 0 <= metrics["anomalies_found"] <= 1
    assert {"threshold", "anomalies_found", "recall"} <= metrics["meaning"].keys()
    assert json.loads((run / "metrics.json").read_text()) == metrics

"""The scores tell different data apart, and equal data not."""

import dataclasses
import json
import math

import pytest
import torch
from torch import nn

from ganlstm_fast.training.datasets import sines
from ganlstm_fast.training.errors import InputError, UndefinedScore
from ganlstm_fast.training.metrics import (
    PROTOCOLS,
    ParallelGRU,
    Protocol,
    evaluate,
    timegan,
)
from ganlstm_fast.training.metrics.timegan import why_not_valid
from ganlstm_fast.training.windows import windows


def waves(rows: int) -> torch.Tensor:
    """[rows, 4] in [0, 1]: periodic, so that every fold looks alike."""
    t = torch.arange(rows)[:, None] * 2 * math.pi / torch.tensor([6.0, 7.0, 8.0, 9.0])
    return 0.2 + 0.2 * torch.sin(t)


def test_parallel_networks_are_independent():
    """Trained together they end where each ends alone."""
    joint = ParallelGRU(3, 2, 2, torch.Generator().manual_seed(0))
    x, y = torch.randn(3, 8, 5, 2), torch.randn(3, 8, 5)
    alone = []
    for k in range(3):
        gru, head = nn.GRU(2, 2, batch_first=True), nn.Linear(2, 1)
        with torch.no_grad():
            block = slice(2 * k, 2 * k + 2)
            for name, parameter in gru.named_parameters():
                whole = getattr(joint.gru, name).unflatten(0, (3, 6))[:, block]
                whole = whole[..., block] if name.startswith("weight") else whole
                parameter.copy_(whole.flatten(0, 1))
            head.weight.copy_(joint.head[k])
            head.bias.copy_(joint.bias[k])
        alone.append(nn.ModuleList([gru, head]))

    def train(parameters, loss):
        optimiser = torch.optim.Adam(list(parameters), 1e-2)
        for _ in range(20):
            optimiser.zero_grad()
            loss().backward()
            optimiser.step()

    train(joint.parameters(), lambda: (joint(x) - y).square().mean((1, 2)).sum())
    for k, (gru, head) in enumerate(alone):
        train(
            [*gru.parameters(), *head.parameters()],
            lambda k=k, gru=gru, head=head: (head(gru(x[k])[0])[..., 0] - y[k]).square().mean(),
        )
        torch.testing.assert_close(head(gru(x[k])[0])[..., 0], joint(x)[k], rtol=1e-4, atol=1e-5)


def test_scores_of_an_easy_set():
    rows = waves(1000)
    real = windows(rows, 12)
    generated = real[torch.randperm(len(real))]
    far = 0.9 + 0.1 * torch.rand(len(real), 12, 4)
    # The protocol's learning rate times ten makes up for fewer iterations.
    quick = Protocol(discriminative_iterations=250, predictive_iterations=250, learning_rate=1e-2)
    ticks = []
    result = evaluate(rows, generated, far, protocol=quick, tick=lambda: ticks.append(1))
    told, missed = result["discriminative_score"], result["predictive_score"]
    assert result["reported"], result["reason"]
    assert told["noise"]["score"] >= 0.45
    assert told["untrained"]["score"] >= 0.45
    assert told["real"]["score"] <= 0.05
    assert told["generated"]["score"] <= 0.1
    assert missed["generated"]["score"] < 0.5 * missed["noise"]["score"]
    assert missed["real"]["score"] < 0.5 * missed["noise"]["score"]
    assert len(ticks) == 500
    assert len(told["generated"]["accuracy_of_folds"]) == quick.folds


def test_no_score_from_a_test_that_proves_nothing():
    rows = waves(400)
    real = windows(rows, 12)
    result = evaluate(rows, real, real, protocol=Protocol(1, 1))
    assert not result["reported"]
    assert "noise" in result["reason"]
    assert result["discriminative_score"]["generated"] is None
    assert result["predictive_score"]["generated"] is None
    assert "real windows" in why_not_valid(0.5, 0.06)
    assert why_not_valid(0.45, 0.05) is None
    assert why_not_valid(math.nan, 0.0) is not None


def test_an_interrupt_ends_both_scores():
    rows = waves(400)
    real = windows(rows, 12)

    def tick():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(rows, real, real, protocol=Protocol(10**9, 10**9), tick=tick)


def test_too_few_rows():
    rows = waves(40)
    real = windows(rows, 12)
    with pytest.raises(UndefinedScore, match="too few"):
        evaluate(rows, real, real, protocol=PROTOCOLS["quick"])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_series_of_a_generator_that_diverged_have_no_score(bad):
    """Their NaN would spread to the networks of the other kinds, which train in one batch."""
    rows = waves(300)
    real = windows(rows, 8)
    diverged = real.clone()
    diverged[-1, -1, -1] = bad
    for kinds in ((diverged, real), (real, diverged)):
        with pytest.raises(UndefinedScore, match="expected finite values"):
            evaluate(rows, *kinds, protocol=Protocol(1, 1))


def test_constant_series_are_scored():
    rows = torch.zeros(300, 2)
    real = windows(rows, 8)
    result = evaluate(rows, real, real, protocol=Protocol(200, 20, learning_rate=1e-2))
    assert result["reported"], result["reason"]
    assert result["discriminative_score"]["generated"]["score"] == 0
    assert result["discriminative_score"]["real"]["score"] == 0


def test_one_channel():
    rows = waves(300)[:, :1]
    real = windows(rows, 8)
    assert "predictive_score" in evaluate(rows, real, real, protocol=Protocol(2, 2))


# The protocol's learning rate times ten makes up for fewer iterations.
SHORT = Protocol(discriminative_iterations=250, predictive_iterations=100, learning_rate=1e-2)


def test_independent_series_over_several_seeds():
    """No rows are shared, so that there is a score, and one for every seed."""
    generator = torch.Generator().manual_seed(0)
    real = sines(1200, 12, 4, generator)
    protocol = dataclasses.replace(SHORT, folds=2, seeds=3)
    ticks = []
    result = evaluate(
        real,
        sines(1200, 12, 4, generator),
        1 - real,
        protocol=protocol,
        tick=lambda: ticks.append(1),
    )
    assert result["reported"], result["reason"]
    assert len(ticks) == protocol.iterations == 3 * 350
    told = result["discriminative_score"]
    assert told["noise"]["score"] >= 0.45
    assert told["untrained"]["score"] >= 0.45
    assert told["real"]["score"] <= 0.05
    assert told["generated"]["score"] <= 0.05
    for kinds in (told, result["predictive_score"]):
        for scores in kinds.values():
            each = scores["score_of_seeds"]
            assert len(each) == 3
            assert scores["score"] == pytest.approx(sum(each) / 3)
            mean = sum(each) / 3
            assert scores["spread"] == pytest.approx(
                (sum((s - mean) ** 2 for s in each) / 2) ** 0.5
            )
    assert len(set(result["predictive_score"]["real"]["score_of_seeds"])) == 3
    assert json.loads(json.dumps(result)) == result


def test_one_seed_of_several_is_that_seed():
    rows = waves(300)
    real = windows(rows, 8)
    short = Protocol(20, 20)
    both = evaluate(rows, real, real, protocol=dataclasses.replace(short, seeds=2), seed=5)
    alone = [evaluate(rows, real, real, protocol=short, seed=s) for s in (5, 6)]
    for score in ("discriminative_score", "predictive_score"):
        each = [run[score]["noise"]["score"] for run in alone]
        assert both[score]["noise"]["score_of_seeds"] == each
        assert alone[0][score]["noise"]["spread"] is None
    folds = [run["predictive_score"]["real"]["error_of_folds"] for run in alone]
    assert both["predictive_score"]["real"]["error_of_folds"] == pytest.approx(
        [sum(pair) / 2 for pair in zip(*folds, strict=True)], rel=1e-9
    )


@pytest.mark.parametrize(("noise", "real", "word"), [(0.44, 0.0, "noise"), (0.5, 0.06, "real")])
def test_no_score_beyond_the_bounds(monkeypatch, noise, real, word):
    """Whatever the generated series score; the bounds hold for the mean over the seeds."""
    seeds = iter((-0.005, 0.005))

    def accuracies(pairs, *rest):
        off = next(seeds)
        return [
            [0.5 + score + off] * len(folds)
            for folds, score in zip(pairs, (0.0, 0.5, noise, real), strict=True)
        ]

    monkeypatch.setattr(timegan, "discriminative_accuracies", accuracies)
    protocol = Protocol(1, 1, seeds=2)
    series = torch.rand(40, 6, 2)
    result = evaluate(series, series, series, protocol=protocol)
    assert not result["reported"]
    assert result["reason"].startswith(word)
    assert result["discriminative_score"]["generated"] is None
    assert result["predictive_score"]["generated"] is None
    assert result["discriminative_score"]["noise"]["score"] == pytest.approx(noise)


def test_series_that_do_not_fit():
    real = torch.rand(40, 6, 2)
    with pytest.raises(
        ValueError, match=r"generated: expected shape \('n', 6, 2\), got \(40, 5, 2\)"
    ):
        evaluate(real, real[:, :5], real)
    with pytest.raises(ValueError, match=r"untrained: expected shape \('n', 6, 2\)"):
        evaluate(real, real, real[..., :1])
    with pytest.raises(ValueError, match=r"untrained: expected shape \('n', 5, 2\)"):
        evaluate(torch.rand(500, 2), real[:, :5], real)
    with pytest.raises(InputError, match="generated: 9 series are too few"):
        evaluate(real, real[:9], real)
    with pytest.raises(InputError, match="9 series are too few"):
        evaluate(real[:9], real, real)

"""The scores tell apart what differs, and nothing else."""

import math

import pytest
import torch
from torch import nn

from ganlstm_fast.training.data import windows
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.metrics import (
    PROTOCOLS,
    ParallelGRU,
    Protocol,
    _why_not_valid,
    evaluate,
)


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
    assert "real windows" in _why_not_valid(0.5, 0.06)
    assert _why_not_valid(0.45, 0.05) is None
    assert _why_not_valid(math.nan, 0.0) is not None


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
    with pytest.raises(InputError, match="too few"):
        evaluate(rows, real, real, protocol=PROTOCOLS["quick"])


def test_one_channel():
    rows = waves(300)[:, :1]
    real = windows(rows, 8)
    assert "predictive_score" in evaluate(rows, real, real, protocol=Protocol(2, 2))

"""The forecaster and the classifier of series."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlstm_fast.models import (
    LSTMClassifier,
    LSTMForecaster,
    quantile_loss,
)
from ganlstm_fast.models.sequence import SequenceEncoder

pytestmark = pytest.mark.usefixtures("one_thread")

B, T, CLASSES = 4, 7, 5
LENGTHS = [7, 4, 1, 6]
LABELS = torch.tensor([0, 3, 3, 4])


@pytest.mark.parametrize("attention", [None, "additive", "dot"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["", "bidirectional"])
@pytest.mark.parametrize("quantiles", [None, (0.1, 0.5, 0.9)], ids=["mean", "quantiles"])
def test_forecaster(attention: str | None, bidirectional: bool, quantiles) -> None:
    options = {"attention": attention, "bidirectional": bidirectional, "quantiles": quantiles}
    ours = LSTMForecaster(3, 2, targets=4, hidden=5, layers=2, **options).double()
    torchs = LSTMForecaster(3, 2, targets=4, hidden=5, layers=2, lstm=nn.LSTM, **options).double()
    torchs.load_state_dict(ours.state_dict())
    x, target = torch.randn(B, T, 3).double(), torch.randn(B, 2, 4).double()
    for lengths in (None, LENGTHS):
        outs = [model(x, lengths=lengths) for model in (ours, torchs)]
        assert outs[0].shape == (B, 2, 4, *([3] if quantiles else []))
        grads = [
            torch.autograd.grad(model.loss(out, target), list(model.parameters()))
            for model, out in zip((ours, torchs), outs, strict=True)
        ]
        torch.testing.assert_close(outs[0], outs[1])
        torch.testing.assert_close(grads[0], grads[1])
    _check_padding(ours, x)


def _check_padding(model: nn.Module, x: Tensor) -> None:
    padded = x.clone()
    for b, length in enumerate(LENGTHS):
        padded[b, length:] = math.nan
    padded.requires_grad_()
    out = model(padded, lengths=LENGTHS)
    out.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    for b, length in enumerate(LENGTHS):
        assert (padded.grad[b, length:] == 0).all()
        assert padded.grad[b, :length].any()
        torch.testing.assert_close(out[b], model(x[b : b + 1, :length])[0])


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["", "lengths"])
@pytest.mark.parametrize("attention", [None, "additive", "dot"])
def test_the_summary_is_the_last_layers_state_of_both_directions(lengths, attention) -> None:
    encoder = SequenceEncoder(3, 5, 2, bidirectional=True, attention=attention)
    x = torch.randn(B, T, 3)
    summary = encoder(x, lengths)
    outputs = encoder.lstm(x, lengths=lengths)[0]
    ends = torch.tensor(lengths or [T] * B) - 1
    expected = torch.cat((outputs[torch.arange(B), ends, :5], outputs[:, 0, 5:]), 1)
    torch.testing.assert_close(summary[:, :10], expected)
    assert summary.shape == (B, encoder.size)
    if attention is not None:
        pooled, _ = encoder.attention(outputs, expected, lengths=lengths)
        torch.testing.assert_close(summary[:, 10:], pooled)


def test_residual_forecast() -> None:
    for quantiles in (None, (0.2, 0.8)):
        model = LSTMForecaster(3, 2, hidden=4, quantiles=quantiles, residual=True)
        for parameter in model.head.parameters():
            nn.init.zeros_(parameter)
        x = torch.randn(B, T, 3)
        out = model(x, lengths=LENGTHS)
        for b, length in enumerate(LENGTHS):
            last = x[b, length - 1].view(1, 3, *([1] if quantiles else []))
            assert torch.equal(out[b], last.expand(model.shape))
        assert torch.equal(model(x), model(x, lengths=[T] * B))
        _check_padding(model.double(), x.double())


def test_quantile_loss_is_least_at_the_quantile() -> None:
    sample = torch.linspace(0, 1, 1001, dtype=torch.float64)
    guesses = torch.linspace(0, 1, 101, dtype=torch.float64)
    for q in (0.1, 0.5, 0.8):
        losses = [quantile_loss(g.expand(1001, 1), sample, (q,)) for g in guesses]
        assert guesses[torch.stack(losses).argmin()].item() == pytest.approx(q, abs=1e-9)
    # By hand: above the target the weight is 1 - q, below it q.
    prediction = torch.tensor([[3.0, 3.0], [1.0, 1.0]])
    loss = quantile_loss(prediction, torch.tensor([2.0, 4.0]), (0.25, 0.5))
    assert loss.item() == pytest.approx((0.75 + 0.5 + 0.75 + 1.5) / 4)


@pytest.mark.parametrize("quantiles", [None, (0.5,)], ids=["mean", "median"])
def test_a_forecaster_learns_a_sine(quantiles) -> None:
    phase = torch.rand(64, 1) * 2 * math.pi
    series = torch.sin(phase + 0.3 * torch.arange(24)).unsqueeze(2)
    x, target = series[:, :20], series[:, 20:]
    model = LSTMForecaster(1, 4, hidden=16, quantiles=quantiles)
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(100):
        optimiser.zero_grad()
        model.loss(model(x), target).backward()
        optimiser.step()
    error = model(x).reshape(target.shape) - target
    same = x[:, -1:] - target
    assert error.square().mean() < 0.02 * same.square().mean()


@pytest.mark.parametrize("attention", [None, "additive", "dot"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["", "bidirectional"])
def test_classifier(attention: str | None, bidirectional: bool) -> None:
    options = {"hidden": 5, "layers": 2, "attention": attention, "bidirectional": bidirectional}
    ours = LSTMClassifier(3, CLASSES, **options).double()
    torchs = LSTMClassifier(3, CLASSES, lstm=nn.LSTM, **options).double()
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(B, T, 3).double()
    for lengths in (None, LENGTHS):
        outs = [model(x, lengths=lengths) for model in (ours, torchs)]
        grads = [
            torch.autograd.grad(F.cross_entropy(out, LABELS), list(model.parameters()))
            for model, out in zip((ours, torchs), outs, strict=True)
        ]
        assert outs[0].shape == (B, CLASSES)
        torch.testing.assert_close(outs[0], outs[1])
        torch.testing.assert_close(grads[0], grads[1])
        torch.testing.assert_close(ours.predict_proba(x, lengths=lengths), outs[0].softmax(1))
    _check_padding(ours, x)


def test_probabilities_are_without_dropout() -> None:
    model = LSTMClassifier(3, 2, dropout=0.5)
    x = torch.randn(B, T, 3)
    assert LSTMClassifier(3, 2, layers=2, dropout=0.5).encoder.lstm.dropout == 0.5
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.predict_proba(x), model.predict_proba(x))
    assert not model.predict_proba(x).requires_grad
    assert all(part.training for part in model.modules())


@pytest.mark.parametrize("attention", [None, "additive", "dot"])
def test_a_classifier_learns_where_the_mark_is(attention: str | None) -> None:
    """Which of two channels holds a mark, at any step of padded sequences."""
    classes = torch.arange(64) % 2
    lengths = torch.randint(3, 13, (64,))
    x = 0.1 * torch.randn(64, 12, 2)
    x[torch.arange(64), (lengths * torch.rand(64)).long(), classes] += 2
    model = LSTMClassifier(2, 2, hidden=8, attention=attention)
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(model(x, lengths=lengths), classes).backward()
        optimiser.step()
    assert (model.predict_proba(x, lengths=lengths).argmax(1) == classes).float().mean() > 0.95


def test_loss_errors() -> None:
    model = LSTMForecaster(3, 2)
    out = model(torch.randn(B, T, 3))
    with pytest.raises(ValueError, match=r"target: expected shape \(4, 2, 3\), got \(4, 3\)"):
        model.loss(out, torch.randn(B, 3))
    with pytest.raises(ValueError, match=r"target: expected shape \(4, 2, 3\), got \(4, 3\)"):
        quantile_loss(out.unsqueeze(3), torch.randn(B, 3), (0.5,))
    with pytest.raises(ValueError, match=r"quantiles: expected shape \(1\), got \(2,\)"):
        quantile_loss(out.unsqueeze(3), torch.randn(B, 2, 3), (0.5, 0.6))

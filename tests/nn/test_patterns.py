"""What authors do with PyTorch's layers, done with ours: the same numbers as with PyTorch's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector, prune, vector_to_parameters

import ganlstm_fast as gf

F64 = torch.float64


def _pair(**options: object) -> tuple[gf.FastLSTM, nn.LSTM]:
    ours, torchs = gf.FastLSTM(3, 4, dtype=F64, **options), nn.LSTM(3, 4, dtype=F64, **options)
    torchs.load_state_dict(ours.state_dict())
    return ours, torchs


def _x(seed: int = 0) -> Tensor:
    return torch.randn(5, 2, 3, dtype=F64, generator=torch.Generator().manual_seed(seed))


def _assert_same(ours: nn.Module, torchs: nn.Module) -> None:
    """Outputs, and the gradients of all parameters, which have the same names."""
    results = []
    for layer in (ours, torchs):
        names, parameters = zip(*layer.named_parameters(), strict=True)
        y = layer(_x())[0]
        results.append([names, y, torch.autograd.grad(y.sin().sum(), parameters)])
    assert results[0][0] == results[1][0]
    torch.testing.assert_close(results[0][1:], results[1][1:])


def test_pruning() -> None:
    pair = _pair(num_layers=2)
    for layer in pair:
        prune.l1_unstructured(layer, "weight_hh_l0", 0.5)
        prune.ln_structured(layer, "weight_ih_l1", 0.25, n=2, dim=0)
    _assert_same(*pair)
    for layer in pair:
        optimizer = torch.optim.SGD(layer.parameters(), 0.1)
        layer(_x())[0].square().sum().backward()
        optimizer.step()
        prune.remove(layer, "weight_hh_l0")
        assert (layer.weight_hh_l0 == 0).sum() == 32
    _assert_same(*pair)


class WeightDrop(nn.Module):
    """As in AWD-LSTM: the recurrent weight is a function of another parameter at each call."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.lstm = lstm
        weight = lstm.weight_hh_l0
        del lstm._parameters["weight_hh_l0"]
        lstm.register_parameter("weight_hh_l0_raw", nn.Parameter(weight.detach()))

    def forward(self, x: Tensor) -> tuple[Tensor, object]:
        torch.manual_seed(7)
        raw = self.lstm.weight_hh_l0_raw
        self.lstm.weight_hh_l0 = nn.functional.dropout(raw, 0.5, self.training)
        return self.lstm(x)


def test_weight_drop() -> None:
    ours, torchs = (WeightDrop(layer) for layer in _pair())
    _assert_same(ours, torchs)
    assert torch.autograd.grad(ours(_x())[0].sum(), ours.lstm.weight_hh_l0_raw)[0].any()


def _adapted(layer: nn.LSTM, parameters: dict[str, Tensor], steps: int) -> dict[str, Tensor]:
    """Inner steps of MAML, through which the outer loss is differentiated."""
    for step in range(steps):
        loss = functional_call(layer, parameters, (_x(step),))[0].square().mean()
        grads = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        pairs = zip(parameters.items(), grads, strict=True)
        parameters = {name: p - 0.5 * grad for (name, p), grad in pairs}
    return parameters


def test_maml_by_functional_call() -> None:
    """Three inner steps: the outer loss needs second derivatives through all of them."""
    layer = _pair()[0]
    grads = []
    for impl in (None, "reference"):
        layer.impl = impl
        start = dict(layer.named_parameters())
        outer = functional_call(layer, _adapted(layer, start, 3), (_x(9),))[0].sin().sum()
        grads.append(torch.autograd.grad(outer, list(start.values())))
    torch.testing.assert_close(*grads)


def test_hypergradient_of_a_learning_rate() -> None:
    layer = _pair()[0]
    grads = []
    for impl in (None, "reference"):
        layer.impl = impl
        rate = torch.tensor(0.3, dtype=F64, requires_grad=True)
        parameters = dict(layer.named_parameters())
        loss = layer(_x())[0].square().mean()
        steps = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        pairs = zip(parameters.items(), steps, strict=True)
        moved = {name: p - rate * step for (name, p), step in pairs}
        outer = functional_call(layer, moved, (_x(1),))[0].square().mean()
        grads.append(torch.autograd.grad(outer, [rate, *parameters.values()]))
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("make", [gf.FastLSTM, gf.SNLSTM], ids=["FastLSTM", "SNLSTM"])
def test_averages_of_weights(make: Callable[..., nn.LSTM]) -> None:
    """torch's AveragedModel, and a copy whose parameters follow by hand."""
    model = make(3, 4, dtype=F64)
    decay = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=decay, use_buffers=True)
    by_hand = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    for step in range(3):
        optimizer.zero_grad()
        model(_x(step))[0].square().sum().backward()
        optimizer.step()
        averaged.update_parameters(model)
        if step == 0:
            by_hand.load_state_dict(model.state_dict())
            continue
        for average, p in zip(by_hand.parameters(), model.parameters(), strict=True):
            average.lerp_(p.detach(), 0.1)
    for average, p in zip(by_hand.parameters(), averaged.parameters(), strict=True):
        torch.testing.assert_close(average, p.detach())
    torch.testing.assert_close(
        by_hand.load_state_dict(averaged.module.state_dict()) and by_hand.eval()(_x())[0],
        averaged.eval()(_x())[0].detach(),
    )


def test_weights_as_a_vector() -> None:
    pair = _pair(bidirectional=True)
    vector = parameters_to_vector(pair[0].parameters()) * 0.5
    for layer in pair:
        vector_to_parameters(vector.detach(), layer.parameters())
    _assert_same(*pair)


def test_surgery() -> None:
    """Weights that are replaced, frozen and thawed, and groups of parameters by name."""
    ours, torchs = _pair()
    for layer in (ours, torchs):
        torch.manual_seed(3)
        layer.weight_hh_l0 = nn.Parameter(torch.randn(16, 4, dtype=F64))
        for name, p in layer.named_parameters():
            if "bias" in name:
                nn.init.zeros_(p)
                p.data[4:8].fill_(1.0)
            elif "weight_ih" in name:
                nn.init.orthogonal_(p.data)
    _assert_same(ours, torchs)
    ours.weight_ih_l0.requires_grad_(False)
    ours(_x())[0].sum().backward()
    assert ours.weight_ih_l0.grad is None
    assert ours.weight_hh_l0.grad is not None
    ours.weight_ih_l0.requires_grad_(True)
    _assert_same(ours, torchs)


def _closures(layer: nn.LSTM) -> Iterator[float]:
    """LBFGS, which calls the model several times a step."""
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=4, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (layer(_x())[0] - 0.3).square().sum()
        loss.backward()
        return loss

    for _ in range(2):
        yield float(optimizer.step(closure))


def test_lbfgs() -> None:
    ours, torchs = map(_closures, _pair())
    assert list(ours) == pytest.approx(list(torchs), rel=1e-8)


def test_sharpness_aware_minimisation() -> None:
    """Weights are moved in place, used, and moved back before the step."""
    losses = []
    for layer in _pair():
        optimizer = torch.optim.SGD(layer.parameters(), 0.1)
        for step in range(3):
            layer(_x(step))[0].square().sum().backward()
            moves = [0.05 * p.grad / p.grad.norm() for p in layer.parameters()]
            with torch.no_grad():
                torch._foreach_add_(list(layer.parameters()), moves)
            optimizer.zero_grad()
            loss = layer(_x(step))[0].square().sum()
            loss.backward()
            with torch.no_grad():
                torch._foreach_sub_(list(layer.parameters()), moves)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)


def test_full_backward_hooks_see_the_gradients() -> None:
    seen: dict[str, list[Tensor]] = {}
    for name, layer in zip(("ours", "torch's"), _pair(), strict=True):
        layer.register_full_backward_hook(
            lambda _, grad_input, grad_output, name=name: seen.setdefault(name, []).extend(
                [*grad_input, grad_output[0]]
            )
        )
        x = _x().requires_grad_()
        layer(x)[0].square().sum().backward()
    torch.testing.assert_close(seen["ours"], seen["torch's"])

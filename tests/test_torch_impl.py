"""``impl="torch"``: torch's LSTM at first order, of one layer or of all in one call, and what takes
over where a backward is recorded."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from lstm_cases import CASES
from numerics import assert_close_to_reference
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from ganlstm_fast import FastLSTM
from ganlstm_fast.lstm import fit

ENDS = [7, 1, 3, 6, 2, 5]


@pytest.fixture
def in_one_call(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Layers on the CPU run as on a GPU where cuDNN is chosen; the calls of torch's LSTM."""
    calls: list[tuple[Any, ...]] = []
    torch_lstm = torch.lstm

    def spy(*arguments: Any) -> tuple[Tensor, ...]:
        calls.append(arguments)
        return torch_lstm(*arguments)

    monkeypatch.setattr(FastLSTM, "_can_be_one_call", lambda self, x: not self.recompute)
    monkeypatch.setattr(fit, "choose", lambda impl, *_: "torch" if impl is None else impl)
    monkeypatch.setattr(torch, "lstm", spy)
    return calls


def pair(**options: Any) -> tuple[FastLSTM, nn.LSTM]:
    ours, torchs = FastLSTM(5, 6, **options), nn.LSTM(5, 6, **options)
    torchs.load_state_dict(ours.state_dict())
    return ours, torchs


def to_second_order(layer: nn.LSTM, call: Any, dtype: torch.dtype) -> list[Tensor]:
    """Outputs, states, first gradients, and those of a penalty on them."""
    generator = torch.Generator().manual_seed(1)
    x, h, c = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in ((7, 6, 5), *([layer.num_layers * (1 + layer.bidirectional), 6, 6],) * 2)
    )
    y, states = call(layer, x, (h, c))
    inputs = (x, h, c, *layer.parameters())
    total = y.square().sum() + sum(s.sin().sum() for s in states)
    plain = torch.autograd.grad(total, inputs, retain_graph=True)
    first = torch.autograd.grad(total, inputs, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
    return [y, *states, *plain, *first, *second]


def padded(layer: nn.LSTM, x: Tensor, hx: tuple[Tensor, Tensor]) -> Any:
    return layer(x, hx)


def packed(layer: nn.LSTM, x: Tensor, hx: tuple[Tensor, Tensor]) -> Any:
    y, states = layer(pack_padded_sequence(x, ENDS, enforce_sorted=False), hx)
    return y.data, states


def by_lengths(layer: nn.LSTM, x: Tensor, hx: tuple[Tensor, Tensor]) -> Any:
    """As packed: the rows of a batch one after the other."""
    if not isinstance(layer, FastLSTM):
        return packed(layer, x, hx)
    y, states = layer(x, hx, lengths=ENDS)
    return pack_padded_sequence(y, ENDS, enforce_sorted=False).data, states


@pytest.mark.parametrize("call", [padded, packed, by_lengths])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False, "bidirectional": True},
        {"num_layers": 2, "bidirectional": True, "dropout": 0.5},
    ],
    ids=["plain", "no bias", "stack"],
)
def test_all_layers_in_one_call(
    options: dict[str, Any], call: Any, in_one_call: list[tuple[Any, ...]]
) -> None:
    """Also in eval mode, for which cuDNN would keep nothing for a backward."""
    ours, torchs = (layer.eval() for layer in pair(**options))
    got = to_second_order(ours, call, torch.float32)
    assert len(in_one_call) == 1
    training, dropout = in_one_call[0][-2 - (call is padded)], in_one_call[0][-3 - (call is padded)]
    assert (training, dropout) == (True, 0.0)
    rival = to_second_order(torchs, call, torch.float32)
    truth = to_second_order(copy.deepcopy(torchs).double(), call, torch.float64)
    assert_close_to_reference(got, truth, rival)


def test_nothing_is_kept_where_no_gradient_is_recorded(in_one_call: list[tuple[Any, ...]]) -> None:
    ours, _ = pair()
    with torch.no_grad():
        ours(torch.randn(7, 2, 5))
    assert in_one_call[0][-3:] == (False, False, False)  # training, bidirectional, batch_first


@pytest.mark.usefixtures("in_one_call")
def test_dropout_of_a_stack_is_that_of_torch() -> None:
    ours, torchs = pair(num_layers=3, dropout=0.5)
    x = torch.randn(7, 2, 5)
    outputs = []
    for layer in (ours, torchs):
        torch.manual_seed(1)
        outputs.append(layer(x)[0])
    torch.testing.assert_close(*outputs)


@pytest.mark.usefixtures("in_one_call")
def test_batch_first_and_unbatched() -> None:
    ours, torchs = pair(batch_first=True)
    for shape in ((2, 7, 5), (7, 5)):
        x = torch.randn(shape)
        torch.testing.assert_close(ours(x), torchs(x))


@pytest.mark.usefixtures("in_one_call")
def test_hooks_and_changes_in_place_are_as_with_torchs() -> None:
    ours, torchs = pair()
    x = torch.randn(7, 2, 5)
    grads = []
    for layer in (ours, torchs):
        seen: list[Tensor] = []
        y, _ = layer(x)
        y.register_hook(seen.append)
        y.relu_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()
        y, _ = layer(x)
        y.register_hook(seen.append)
        (2 * y).sum().backward()
        grads.append((seen[-1], layer.weight_hh_l0.grad))
    torch.testing.assert_close(*grads)


def test_third_order_of_the_reference_is_there() -> None:
    case = CASES["odd sizes"]
    results = []
    for impl in ("torch", "reference"):
        inputs = [t.clone().requires_grad_() for t in case.inputs]
        total = case.call(impl, *inputs)[0].sin().sum()
        for _ in range(3):
            grads = torch.autograd.grad(total, inputs, create_graph=True)
            total = sum(g.square().sum() for g in grads)
        results.append(total.detach())
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_strided_inputs_give_the_same_bits(dtype: torch.dtype) -> None:
    """torch takes other kernels, of other roundings, for tensors with gaps."""
    case = CASES["both directions"].rounded(dtype)

    def run(gaps: bool) -> list[Tensor]:
        inputs = [t.to(dtype) for t in case.inputs]
        if gaps:
            inputs = [torch.stack([t, torch.full_like(t, torch.nan)], -1)[..., 0] for t in inputs]
        inputs = [t.requires_grad_() for t in inputs]
        outputs = case.call("torch", *inputs)
        cotangents = [t.to(dtype) for t in case.cotangents]
        return [*outputs, *torch.autograd.grad(outputs, inputs, cotangents)]

    for a, b in zip(run(gaps=True), run(gaps=False), strict=True):
        assert torch.equal(a, b)


@pytest.mark.usefixtures("in_one_call")
def test_a_packed_sequence_keeps_its_order() -> None:
    ours, torchs = pair()
    x = pack_padded_sequence(torch.randn(7, 6, 5), ENDS, enforce_sorted=False)
    y, (h, c) = ours(x)
    expected, states = torchs(x)
    assert isinstance(y, PackedSequence)
    for got, other in zip(y, expected, strict=True):
        torch.testing.assert_close(got, other)
    torch.testing.assert_close((h, c), states)

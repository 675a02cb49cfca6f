"""``impl="torch"``: torch's LSTM at first order, of one layer or of all in one call, and what takes
over where a backward is recorded."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils.checkpoint import checkpoint

from ganlstm_fast import FastLSTM
from ganlstm_fast.ops.lstm import fit, operators
from ganlstm_fast.ops.lstm.operators import BackwardArguments
from tests.fake_gpu import OnGPU
from tests.lstm_cases import CASES
from tests.numerics import assert_close_to_reference
from tests.ops.lstm import cudnn_stand_in

ENDS = [7, 1, 3, 6, 2, 5]


def run_in_one_call(library: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Makes layers on the CPU run as on a GPU with cuDNN; returns the calls of torch's LSTM."""
    calls: list[tuple[Any, ...]] = []
    torch_lstm = cudnn_stand_in.lstm if library == "cuDNN" else torch.lstm

    def spy(*arguments: Any) -> tuple[Tensor, ...]:
        calls.append(arguments)
        return torch_lstm(*arguments)

    monkeypatch.setattr(
        FastLSTM, "_can_be_one_call", lambda self, x: not self.recompute and not self._dropped
    )
    monkeypatch.setattr(fit, "choose", lambda impl, *_: "torch" if impl is None else impl)
    monkeypatch.setattr(torch, "lstm", spy)
    return calls


# Once with cuDNN's autograd node, which has no second order, and once with other nodes.
@pytest.fixture(params=["oneDNN", "cuDNN"])
def in_one_call(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[Any, ...]]:
    return run_in_one_call(request.param, monkeypatch)


@pytest.fixture(params=["oneDNN", "cuDNN", "a layer"])
def impl(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """The ``impl`` with which torch's LSTM runs all layers in one call, or each by itself."""
    if request.param == "a layer":
        return "torch"
    run_in_one_call(request.param, monkeypatch)
    return None


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
    return layer(x.transpose(0, 1) if layer.batch_first else x, hx)


def packed(layer: nn.LSTM, x: Tensor, hx: tuple[Tensor, Tensor]) -> Any:
    y, states = layer(pack_padded_sequence(x, ENDS, enforce_sorted=False), hx)
    return y.data, states


def by_lengths(layer: nn.LSTM, x: Tensor, hx: tuple[Tensor, Tensor]) -> Any:
    """What ``packed`` gives, computed from a padded batch with lengths."""
    if not isinstance(layer, FastLSTM):
        return packed(layer, x, hx)
    y, states = layer(x.transpose(0, 1) if layer.batch_first else x, hx, lengths=ENDS)
    return pack_padded_sequence(y, ENDS, layer.batch_first, enforce_sorted=False).data, states


@pytest.mark.parametrize("call", [padded, packed, by_lengths])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False, "bidirectional": True},
        {"num_layers": 2, "bidirectional": True, "dropout": 0.5},
        {"num_layers": 2, "batch_first": True},
    ],
    ids=["plain", "no bias", "stack", "batch first"],
)
def test_all_layers_in_one_call(
    options: dict[str, Any], call: Any, in_one_call: list[tuple[Any, ...]]
) -> None:
    """Also in eval mode, in which cuDNN would keep nothing for a backward."""
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


def test_what_one_call_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of a layer that a GPU would run in one call."""

    def one_call(**options: Any) -> bool:
        layer = FastLSTM(3, 4, **options)
        return layer._can_be_one_call(OnGPU()) and not layer._can_be_one_call(torch.zeros(1))

    assert one_call()
    assert one_call(num_layers=2, bidirectional=True)
    assert one_call(dropout=0.0, num_layers=2)
    assert not one_call(dropout=0.5, num_layers=2)
    assert not one_call(recompute=True)
    layer = FastLSTM(3, 4, num_layers=2, dropout=0.5).eval()
    assert layer._can_be_one_call(OnGPU())
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not layer._can_be_one_call(OnGPU())
    monkeypatch.undo()
    seen = []
    torch.func.grad(lambda x: seen.append(layer._can_be_one_call(OnGPU())) or x)(torch.ones(()))
    assert seen == [False]


@pytest.mark.parametrize("change", ["train", "recompute"])
@pytest.mark.usefixtures("in_one_call")
def test_modes_that_change_before_the_backward(change: str) -> None:
    """A recorded backward computes part of the forward again, in the mode that it had."""
    ours, torchs = pair(num_layers=2, dropout=0.5)
    x = torch.randn(7, 3, 5, requires_grad=True)
    results = []
    for layer in (ours, torchs):
        y, _ = layer.eval()(x)
        if change == "train":
            layer.train()
        else:
            layer.recompute = True
        (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        results.append([grad, *torch.autograd.grad(grad.square().sum(), layer.parameters())])
    torch.testing.assert_close(*results)


def test_lengths_that_change_before_the_backward(impl: str | None) -> None:
    """One call of all layers keeps the lengths of its forward; layer by layer, a change raises."""
    ours = FastLSTM(5, 6, impl=impl)
    x, lengths = torch.randn(7, 3, 5, requires_grad=True), torch.tensor([7, 3, 5])
    once, again = (ours(x, lengths=lengths)[0].sum() for _ in range(2))
    (expected,) = torch.autograd.grad(once, x, create_graph=True)
    lengths.fill_(7)
    if impl is None:
        (grad,) = torch.autograd.grad(again, x, create_graph=True)
        assert torch.equal(grad, expected)
        return
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(again, x, create_graph=True)


def test_a_recorded_backward_computes_what_is_wanted(
    impl: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, wanted = operators.lstm_backward.op, []
    monkeypatch.setattr(fit, "second_order", lambda *_: "cpu")

    def run(*arguments: Any) -> Any:
        a = BackwardArguments(*arguments)
        wanted.append(list(a.wanted))
        return kernel(*a)

    monkeypatch.setitem(operators.lstm_backward.overloads, "cpu", run)
    ours = FastLSTM(5, 6, impl=impl)
    x = torch.randn(7, 3, 5, requires_grad=True)
    torch.autograd.grad(ours(x)[0].sum(), x, create_graph=True)
    assert wanted == [[True, *[False] * 5]]
    torch.autograd.grad(ours(x)[0].sum(), ours.weight_hh_l0, create_graph=True)
    assert wanted[1][:3] == [False] * 3
    assert wanted[1][4]


def test_autocast_around_the_backward_changes_nothing(impl: str | None) -> None:
    """The operands keep the dtype of the forward, whatever block the backward is in."""
    ours = FastLSTM(5, 6, impl=impl)
    x = torch.randn(7, 3, 5, requires_grad=True)
    results = []
    for enabled in (False, True):
        y, _ = ours(x)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            (grad,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)
        results.append([grad, *torch.autograd.grad(grad.sin().sum(), ours.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_what_a_graph_keeps(in_one_call: list[tuple[Any, ...]]) -> None:
    """Saved memory is freed with the graph, at once, and passes through saved-tensor hooks."""
    ours, _ = pair()
    stored: list[Tensor] = []

    def store(tensor: Tensor) -> int:
        stored.append(tensor.clone())
        return len(stored) - 1

    x = torch.randn(7, 3, 5, requires_grad=True)
    (expected,) = torch.autograd.grad(ours(x)[0].sum(), x, create_graph=True)
    with torch.autograd.graph.saved_tensors_hooks(store, lambda k: stored[k]):
        inner = x * 1
        y, _ = ours(inner)
    kept = weakref.ref(inner)
    in_one_call.clear()
    del inner
    assert kept() is None
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    torch.testing.assert_close(grad, expected)
    inner = x * 1
    outputs = ours(inner)
    kept = weakref.ref(inner)
    in_one_call.clear()
    del inner, outputs
    assert kept() is None


@pytest.mark.usefixtures("in_one_call")
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_second_order_of_what_is_checkpointed(use_reentrant: bool) -> None:
    ours, _ = pair()
    x = torch.randn(7, 3, 5, requires_grad=True)

    def run(x: Tensor) -> Tensor:
        return ours(2 * x)[0]

    results = []
    for y in (run(x), checkpoint(run, x, use_reentrant=use_reentrant)):
        if use_reentrant:  # has no second order
            y.sum().backward()
            results.append([x.grad])
            x.grad = None
            continue
        (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        results.append([grad, *torch.autograd.grad(grad.square().sum(), ours.parameters())])
    torch.testing.assert_close(*results)


@pytest.mark.usefixtures("in_one_call")
def test_a_graph_serves_once_or_as_often_as_it_is_kept() -> None:
    ours, _ = pair()
    x = torch.randn(7, 3, 5, requires_grad=True)
    y, _ = ours(x)
    plain = torch.autograd.grad(y.sum(), x, retain_graph=True)
    recorded = torch.autograd.grad(y.sum(), x, create_graph=True)
    last = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(plain, recorded)
    torch.testing.assert_close(plain, last)
    assert recorded[0].requires_grad
    assert not last[0].requires_grad
    with pytest.raises(RuntimeError, match="a second time"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


def test_projections_under_autocast() -> None:
    """proj_size runs torch's LSTM, in autocast's dtype as the other layers."""
    ours, torchs = pair(proj_size=3)
    x = torch.randn(7, 3, 5)
    rival = copy.deepcopy(torchs).bfloat16()(x.bfloat16())[0]
    truth = torchs.double()(x.double())[0]
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16):
            y, (h, c) = ours(x.to(dtype))
        assert [t.dtype for t in (y, h, c)] == [torch.bfloat16] * 3
        assert_close_to_reference(y, truth, rival)


def test_dropout_of_a_stack_at_second_order() -> None:
    """On a GPU, too, layers with dropout between them are one call each: the masks are the same."""
    results = []
    layer = FastLSTM(5, 6, num_layers=3, dropout=0.5, dtype=torch.float64)
    x = torch.randn(7, 3, 5, dtype=torch.float64, requires_grad=True)
    for impl in ("torch", "reference"):
        layer.impl = impl
        torch.manual_seed(1)
        y, _ = layer(x)
        (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        results.append([y, grad, *torch.autograd.grad(grad.square().sum(), layer.parameters())])
    torch.testing.assert_close(*results)


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
    """For strided tensors torch takes other kernels, which round differently."""
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

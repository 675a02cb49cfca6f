"""FastLSTM and FastLSTMCell in the place of torch's layers."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils._pytree import tree_leaves

from ganlstm_fast import FastLSTM, FastLSTMCell, explain, use_impl
from tests.marks import needs_cpu_kernels
from tests.numerics import assert_close_to_reference, relative_error, tolerance

IMPLS = [pytest.param("cpu", marks=needs_cpu_kernels), "torch", "reference"]


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    hidden = draw(st.integers(1, 9))
    sizes = {name: draw(st.integers(1, 6)) for name in ("input_size", "batch", "steps")}
    return {
        **sizes,
        "hidden_size": hidden,
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
        "proj_size": draw(st.sampled_from([0, 0, 0, hidden - 1])),
        "kind": draw(st.sampled_from(["batched", "unbatched", "packed", "packed unsorted"])),
        "with_hx": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**31)),
    }


class Run:
    """One configuration in float64: torch's layer, ours with the same state, and their inputs."""

    def __init__(self, c: dict[str, Any]) -> None:
        torch.manual_seed(c["seed"])
        names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first")
        self.options = {k: c[k] for k in (*names, "bidirectional", "proj_size")}
        self.state = nn.LSTM(**self.options, dtype=torch.float64).state_dict()
        steps, batch = c["steps"], c["batch"]
        shape = (batch, steps) if c["batch_first"] else (steps, batch)
        self.kind = c["kind"]
        if self.kind == "unbatched":
            shape = (steps,)
        self.x = torch.randn(*shape, c["input_size"], dtype=torch.float64)
        self.lengths = torch.randint(1, steps + 1, (batch,))
        if self.kind == "packed":
            self.lengths = self.lengths.sort(descending=True).values
        rows = c["num_layers"] * (2 if c["bidirectional"] else 1)
        many = () if self.kind == "unbatched" else (batch,)
        self.hx: list[Tensor] = []
        if c["with_hx"]:
            for size in (c["proj_size"] or c["hidden_size"], c["hidden_size"]):
                self.hx.append(torch.randn(rows, *many, size, dtype=torch.float64))

    def second_order(self, layer: type[nn.LSTM], dtype: torch.dtype) -> list[list[Tensor | None]]:
        """Outputs, first gradients, and gradients of the squares of these."""
        lstm = layer(**self.options, dtype=dtype)
        lstm.load_state_dict(self.state)
        leaves = [t.to(dtype, copy=True).requires_grad_() for t in (self.x, *self.hx)]
        data: Any = leaves[0]
        if "packed" in self.kind:
            data = pack_padded_sequence(
                data,
                self.lengths,
                batch_first=self.options["batch_first"],
                enforce_sorted=self.kind == "packed",
            )
        output, states = lstm(data, tuple(leaves[1:]) or None)
        if isinstance(output, PackedSequence):
            output = output.data
        results = [output, *states]
        inputs = [*leaves, *lstm.parameters()]
        torch.manual_seed(1)
        total = sum((t * torch.randn_like(t, dtype=torch.float64).to(dtype)).sum() for t in results)
        first = torch.autograd.grad(total, inputs, create_graph=True)
        square = sum((g**2).sum() for g in first)
        second = torch.autograd.grad(square, inputs, allow_unused=True)
        return [results, list(first), list(second)]


@given(configurations())
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.parametrize("impl", IMPLS)
def test_drop_in(impl: str, configuration: dict[str, Any]) -> None:
    """Outputs, states, first and second gradients are those of torch.nn.LSTM."""
    run = Run(configuration)
    truth = run.second_order(nn.LSTM, torch.float64)
    rival = run.second_order(nn.LSTM, torch.float32)
    with use_impl(impl):
        got = run.second_order(FastLSTM, torch.float64)
    for name, ours, right, other in zip(
        ("result", "first", "second"), got, truth, rival, strict=True
    ):
        assert len(ours) == len(right)
        # torch's own error is taken over all tensors of an order: many have one element or two,
        # where its float32 result may be exact by luck.
        error = max(relative_error(o, t) for o, t in zip(other, right, strict=True))
        error *= torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
        allowed = tolerance(torch.float64, error) + error
        for index, (x, y) in enumerate(zip(ours, right, strict=True)):
            assert x is None or y is None or x.shape == y.shape
            assert relative_error(x, y) <= allowed, f"{name}[{index}]"


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_lengths_are_a_packed_sequence(bidirectional: bool, batch_first: bool, impl: str) -> None:
    options = {"bidirectional": bidirectional, "batch_first": batch_first, "num_layers": 2}
    ours = FastLSTM(3, 5, **options)
    torchs = nn.LSTM(3, 5, **options)
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 6, 3) if batch_first else torch.randn(6, 4, 3)
    lengths = [6, 1, 3, 5]
    with use_impl(impl):
        y, (h, c) = ours(x, lengths=lengths)
    packed = pack_padded_sequence(x, lengths, batch_first, enforce_sorted=False)
    y_packed, (h_packed, c_packed) = torchs(packed)
    y_padded, _ = pad_packed_sequence(y_packed, batch_first, total_length=6)
    for a, b in ((y, y_padded), (h, h_packed), (c, c_packed)):
        torch.testing.assert_close(a, b)


def test_projection_runs_torchs_lstm() -> None:
    ours = FastLSTM(3, 5, proj_size=2, batch_first=True)
    torchs = nn.LSTM(3, 5, proj_size=2, batch_first=True)
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 6, 3)
    assert torch.equal(ours(x)[0], torchs(x)[0])
    y, (h, _) = ours(x, lengths=[6, 1, 3, 5])
    packed = pack_padded_sequence(x, [6, 1, 3, 5], batch_first=True, enforce_sorted=False)
    y_packed, (h_packed, _) = torchs(packed)
    torch.testing.assert_close(y, pad_packed_sequence(y_packed, True)[0])
    torch.testing.assert_close(h, h_packed)
    assert "torch.nn.LSTM itself" in explain(proj_size=2)


def test_state_dicts_exchange_both_ways() -> None:
    options = {"num_layers": 2, "bidirectional": True}
    ours, torchs = FastLSTM(3, 4, **options), nn.LSTM(3, 4, **options)
    assert list(ours.state_dict()) == list(torchs.state_dict())
    x = torch.randn(5, 2, 3)
    torchs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x)[0], torchs(x)[0])
    other = nn.LSTM(3, 4, **options)
    ours.load_state_dict(other.state_dict())
    torch.testing.assert_close(ours(x)[0], other(x)[0])
    assert isinstance(ours, nn.LSTM)


def test_same_initialisation_and_repr() -> None:
    torch.manual_seed(3)
    ours = FastLSTM(3, 4, num_layers=2, bias=False, dropout=0.5)
    torch.manual_seed(3)
    torchs = nn.LSTM(3, 4, num_layers=2, bias=False, dropout=0.5)
    for a, b in zip(ours.parameters(), torchs.parameters(), strict=True):
        assert torch.equal(a, b)
    assert repr(ours) == repr(torchs).replace("LSTM", "FastLSTM")


def test_copy_pickle_and_save() -> None:
    ours = FastLSTM(3, 4, impl="reference")
    x = torch.randn(5, 2, 3)
    buffer = io.BytesIO()
    torch.save(ours, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=False)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), saved):
        assert other.impl == "reference"
        assert torch.equal(other(x)[0], ours(x)[0])


@pytest.mark.parametrize("training", [True, False])
def test_dropout_between_layers(training: bool) -> None:
    ours = FastLSTM(3, 8, num_layers=3, dropout=0.5).train(training)
    torchs = nn.LSTM(3, 8, num_layers=3, dropout=0.5).train(training)
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 4, 3)
    torch.manual_seed(1)
    y = ours(x)[0]
    torch.manual_seed(1)
    torch.testing.assert_close(y, torchs(x)[0])
    assert torch.equal(ours(x)[0], ours(x)[0]) is not training


def test_weights_are_read_at_each_call() -> None:
    """Parametrizations and tying see every change of a weight."""
    ours, torchs = FastLSTM(4, 4), nn.LSTM(4, 4)
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 2, 4)
    for layer in (ours, torchs):
        parametrizations.weight_norm(layer, "weight_hh_l0")
        with torch.no_grad():
            layer.parametrizations.weight_hh_l0.original0.mul_(2)
    torch.testing.assert_close(ours(x)[0], torchs(x)[0])
    tied = FastLSTM(4, 4)
    tied.weight_hh_l0 = tied.weight_ih_l0
    tied(x)[0].sum().backward()
    assert tied.weight_ih_l0.grad is not None
    by_hand = nn.LSTM(4, 4)
    by_hand.load_state_dict(tied.state_dict())
    by_hand(x)[0].sum().backward()
    both = by_hand.weight_ih_l0.grad + by_hand.weight_hh_l0.grad
    torch.testing.assert_close(tied.weight_ih_l0.grad, both)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision(dtype: torch.dtype) -> None:
    ours, torchs = FastLSTM(3, 4, dtype=dtype), nn.LSTM(3, 4, dtype=dtype)
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 2, 3).to(dtype)
    got, rival = ours(x)[0], torchs(x)[0]
    assert_close_to_reference(got, torchs.double()(x.double())[0], rival)
    (grad,) = torch.autograd.grad(got.sum(), ours.weight_hh_l0, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), ours.weight_ih_l0)
    assert grad.dtype == second.dtype == dtype
    assert torch.isfinite(second).all()


def test_autocast() -> None:
    """Compared with torch's LSTM in bfloat16, since oneDNN's under autocast needs AVX-512."""
    ours, x = FastLSTM(3, 4), torch.randn(5, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        y, (h, c) = ours(x)
    assert [t.dtype for t in (y, h, c)] == [torch.bfloat16] * 3
    results = []
    for dtype in (torch.float64, torch.bfloat16):
        torchs = nn.LSTM(3, 4, dtype=dtype)
        torchs.load_state_dict(ours.state_dict())
        results.append(torchs(x.to(dtype))[0])
    assert_close_to_reference(y, *results)
    y.float().sum().backward()
    assert ours.weight_ih_l0.grad.dtype == torch.float32


@pytest.mark.parametrize("state", [None, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("packed", [False, True], ids=["cell", "packed"])
def test_autocast_of_a_cell_and_of_a_packed_sequence(
    packed: bool, dtype: torch.dtype, state: torch.dtype | None
) -> None:
    pair = (FastLSTM(3, 4), nn.LSTM(3, 4)) if packed else (FastLSTMCell(3, 4), nn.LSTMCell(3, 4))
    shape = (1, 2, 4) if packed else (2, 4)
    hx = None if state is None else (torch.randn(shape).to(state), torch.randn(shape).to(state))
    x = pack_padded_sequence(torch.randn(5, 2, 3), [5, 3]) if packed else torch.randn(2, 3)
    x = x.to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        ours, torchs = (
            [t.dtype for t in tree_leaves(module(x, hx)) if t is not None and t.is_floating_point()]
            for module in pair
        )
    assert ours == torchs


def test_meta_device_and_fake_tensors() -> None:
    with torch.device("meta"):
        y, (h, _) = FastLSTM(3, 5)(torch.empty(4, 2, 3))
        assert y.shape == (4, 2, 5)
        assert FastLSTMCell(3, 5)(torch.empty(2, 3))[0].shape == (2, 5)
    assert y.device.type == h.device.type == "meta"
    with FakeTensorMode():
        layer = FastLSTM(3, 5)
        y = layer(torch.empty(4, 2, 3), lengths=torch.tensor([4, 2]))[0]
        assert y.shape == (4, 2, 5)


BAD_CALLS = {
    "dimensions": lambda m: m(torch.zeros(5)),
    "four dimensions": lambda m: m(torch.zeros(5, 2, 3, 1)),
    "features": lambda m: m(torch.zeros(5, 2, 7)),
    "dtype": lambda m: m(torch.zeros(5, 2, 3, dtype=torch.float64)),
    "no steps": lambda m: m(torch.zeros(0, 2, 3)),
    "hidden batch": lambda m: m(torch.zeros(5, 2, 3), (torch.zeros(1, 3, 4), torch.zeros(1, 2, 4))),
    "cell size": lambda m: m(torch.zeros(5, 2, 3), (torch.zeros(1, 2, 4), torch.zeros(1, 2, 5))),
    "2-D state": lambda m: m(torch.zeros(5, 2, 3), (torch.zeros(2, 4), torch.zeros(2, 4))),
    "3-D state": lambda m: m(torch.zeros(5, 3), (torch.zeros(1, 1, 4), torch.zeros(1, 1, 4))),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_errors_are_torchs(name: str) -> None:
    with pytest.raises(Exception, match=r".") as expected:
        BAD_CALLS[name](nn.LSTM(3, 4))
    with pytest.raises(type(expected.value)) as got:
        BAD_CALLS[name](FastLSTM(3, 4))
    assert str(got.value).lower() == str(expected.value).lower()


def test_errors_of_lengths() -> None:
    layer = FastLSTM(3, 4)
    packed = pack_padded_sequence(torch.zeros(5, 2, 3), [5, 2])
    with pytest.raises(ValueError, match="lengths: expected None with a PackedSequence"):
        layer(packed, lengths=[5, 2])
    with pytest.raises(ValueError, match=r"lengths: expected values in 1\.\.5, got 9 at index 1"):
        layer(torch.zeros(5, 2, 3), lengths=[5, 9])


def test_empty_batch() -> None:
    layer = FastLSTM(3, 4, num_layers=2)
    y, (h, c) = layer(torch.zeros(5, 0, 3))
    assert y.shape == (5, 0, 4)
    assert h.shape == c.shape == (2, 0, 4)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("with_hx", [True, False])
def test_cell(bias: bool, batched: bool, with_hx: bool, impl: str) -> None:
    """Called twice, so that the second call's state depends on the weights."""
    ours = FastLSTMCell(3, 4, bias=bias, dtype=torch.float64, impl=impl)
    torchs = nn.LSTMCell(3, 4, bias=bias, dtype=torch.float64)
    torchs.load_state_dict(ours.state_dict())
    shape = (2,) if batched else ()
    x = torch.randn(*shape, 3, dtype=torch.float64)
    hx = tuple(torch.randn(*shape, 4, dtype=torch.float64) for _ in range(2)) if with_hx else None

    def second_order(cell: nn.LSTMCell) -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        h, c = cell(leaf, hx)
        h, c = cell(leaf, (h, c))
        inputs = [leaf, *cell.parameters()]
        first = torch.autograd.grad((h * c).sum(), inputs, create_graph=True)
        return [h, c, *first, *torch.autograd.grad(sum((g**2).sum() for g in first), inputs)]

    torch.testing.assert_close(second_order(ours), second_order(torchs))
    other = torch.zeros(() if batched else (1,), dtype=torch.float64)
    for mixed in ((other.expand(*other.shape, 4),) * 2, (x,) * 3):
        with pytest.raises((RuntimeError, ValueError)):
            ours(x, mixed)
    for bad in (torch.zeros(2, 7), torch.zeros(2, 3, 1)):
        with pytest.raises((RuntimeError, ValueError)) as expected:
            torchs(bad.double())
        with pytest.raises(type(expected.value)) as got:
            ours(bad.double())
        assert str(got.value) == str(expected.value)


@needs_cpu_kernels
def test_a_recorded_cell_is_torchs_unless_named() -> None:
    cell, x = FastLSTMCell(3, 4), torch.randn(2, 3, requires_grad=True)

    def third_order() -> None:
        grad = cell(x)[0].sum()
        for _ in range(3):
            (grad,) = torch.autograd.grad(grad.square().sum(), x, create_graph=True)

    third_order()
    assert cell(x)[0].grad_fn.name() == nn.LSTMCell(3, 4)(x)[0].grad_fn.name()
    with use_impl("cpu", "lstm"), pytest.raises(RuntimeError, match="a third derivative"):
        third_order()


@pytest.mark.slow
@needs_cpu_kernels
@pytest.mark.parametrize("wrapper", ["ddp", "fsdp"])
def test_two_processes_give_the_gradients_of_one(wrapper: str, tmp_path: Path) -> None:
    """A gradient penalty through a FastLSTM under DistributedDataParallel and FSDP, with gloo."""
    program = Path(__file__).with_name("distributed_penalty.py")
    workers = [
        subprocess.Popen(
            [sys.executable, str(program), wrapper, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        output, _ = worker.communicate(timeout=180)
        assert worker.returncode == 0, output

"""``torch.compile`` of models that hold the layers: one graph, the numbers of eager mode."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from conftest import needs_cpu_kernels
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_padded_sequence

from ganlstm_fast import FastLSTM, FastLSTMCell

pytestmark = needs_cpu_kernels

T, B, I, H = 5, 4, 3, 6  # noqa: E741


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Critic(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.lstm = FastLSTM(I, H, **options)
        self.head = nn.Linear(H * (2 if self.lstm.bidirectional else 1), 1)

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        return self.head(self.lstm(x, **options)[0])


def _gradients(model: nn.Module, call: Any, x: Tensor, **options: Any) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = call(x, **options)
    return [out, *torch.autograd.grad(out.square().sum(), [x, *model.parameters()])]


def _assert_same(model: nn.Module, x: Tensor, backend: str = "aot_eager", **options: Any) -> None:
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    expected = _gradients(model, model, x, **options)
    torch.testing.assert_close(_gradients(model, compiled, x, **options), expected)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, **options), expected[0].detach())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "bidirectional": True, "dropout": 0.5},
        {"batch_first": True, "bias": False},
        {"recompute": True},
    ],
)
def test_one_graph_with_the_numbers_of_eager_mode(options: dict[str, Any]) -> None:
    model = Critic(**options).eval()
    shape = (B, T, I) if options.get("batch_first") else (T, B, I)
    _assert_same(model, torch.randn(shape))


def test_without_a_batch_and_with_a_state() -> None:
    _assert_same(Critic(), torch.randn(T, I))
    _assert_same(Critic(), torch.randn(T, B, I), hx=(torch.randn(1, B, H), torch.randn(1, B, H)))


def test_lengths() -> None:
    _assert_same(
        Critic(bidirectional=True), torch.randn(T, B, I), lengths=torch.tensor([5, 1, 3, 2])
    )


@pytest.mark.slow
def test_inductor() -> None:
    _assert_same(Critic(num_layers=2), torch.randn(T, B, I), backend="inductor")


def test_parametrized_weight() -> None:
    model = Critic()
    weight_norm(model.lstm, "weight_hh_l0")
    _assert_same(model, torch.randn(T, B, I))


@pytest.mark.parametrize("impl", ["reference", "torch"])
def test_other_implementations(impl: str) -> None:
    _assert_same(Critic(impl=impl), torch.randn(T, B, I))


def test_cell() -> None:
    cell, x = FastLSTMCell(I, H), torch.randn(B, I)
    compiled = torch.compile(cell, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), cell(x))


def test_a_change_of_sizes_compiles_once_more() -> None:
    counter = CompileCounterWithBackend("aot_eager")
    model = Critic()
    compiled = torch.compile(model, fullgraph=True, backend=counter, dynamic=True)
    for steps, batch in ((5, 4), (7, 4), (6, 9), (11, 3)):
        x = torch.randn(steps, batch, I)
        torch.testing.assert_close(compiled(x), model(x))
    assert counter.frame_count <= 2


def test_packed_sequence_gives_the_same_numbers() -> None:
    lstm = FastLSTM(I, H)
    packed = pack_padded_sequence(torch.randn(T, B, I), torch.tensor([5, 4, 2, 1]))
    compiled = torch.compile(lstm, backend="aot_eager")
    torch.testing.assert_close(compiled(packed)[0].data, lstm(packed)[0].data)


def test_second_order_raises() -> None:
    model, x = Critic(), torch.randn(T, B, I, requires_grad=True)
    out = torch.compile(model, backend="aot_eager")(x)
    (grad,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        grad.square().sum().backward()


def test_a_layer_of_torch_is_treated_as_before() -> None:
    assert not torch._dynamo.config.allow_rnn
    x = torch.randn(T, B, I)
    torch.compile(FastLSTM(I, H), fullgraph=True, backend="aot_eager")(x)
    assert not torch._dynamo.config.allow_rnn
    with pytest.raises(Exception, match=r"RNN|LSTM"):
        torch.compile(nn.LSTM(I, H), fullgraph=True, backend="aot_eager")(x)


def test_copies_and_subclasses() -> None:
    class Named(FastLSTM):
        pass

    for lstm in (copy.deepcopy(FastLSTM(I, H)), Named(I, H)):
        x = torch.randn(T, B, I)
        compiled = torch.compile(lstm, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x)[0], lstm(x)[0])


PROGRAM = """
import torch
from torch import nn
{first}
from ganlstm_fast import FastLSTM
assert ("torch._dynamo" in __import__("sys").modules) == bool({first!r})
lstm, x = FastLSTM(3, 6), torch.randn(5, 4, 3)
y = torch.compile(lstm, fullgraph=True, backend="aot_eager")(x)[0]
torch.testing.assert_close(y, lstm(x)[0])
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "import torch._dynamo"])
def test_dynamo_imported_before_or_after(first: str) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM.format(first=first)], check=True, timeout=120)

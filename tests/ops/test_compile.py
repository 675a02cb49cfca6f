"""torch.compile: whole graphs at first order, and what is left to eager code or raises."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import Unsupported
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.variables.builder import VariableBuilder
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import ganlstm_fast
from ganlstm_fast import FastLSTM, FastLSTMCell, use_impl
from ganlstm_fast.ops.dynamo import let_dynamo_trace
from tests.marks import needs_cpu_kernels
from tests.numerics import assert_close_to_reference

AOT = "aot_eager"


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch.compiler.reset()


@dataclass
class Case:
    """A layer, a change to it, and a call."""

    options: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (5, 4, 3)
    with_hx: bool = False
    lengths: list[int] | None = None
    prepare: Callable[[nn.Module], Any] = nn.Module.train

    def build(self, impl: str | None, state: dict[str, Tensor] | None = None) -> FastLSTM:
        layer = FastLSTM(3, 6, **self.options, impl=impl)
        self.prepare(layer)
        if state is not None:
            layer.load_state_dict(state)
        return layer

    def step(self, call: Callable[..., Any], layer: nn.Module, dtype: torch.dtype) -> list[Tensor]:
        """Outputs, and the gradients of the inputs and the parameters."""
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        rows = self.options.get("num_layers", 1) * (2 if self.options.get("bidirectional") else 1)
        batch = self.shape[1:-1] if not self.options.get("batch_first") else self.shape[:1]
        inputs = [draw(*self.shape), *(draw(rows, *batch, 6) for _ in range(2 * self.with_hx))]
        x, *hx = (t.requires_grad_() for t in inputs)
        keywords = {} if self.lengths is None else {"lengths": torch.tensor(self.lengths)}
        y, (h, c) = call(x, tuple(hx) or None, **keywords)
        leaves = [*inputs, *layer.parameters()]
        cotangents = [draw(*t.shape) for t in (y, h, c)]
        return [y, h, c, *torch.autograd.grad([y, h, c], leaves, cotangents)]


CASES = {
    "plain": Case(),
    "two layers, both directions": Case({"num_layers": 2, "bidirectional": True}),
    "no bias, batch first": Case({"bias": False, "batch_first": True}, shape=(4, 5, 3)),
    "no batch": Case(shape=(5, 3)),
    "state given": Case({"num_layers": 2}, with_hx=True),
    "state given, no batch": Case(shape=(5, 3), with_hx=True),
    "lengths": Case({"bidirectional": True}, lengths=[5, 1, 3, 4]),
    "dropout in eval": Case({"num_layers": 2, "dropout": 0.5}, prepare=nn.Module.eval),
    "weight norm": Case(prepare=lambda m: parametrizations.weight_norm(m, "weight_hh_l0")),
    "spectral norm": Case(prepare=lambda m: parametrizations.spectral_norm(m, "weight_hh_l0")),
    "our spectral norm": Case(prepare=lambda m: ganlstm_fast.spectral_norm(m, "weight_hh_l0")),
}


@needs_cpu_kernels
@pytest.mark.parametrize("name", CASES)
def test_training_step(name: str) -> None:
    """A whole graph; outputs and first gradients under the rule of numerics.py."""
    case = CASES[name]
    layer = case.build(None)
    state = copy.deepcopy(layer.state_dict())
    rival = case.build("torch", state)
    truth = case.build("reference", state).double()
    compiled = torch.compile(layer, backend=AOT, fullgraph=True)
    assert_close_to_reference(
        case.step(compiled, layer, torch.float32),
        case.step(truth, truth, torch.float64),
        case.step(rival, rival, torch.float32),
    )


@needs_cpu_kernels
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("lengths", [None, [5, 2]])
def test_inference(mode: type, lengths: list[int] | None) -> None:
    layer = FastLSTM(3, 4, num_layers=2, dropout=0.5).eval()
    ends = None if lengths is None else torch.tensor(lengths)
    compiled = torch.compile(layer, backend=AOT, fullgraph=True)
    x = torch.randn(5, 2, 3)
    with mode():
        y, (h, c) = compiled(x, lengths=ends)
        torch.testing.assert_close((y, (h, c)), layer(x, lengths=ends))
    assert not y.requires_grad


def test_training_and_eval_mode() -> None:
    layer = FastLSTM(3, 32, num_layers=2, dropout=0.5)
    compiled = torch.compile(layer, backend=AOT)
    x = torch.randn(5, 2, 3)
    for training in (True, False, True):
        layer.train(training)
        assert torch.equal(compiled(x)[0], compiled(x)[0]) is not training


class Critic(nn.Module):
    """Layers before, between and after."""

    def __init__(self, impl: str | None = None) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(0.2))
        self.lstm = FastLSTM(8, 16, batch_first=True, impl=impl)
        self.cell = FastLSTMCell(16, 8, impl=impl)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        y, _ = self.lstm(self.before(x), lengths=lengths)
        state = None
        for step in range(2):
            state = self.cell(y[:, step], state)
        return self.head(state[0]).squeeze(-1)


@needs_cpu_kernels
@pytest.mark.parametrize("backend", [AOT, pytest.param("inductor", marks=pytest.mark.slow)])
def test_model_trains_as_without(backend: str) -> None:
    eager = Critic()
    model = copy.deepcopy(eager)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    x, lengths = torch.randn(4, 6, 3), torch.tensor([6, 2, 3, 6])

    def losses(call: Callable[..., Tensor], module: nn.Module) -> list[Tensor]:
        optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
        result = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = (call(x, lengths) - 1).square().mean()
            loss.backward()
            optimizer.step()
            result.append(loss.detach())
        return result

    torch.testing.assert_close(losses(compiled, model), losses(eager, eager))
    torch.testing.assert_close(model.state_dict(), eager.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), eager(x))


@needs_cpu_kernels
@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize(("dynamic", "graphs"), [(True, 1), (None, 2)])
def test_one_graph_for_many_shapes(dynamic: bool | None, graphs: int, with_lengths: bool) -> None:
    """Once Dynamo has seen the numbers of steps and sequences change, it does not compile again."""
    layer = FastLSTM(3, 4)
    counter = CompileCounterWithBackend(AOT)
    compiled = torch.compile(layer, backend=counter, fullgraph=True, dynamic=dynamic)
    for steps, batch in ((5, 2), (6, 3), (9, 7), (4, 11), (12, 5)):
        x = torch.randn(steps, batch, 3)
        ends = torch.randint(1, steps + 1, (batch,)) if with_lengths else None
        y, expected = compiled(x, lengths=ends)[0], layer(x, lengths=ends)[0]
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(
            torch.autograd.grad(y.square().sum(), layer.weight_hh_l0),
            torch.autograd.grad(expected.square().sum(), layer.weight_hh_l0),
        )
    assert counter.frame_count == graphs


@needs_cpu_kernels
@pytest.mark.parametrize("sort", [True, False])
def test_packed_sequences_break_the_graph_and_are_right(sort: bool) -> None:
    layer = FastLSTM(3, 4, num_layers=2)
    counter = CompileCounterWithBackend(AOT)
    compiled = torch.compile(layer, backend=counter)
    counts = []
    for steps, batch in ((5, 2), (6, 3), (9, 7)):
        x = torch.randn(steps, batch, 3, requires_grad=True)
        ends = torch.randint(1, steps + 1, (batch,))
        ends[0] = steps
        if sort:
            ends = ends.sort(descending=True).values
        results = []
        for call in (compiled, layer):
            packed = pack_padded_sequence(x, ends, enforce_sorted=sort)
            output, (h, c) = call(packed)
            assert isinstance(output, PackedSequence)
            (grad,) = torch.autograd.grad(output.data.square().sum() + c.sum(), x)
            results.append([*output, h, c, grad])
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected)
        counts.append(counter.frame_count)
    assert counts[-1] == counts[1], "every batch compiles again"


@needs_cpu_kernels
def test_lengths_are_checked_when_the_graph_runs() -> None:
    compiled = torch.compile(FastLSTM(3, 4), backend=AOT, fullgraph=True)
    with pytest.raises(RuntimeError, match=r"lengths: expected values in 1\.\.5, got 9 at index 0"):
        compiled(torch.randn(5, 2, 3), lengths=torch.tensor([9, 2]))


@needs_cpu_kernels
def test_the_choice_of_implementation_is_seen_after_compilation() -> None:
    layer, x = FastLSTM(3, 4), torch.randn(5, 2, 3)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        graphs.append(graph)
        return graph

    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    y = compiled(x)[0]
    with use_impl("reference"):
        torch.testing.assert_close(compiled(x)[0], y)
    has_kernel = ["lstm_forward" in graph.code for graph in graphs]
    assert has_kernel == [True, False]


OF_TORCH = {"impl": {"impl": "torch"}, "projection": {"proj_size": 2, "num_layers": 2}}


@pytest.mark.parametrize("lengths", [None, [30, 2]])
@pytest.mark.parametrize("name", OF_TORCH)
def test_torchs_lstm_stays_out_of_graphs(name: str, lengths: list[int] | None) -> None:
    """The reference stays out of graphs: its loop would be unrolled over time."""
    layer = FastLSTM(3, 4, **OF_TORCH[name])
    sizes: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        sizes.append(len(graph.graph.nodes))
        return graph

    x = torch.randn(30, 2, 3)
    ends = None if lengths is None else torch.tensor(lengths)
    compiled = torch.compile(layer, backend=backend)
    y, expected = compiled(x, lengths=ends)[0], layer(x, lengths=ends)[0]
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(
        torch.autograd.grad(y.square().sum(), layer.weight_hh_l0),
        torch.autograd.grad(expected.square().sum(), layer.weight_hh_l0),
    )
    assert sum(sizes) < 60
    torch.compiler.reset()
    with pytest.raises(Unsupported, match="torch's LSTM, which a graph would unroll over time"):
        torch.compile(layer, backend=AOT, fullgraph=True)(x)


@pytest.mark.parametrize("name", OF_TORCH)
def test_torchs_lstm_is_in_an_exported_program(name: str) -> None:
    layer, x = FastLSTM(3, 4, **OF_TORCH[name]), torch.randn(5, 2, 3)
    program = torch.export.export(layer, (x,), strict=True)
    torch.testing.assert_close(program.module()(x)[0], layer(x)[0])


@pytest.mark.parametrize("impl", ["torch", "reference"])
def test_cell_without_a_kernel_is_in_the_graph(impl: str) -> None:
    cell, x = FastLSTMCell(3, 4, impl=impl), torch.randn(2, 3)
    state = cell(torch.randn(2, 3))
    compiled = torch.compile(cell, backend=AOT, fullgraph=True)
    torch.testing.assert_close(compiled(x, state), cell(x, state))


def test_reference_is_in_the_graph() -> None:
    layer, x = FastLSTM(3, 4, impl="reference"), torch.randn(5, 2, 3)
    y = torch.compile(layer, backend=AOT, fullgraph=True)(x)[0]
    torch.testing.assert_close(y, layer(x)[0])
    torch.testing.assert_close(
        torch.autograd.grad(y.square().sum(), layer.weight_hh_l0),
        torch.autograd.grad(layer(x)[0].square().sum(), layer.weight_hh_l0),
    )


@needs_cpu_kernels
def test_autocast() -> None:
    layer, x = FastLSTM(3, 4, num_layers=2), torch.randn(5, 2, 3)
    compiled = torch.compile(layer, backend=AOT, fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        y, expected = compiled(x)[0], layer(x)[0]
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected)
    grads = (torch.autograd.grad(t.sum(), list(layer.parameters())) for t in (y, expected))
    torch.testing.assert_close(*grads)


@needs_cpu_kernels
def test_second_order_raises() -> None:
    """AOTAutograd, which all code-generating backends use, supports first derivatives only."""
    compiled = torch.compile(Critic(), backend=AOT)
    x = torch.randn(4, 6, 3, requires_grad=True)
    scores = compiled(x)
    (grad,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        (grad.square().sum() + compiled(x).sum()).backward()
    with pytest.raises(RuntimeError, match="double backward"):
        ganlstm_fast.gradient_penalty(compiled, x.detach(), x.detach() + 1).backward()


@needs_cpu_kernels
def test_second_order_where_autograd_is_not_traced() -> None:
    layer = FastLSTM(3, 4, dtype=torch.float64)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)

    def second(call: Callable[..., Any]) -> list[Tensor]:
        x = torch.linspace(-1, 1, 30, dtype=torch.float64).view(5, 2, 3).requires_grad_()
        (grad,) = torch.autograd.grad(call(x)[0].square().sum(), x, create_graph=True)
        inputs = [x, *layer.parameters()]
        return list(torch.autograd.grad(grad.square().sum(), inputs, create_graph=True))

    got = second(compiled)
    torch.testing.assert_close(got, second(layer))
    with pytest.raises(RuntimeError, match="third derivative"):
        got[0].sum().backward()


def test_the_layer_is_as_before() -> None:
    layer, x = FastLSTM(3, 4, impl="reference"), torch.randn(5, 2, 3)
    names = list(layer.state_dict())
    y = layer(x)[0]
    compiled = torch.compile(layer, backend=AOT, fullgraph=True)
    torch.testing.assert_close(compiled(x)[0], y)
    assert isinstance(layer, nn.LSTM)
    assert issubclass(FastLSTM, nn.LSTM)
    assert issubclass(FastLSTMCell, nn.LSTMCell)
    assert list(layer.state_dict()) == names == list(nn.LSTM(3, 4).state_dict())
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(other) is FastLSTM
        assert other.impl == "reference"
        torch.testing.assert_close(other(x)[0], y)
    layer.compile(backend=AOT, fullgraph=True)
    torch.testing.assert_close(layer(x)[0], y)


class TestDynamo:
    """Which functions Dynamo is told about, and which it is not."""

    pytestmark = needs_cpu_kernels

    @pytest.mark.skipif(torch._dynamo.config.allow_rnn, reason="Dynamo takes torch's LSTM")
    def test_torchs_lstm_is_refused_as_before(self) -> None:
        x = torch.randn(5, 2, 3)
        both = nn.Sequential(FastLSTM(3, 4), nn.LSTM(3, 4))
        assert torch.compile(both[0], backend=AOT, fullgraph=True)(x)[0].shape == (5, 2, 4)
        with pytest.raises(Unsupported, match="allow_rnn"):
            torch.compile(both[1], backend=AOT, fullgraph=True)(x)
        assert torch._dynamo.config.allow_rnn is False

    @pytest.mark.skipif(torch._dynamo.config.allow_rnn, reason="Dynamo takes torch's LSTM")
    def test_without_the_private_method_it_is_eager(self, monkeypatch: pytest.MonkeyPatch) -> None:
        layer, x = FastLSTM(3, 4), torch.randn(5, 2, 3)
        monkeypatch.setattr(VariableBuilder, "wrap_module", VariableBuilder.wrap_module.__wrapped__)
        with pytest.raises(Unsupported, match="allow_rnn"):
            torch.compile(layer, backend=AOT, fullgraph=True)(x)
        torch.compiler.reset()
        torch.testing.assert_close(torch.compile(layer, backend=AOT)(x)[0], layer(x)[0])

    def test_other_torch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(VariableBuilder, "wrap_module")
        let_dynamo_trace(FastLSTM)
        assert not hasattr(VariableBuilder, "wrap_module")

    def test_subclasses(self) -> None:
        class Mine(FastLSTM):
            pass

        layer, x = Mine(3, 4), torch.randn(5, 2, 3)
        y = torch.compile(layer, backend="eager", fullgraph=True)(x)[0]
        torch.testing.assert_close(y, layer(x)[0])

    def test_either_may_be_imported_first(self) -> None:
        """Each in a fork of a process that has imported torch alone."""
        program = """
import importlib
import importlib.util
import os
import sys
import torch
finders = list(sys.meta_path)

def check(first):
    importlib.import_module(first)
    from ganlstm_fast import FastLSTM
    layer, x = FastLSTM(3, 4), torch.randn(5, 2, 3)
    layer(x)[0].sum().backward()
    assert importlib.util.find_spec("torch._dynamo") is not None
    assert ("torch._dynamo" in sys.modules) == (first == "torch._dynamo")
    y = torch.compile(layer, backend="eager", fullgraph=True)(x)[0]
    torch.testing.assert_close(y, layer(x)[0])
    assert sys.meta_path == finders

if os.fork() == 0:
    check("torch._dynamo")
    os._exit(0)
failed = os.wait()[1]
check("ganlstm_fast")
assert not failed
"""
        subprocess.run([sys.executable, "-c", program], check=True, timeout=120)

"""recompute=True: the same numbers in less memory, right to second order."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ganlstm_fast import FastLSTM, gradient_penalty, lstm, use_impl
from ganlstm_fast.ops import backends
from ganlstm_fast.ops.lstm import autograd
from tests.lstm_cases import Case
from tests.marks import needs_cpu_kernels
from tests.numerics import assert_close_to_reference, relative_error

pytestmark = needs_cpu_kernels

ENDS = [7, 1, 3, 6, 2, 5]
CASES = {
    "plain": Case(7, 6, 3, 9),
    "both directions": Case(7, 6, 3, 9, D=2),
    "lengths": Case(7, 6, 3, 9, lengths=ENDS),
    "lengths, both directions": Case(7, 6, 3, 9, D=2, lengths=ENDS),
    "nothing is as long as T": Case(9, 4, 3, 5, D=2, lengths=[2, 1, 5, 3]),
    "no bias": Case(7, 4, 3, 8, D=2, bias=False),
    "one row": Case(19, 1, 3, 5, D=2),
    "one step": Case(1, 20, 2, 4),
    "empty batch": Case(3, 0, 2, 4, D=2),
    "two threads": Case(13, 20, 16, 40, D=2, lengths=[1 + 5 * b % 13 for b in range(20)]),
}
# Long enough for several parts of dz; the windows below do not divide their steps.
MANY = Case(50, 32, 3, 96, D=2, lengths=[1 + 7 * b % 50 for b in range(32)])


def leaves(case: Case, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [t.to(dtype, copy=True).requires_grad_() for t in case.inputs]


def call(case: Case, recompute: bool, inputs: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    x, h0, c0, *weights = inputs
    count = len(weights) // case.D
    groups = [weights[d * count : (d + 1) * count] for d in range(case.D)]
    return lstm(x, groups, h0, c0, lengths=case.lengths, recompute=recompute, impl="cpu")


def assert_same_bits(got: list[Tensor | None], expected: list[Tensor | None]) -> None:
    for index, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert (a is None) == (b is None)
        assert a is None or (torch.isfinite(a).all() and torch.equal(a, b)), index


def run(case: Case, dtype: torch.dtype, recompute: bool) -> list[Tensor]:
    inputs = leaves(case, dtype)
    outputs = call(case, recompute, inputs)
    cotangents = [t.to(dtype) for t in case.cotangents]
    return [*outputs, *torch.autograd.grad(outputs, inputs, cotangents)]


@pytest.fixture
def window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(autograd, "RECOMPUTE_WINDOW", request.param)
    return request.param


@pytest.mark.usefixtures("poison", "window")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("window", [1, 2, 3, 7, 8, 100], indirect=True)
def test_same_bits(name: str, dtype: torch.dtype) -> None:
    assert_same_bits(run(CASES[name], dtype, True), run(CASES[name], dtype, False))


@pytest.mark.usefixtures("poison", "window")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("window", [1, 3, 8], indirect=True)
def test_bfloat16(name: str) -> None:
    """The same bits where both products read the rounded h, else within its rounding."""
    again, kept = (run(CASES[name], torch.bfloat16, recompute) for recompute in (True, False))
    if backends.cpu_isa() == "avx512bf16":
        assert_same_bits(again, kept)
    for a, b in zip(again, kept, strict=True):
        assert relative_error(a, b) < torch.finfo(torch.bfloat16).eps


@pytest.mark.usefixtures("poison", "window")
@pytest.mark.parametrize("window", [8, 49], indirect=True)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_same_bits_on_any_number_of_threads(threads: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert_same_bits(run(MANY, torch.float32, True), run(MANY, torch.float32, False))
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("poison", "window")
@pytest.mark.parametrize("window", [7, 8], indirect=True)
@pytest.mark.parametrize(("B", "lengths"), [(1, None), (2, [50, 17])])
def test_fewer_rows_than_threads(B: int, lengths: list[int] | None) -> None:
    """Threads that share the hidden units of a forward sum in another order than slices do."""
    case = Case(50, B, 5, 131, D=2, lengths=lengths)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4 * B)
        got, plain = (run(case, torch.float32, recompute) for recompute in (True, False))
    finally:
        torch.set_num_threads(before)
    assert_same_bits(got[:3], plain[:3])
    truth, rival = case.run("reference"), case.run("torch", torch.float32)
    assert_close_to_reference(got[3:], truth.first, rival.first)


@pytest.mark.usefixtures("poison", "window")
@pytest.mark.parametrize("window", [3], indirect=True)
@pytest.mark.parametrize("wanted", [[0], [1], [2], [3], [4], [5], [0, 4], [1, 2]], ids=str)
@pytest.mark.parametrize("output", [0, 1, 2], ids=["y", "h_T", "c_T"])
def test_some_gradients_from_one_cotangent(output: int, wanted: list[int]) -> None:
    """The cotangent is expanded, as sum() makes it, and the other two are absent."""
    case = CASES["lengths, both directions"]

    def grads(recompute: bool) -> list[Tensor | None]:
        inputs = leaves(case)
        total = call(case, recompute, inputs)[output].sum()
        return list(torch.autograd.grad(total, [inputs[k] for k in wanted]))

    assert_same_bits(grads(True), grads(False))


@pytest.mark.usefixtures("window")
@pytest.mark.parametrize("window", [1, 2], indirect=True)
@pytest.mark.parametrize(
    "case",
    [Case(3, 2, 2, 3), Case(5, 2, 1, 2, D=2, lengths=[5, 2]), Case(3, 2, 2, 3, bias=False)],
    ids=["plain", "both directions, lengths", "no bias"],
)
def test_gradcheck_and_gradgradcheck(case: Case) -> None:
    inputs = leaves(case)
    assert torch.autograd.gradcheck(lambda *a: call(case, True, a), inputs)
    assert torch.autograd.gradgradcheck(lambda *a: call(case, True, a), inputs)


@pytest.mark.usefixtures("window")
@pytest.mark.parametrize("window", [3], indirect=True)
def test_backward_again_recorded_and_not() -> None:
    case = CASES["lengths, both directions"]

    def orders(recompute: bool) -> list[Tensor | None]:
        inputs = leaves(case)
        outputs = call(case, recompute, inputs)
        once = torch.autograd.grad(outputs, inputs, case.cotangents, retain_graph=True)
        first = torch.autograd.grad(outputs, inputs, case.cotangents, create_graph=True)
        total = sum((g**2).sum() for g in first)
        second = torch.autograd.grad(total, inputs, retain_graph=True)
        again = torch.autograd.grad(total, inputs)
        twice = torch.autograd.grad(outputs, inputs, case.cotangents)
        assert_same_bits(twice, once)
        assert_same_bits(again, second)
        return [*once, *first, *second]

    assert_same_bits(orders(True), orders(False))


def test_penalty_step() -> None:
    real, fake = torch.randn(2, 5, 20, 3)

    def step(recompute: bool) -> list[Tensor]:
        torch.manual_seed(1)
        layer = FastLSTM(3, 8, batch_first=True, bidirectional=True, recompute=recompute)
        critic = lambda x: layer(x)[0][:, -1].sum(1)  # noqa: E731
        loss = critic(fake).mean() - critic(real).mean()
        (loss + gradient_penalty(critic, real, fake)).backward()
        return [p.grad for p in layer.parameters()]

    assert_same_bits(step(True), step(False))


def test_third_order_raises() -> None:
    case = Case(3, 2, 2, 3)
    inputs = leaves(case)
    (grad,) = torch.autograd.grad(call(case, True, inputs)[0].sum(), inputs[0], create_graph=True)
    (second,) = torch.autograd.grad((grad**2).sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="third derivative"):
        ((second**2).sum() + (inputs[0] ** 2).sum()).backward()


def test_func_grad_of_grad() -> None:
    case = Case(20, 2, 2, 3, D=2, lengths=[3, 20])
    x, h0, c0, weight, *rest = case.inputs

    def penalty(recompute: bool, weight: Tensor) -> Tensor:
        critic = lambda x: call(case, recompute, [x, h0, c0, weight, *rest])[0].sum()  # noqa: E731
        return (torch.func.grad(critic)(x) ** 2).sum()

    got, expected = (torch.func.grad(lambda w, r=r: penalty(r, w))(weight) for r in (True, False))
    assert torch.equal(got, expected)


def test_nothing_is_kept_where_nothing_is_recorded() -> None:
    case = Case(20, 2, 2, 3)
    with torch.no_grad():
        got = call(case, True, case.inputs)
    assert_same_bits(got, call(case, False, case.inputs))
    assert not any(t.requires_grad for t in got)


class TestLayer:
    def test_stack(self) -> None:
        """Two layers in both directions with dropout, and lengths."""
        x, lengths = torch.randn(21, 4, 3), [21, 1, 17, 8]

        def grads(recompute: bool) -> list[Tensor]:
            torch.manual_seed(1)
            options = {"num_layers": 2, "bidirectional": True, "dropout": 0.5}
            layer = FastLSTM(3, 5, **options, recompute=recompute)
            y, (h, c) = layer(x, lengths=lengths)
            (y.square().sum() + h.sum() + c.sum()).backward()
            return [y, h, c, *(p.grad for p in layer.parameters())]

        assert_same_bits(grads(True), grads(False))

    def test_is_an_attribute(self) -> None:
        layer = FastLSTM(3, 4, num_layers=2, recompute=True)
        assert repr(layer) == "FastLSTM(3, 4, num_layers=2, recompute=True)"
        assert list(layer.state_dict()) == list(FastLSTM(3, 4, num_layers=2).state_dict())
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert other.recompute is True
        old = FastLSTM(3, 4)
        del old.__dict__["recompute"]
        assert pickle.loads(pickle.dumps(old)).recompute is False

    def test_projections_have_none(self) -> None:
        with pytest.raises(ValueError, match="recompute: expected False with proj_size"):
            FastLSTM(3, 4, proj_size=2, recompute=True)

    def test_compile(self) -> None:
        torch.compiler.reset()
        layer = FastLSTM(3, 4, bidirectional=True, recompute=True)
        x = torch.randn(20, 2, 3, requires_grad=True)
        inputs = [x, *layer.parameters()]
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        y, expected = compiled(x)[0], layer(x)[0]
        assert torch.equal(y, expected)
        grads = (torch.autograd.grad(t.square().sum(), inputs) for t in (y, expected))
        assert_same_bits(*grads)


@pytest.mark.parametrize("impl", ["torch", "reference"])
def test_other_implementations_warn_once(impl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a kernel the numbers are still right, since a model may be moved to such a device."""
    monkeypatch.setattr(backends, "_warned", set())
    layer, x = FastLSTM(3, 4, recompute=True), torch.randn(5, 2, 3)
    with use_impl(impl):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with torch.no_grad():
                expected = layer(x)[0]
        with pytest.warns(RuntimeWarning, match=f"recompute=True saves no memory with.*'{impl}'"):
            # torch's kernels for inference and for training round differently.
            torch.testing.assert_close(layer(x)[0], expected)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            layer(x)


class TestOperators:
    def arguments(self, window: int) -> tuple[list[object], list[object], tuple[Tensor, ...]]:
        case = Case(7, 3, 2, 5, D=2)
        x, h0, c0, *weights = (t.float() for t in case.inputs)
        inputs = [x, weights, h0, c0, torch.tensor([7, 1, 3])]
        forward = [*inputs, True, window]
        y, _, _, gates, c = torch.ops.ganlstm_fast.lstm_forward(*forward)
        cotangents = [t.float() for t in case.cotangents]
        return forward, [*cotangents, *inputs, y, gates, c, [True] * 6, False, window], (gates, c)

    @pytest.mark.parametrize(
        ("window", "needs_grad"), [(1, False), (3, True), (7, False), (9, True)]
    )
    def test_opcheck(self, window: int, needs_grad: bool) -> None:
        forward, backward, (gates, c) = self.arguments(window)
        assert gates.shape == (0,)
        assert c.shape == (6 // window, 2, 3, 5)
        if needs_grad:
            forward[0] = forward[0].clone().requires_grad_()
            backward[3] = backward[3].clone().requires_grad_()
        torch.library.opcheck(torch.ops.ganlstm_fast.lstm_forward.default, forward)
        torch.library.opcheck(torch.ops.ganlstm_fast.lstm_backward.default, backward)

    def test_what_the_double_backward_needs(self) -> None:
        """A direct caller may have a backward with a window save what the double backward needs."""
        _, plain, _ = self.arguments(0)
        _, windowed, _ = self.arguments(3)
        plain[-2] = windowed[-2] = True
        op = torch.ops.ganlstm_fast.lstm_backward
        x, h0, c0, weights, dz, d = op(*plain)
        got_x, got_h0, got_c0, got_weights, got_dz, got_d = op(*windowed)
        expected = [x, h0, c0, dz, d, *weights]
        assert_same_bits([got_x, got_h0, got_c0, got_dz, got_d, *got_weights], expected)

    def test_messages(self) -> None:
        forward, backward, (_, c) = self.arguments(3)
        forward[-1] = -1
        with pytest.raises(RuntimeError, match="window: expected a number of steps or 0, got -1"):
            torch.ops.ganlstm_fast.lstm_forward(*forward)
        backward[10] = c[:1]
        with pytest.raises(RuntimeError, match=r"c: expected shape \(\(T - 1\) / window"):
            torch.ops.ganlstm_fast.lstm_backward(*backward)
        backward[-1] = 0
        with pytest.raises(RuntimeError, match=r"gates: expected shape \(T, B, D, 4H\)"):
            torch.ops.ganlstm_fast.lstm_backward(*backward)


def peaks_mib() -> dict[tuple[int, bool], float]:
    """MiB that a forward and backward add at most, by (threads, recompute).

    Each is measured in a fork of a process that has run nothing.
    """
    code = (
        "import os, torch\n"
        "from pathlib import Path\n"
        "from ganlstm_fast import FastLSTM\n"
        "def mib(name):\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return int(next(l for l in lines if l.startswith(name)).split()[1]) / 1024\n"
        "def measure(threads, recompute):\n"
        "    torch.set_num_threads(threads)\n"
        "    layer = FastLSTM(16, 128, recompute=recompute)\n"
        "    layer(torch.randn(2, 2, 16))[0].sum().backward()\n"
        "    x = torch.randn(500, 64, 16)\n"
        "    before = mib('VmRSS')\n"
        "    layer(x)[0].sum().backward()\n"
        "    print(threads, int(recompute), mib('VmHWM') - before, flush=True)\n"
        "for threads in (1, 2):\n"
        "    for recompute in (False, True):\n"
        "        if os.fork() == 0:\n"
        "            measure(threads, recompute)\n"
        "            os._exit(0)\n"
        "        os.wait()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("GANLSTM_FAST_POISON", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 4, done.stderr
    return {(int(threads), recompute == "1"): float(mib) for threads, recompute, mib in lines}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_peak_memory() -> None:
    """Without recomputation a step keeps 7 arrays of y's size, 16 MiB each; gates and c are 5.

    With it, y, its gradient, an eighth of c, and windows of 5 MiB of gates, c and dz stay.
    """
    peaks = peaks_mib()
    for threads in (1, 2):
        without, with_it = peaks[threads, False], peaks[threads, True]
        assert without > 5 * 16
        assert with_it < 0.5 * without
        assert with_it < 55


def test_second_order_equals_reference() -> None:
    case = Case(20, 4, 3, 6, D=2, lengths=[20, 1, 9, 16])

    def second(impl: str) -> list[Tensor]:
        inputs = leaves(case)
        outputs = call(case, True, inputs) if impl == "cpu" else case.call(impl, *inputs)
        first = torch.autograd.grad(outputs, inputs, case.cotangents, create_graph=True)
        return [*first, *torch.autograd.grad(sum((g**2).sum() for g in first), inputs)]

    assert_close_to_reference(second("cpu"), second("reference"))

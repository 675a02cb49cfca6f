"""The LSTM on a GPU: every implementation, to second order, and how it behaves on a device."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from lstm_cases import CASES, RIVAL_DTYPES, Case, Orders
from numerics import assert_close_to_reference, relative_error, tolerance
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ganlstm_fast import FastLSTM, gradient_penalty, lstm

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
# Read when cuBLAS is first used: the `poison` fixture asks for deterministic algorithms.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

DEVICE = "cuda"
KERNELS = ["cell", "cuda", "triton"]
IMPLS = [*KERNELS, "torch"]
ENDS = [7, 1, 3, 6, 2, 5]
LARGE = {
    "H 128": Case(12, 33, 48, 128),
    "H 200": Case(9, 20, 30, 200),
    "H 512": Case(8, 17, 64, 512),
    "long": Case(200, 130, 24, 64, D=2, lengths=[1 + 37 * b % 200 for b in range(130)]),
}
ALL_CASES = CASES | LARGE


@dataclass(frozen=True)
class Numbers:
    """In what an implementation computes. ``tf32``: products of float32 that are rounded."""

    dtype: torch.dtype
    tf32: bool = False

    def __str__(self) -> str:
        return "tf32" if self.tf32 else str(self.dtype).removeprefix("torch.")


FLOAT32 = Numbers(torch.float32)
BFLOAT16 = Numbers(torch.bfloat16)
FLOAT64 = Numbers(torch.float64)
NUMBERS = [FLOAT32, Numbers(torch.float32, tf32=True), Numbers(torch.float16), BFLOAT16, FLOAT64]


@contextlib.contextmanager
def tf32(on: bool) -> Iterator[None]:
    """For all that reads the setting; torch refuses to name cuDNN's where its two parts differ."""
    cudnn = torch.backends.cudnn
    settings = (cudnn.rnn, cudnn.conv, torch.backends.cuda.matmul)
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "tf32" if on else "ieee"
    try:
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


@pytest.fixture(autouse=True)
def _tf32_off() -> Iterator[None]:
    with tf32(False):
        yield


def skips_unserved(test: Callable[..., None]) -> Callable[..., None]:
    """Skips where the implementation says that it cannot serve the call; nothing else is excused.

    ``test_every_implementation_runs`` fails where one serves nothing at all.
    """

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            test(*args, **kwargs)
        except RuntimeError as error:
            if re.match(r"impl='\w+' cannot run lstm: ", str(error)) is None:
                raise
            pytest.skip(str(error))

    return run


def leaves(case: Case, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [t.to(DEVICE, dtype, copy=True).requires_grad_() for t in case.inputs]


def on_device(values: Sequence[Tensor], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [t.to(DEVICE, dtype) for t in values]


def both_orders(case: Case, impl: str, inputs: list[Tensor], numbers: list[list[Tensor]]) -> list:
    """Outputs, first and second gradients, of tensors that are on the device already."""
    cotangents, directions = numbers
    outputs = case.call(impl, *inputs)
    first = torch.autograd.grad(outputs, inputs, cotangents, create_graph=True)
    second = torch.autograd.grad(first, inputs, directions, allow_unused=True)
    return [*outputs, *first, *second]


def everything(orders: Orders) -> list[Tensor | None]:
    return [*orders.outputs, *orders.first, *orders.second]


def assert_same_bits(got: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> None:
    for index, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert (a is None) == (b is None), index
        assert a is None or (torch.isfinite(a).all() and torch.equal(a, b)), index


def assert_close(
    out: Tensor | None, truth: Tensor | None, rival: Tensor | None, numbers: Numbers, what: str
) -> None:
    """The rule of numerics.py. TF32 keeps 10 bits of mantissa, as float16 does: so does the floor.

    (torch takes TF32 for products of some shapes only, so that its error may be float32's.)
    """
    if not numbers.tf32:
        assert_close_to_reference(out, truth, rival, what)
        return
    rival_error = relative_error(rival, truth)
    error, allowed = relative_error(out, truth), tolerance(torch.float16, rival_error)
    assert error <= allowed, (
        f"{what} (TF32): relative error {error:.3e}, allowed {allowed:.3e}, torch's own "
        f"{rival_error:.3e}"
    )


def rival_dtype(dtype: torch.dtype) -> torch.dtype:
    return RIVAL_DTYPES.get(dtype, dtype)


@functools.cache
def truth_of(name: str, dtype: torch.dtype) -> Orders:
    return ALL_CASES[name].rounded(dtype).run("reference", torch.float64, DEVICE)


@functools.cache
def rival_of(name: str, numbers: Numbers) -> Orders:
    """The operator in plain PyTorch with the same settings on the same GPU."""
    case = ALL_CASES[name].rounded(numbers.dtype)
    with tf32(numbers.tf32):
        return case.run("reference", rival_dtype(numbers.dtype), DEVICE)


def test_every_implementation_runs() -> None:
    """The other tests skip what an implementation does not serve: here none may be skipped."""
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("impl='cuda' is for sm_90")
    for impl in IMPLS:
        for value in everything(CASES["lengths"].run(impl, torch.float32, DEVICE)):
            assert value is None or torch.isfinite(value).all()


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
@pytest.mark.parametrize("name", ALL_CASES)
@skips_unserved
def test_equals_reference_to_second_order(name: str, numbers: Numbers, impl: str) -> None:
    case = ALL_CASES[name].rounded(numbers.dtype)
    with tf32(numbers.tf32):
        got = case.run(impl, numbers.dtype, DEVICE)
    truth, rival = truth_of(name, numbers.dtype), rival_of(name, numbers)
    for index, values in enumerate(zip(got.outputs, truth.outputs, rival.outputs, strict=True)):
        assert_close(*values, numbers, f"output {index}")
    names = [*case.names, "grad_y", "grad_h", "grad_c"]
    for order in ("first", "second"):
        runs = (getattr(run, order) for run in (got, truth, rival))
        for input_name, *values in zip(names, *runs, strict=False):
            assert_close(*values, numbers, f"{order} gradient of {input_name}")


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
@pytest.mark.parametrize("name", ["one row", "no bias", "lengths, both directions", "H 128"])
@skips_unserved
def test_backward_that_is_not_recorded(name: str, numbers: Numbers, impl: str) -> None:
    """It keeps nothing for a second order."""
    case = ALL_CASES[name].rounded(numbers.dtype)
    truth, rival = truth_of(name, numbers.dtype).first, rival_of(name, numbers).first
    with tf32(numbers.tf32):
        inputs = leaves(case, numbers.dtype)
        outputs = case.call(impl, *inputs)
        cotangents = on_device(case.cotangents, numbers.dtype)
        got = torch.autograd.grad(outputs, inputs, cotangents, retain_graph=True)
        (alone,) = torch.autograd.grad(outputs, inputs[0], cotangents)
    for input_name, *values in zip(case.names, got, truth, rival, strict=True):
        assert_close(*values, numbers, f"gradient of {input_name}")
    assert_close(alone, truth[0], rival[0], numbers, "gradient of x alone")


@pytest.mark.parametrize("impl", ["cell", "torch"])
@pytest.mark.parametrize(
    "case",
    [
        Case(3, 2, 2, 3),
        Case(3, 2, 2, 3, D=2, lengths=[3, 2]),
        Case(2, 3, 3, 2, bias=False, lengths=[1, 2, 2]),
    ],
    ids=["plain", "both directions, lengths", "no bias, lengths"],
)
@skips_unserved
def test_gradcheck_and_gradgradcheck(case: Case, impl: str) -> None:
    inputs = leaves(case, torch.float64)
    assert torch.autograd.gradcheck(lambda *a: case.call(impl, *a), inputs)
    assert torch.autograd.gradgradcheck(lambda *a: case.call(impl, *a), inputs)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("numbers", [FLOAT32, BFLOAT16, FLOAT64], ids=str)
@pytest.mark.parametrize("output", [0, 1, 2], ids=["y", "h_T", "c_T"])
@skips_unserved
def test_one_cotangent_alone(output: int, numbers: Numbers, impl: str) -> None:
    """The other two are absent; this one is expanded (stride 0), as sum() makes it."""
    case = Case(6, 8, 5, 16, D=2, lengths=[6, 2, 4, 1, 6, 3, 5, 4]).rounded(numbers.dtype)

    def run(impl: str, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        inputs = leaves(case, dtype)
        total = case.call(impl, *inputs)[output].sum()
        grads = torch.autograd.grad(total, inputs, create_graph=True)
        return [*grads, *torch.autograd.grad(sum((g**2).sum() for g in grads), inputs)]

    rival = run("reference", rival_dtype(numbers.dtype))
    assert_close_to_reference(run(impl, numbers.dtype), run("reference"), rival)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("wanted", [[0], [1], [2], [3], [4], [5], [0, 4], [1, 2]], ids=str)
@skips_unserved
def test_only_some_gradients(wanted: list[int], impl: str) -> None:
    case = Case(4, 3, 2, 5)

    def run(impl: str, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        inputs = leaves(case, dtype)
        chosen = [inputs[k] for k in wanted]
        cotangents = on_device(case.cotangents, dtype)
        outputs = case.call(impl, *inputs)
        first = torch.autograd.grad(outputs, chosen, cotangents, create_graph=True)
        return [*first, *torch.autograd.grad(sum((g**2).sum() for g in first), chosen)]

    rival = run("reference", torch.float32)
    assert_close_to_reference(run(impl, torch.float32), run("reference"), rival)


@pytest.mark.parametrize("impl", KERNELS)
@skips_unserved
def test_third_order_raises(impl: str) -> None:
    case = Case(3, 2, 2, 3)
    inputs = leaves(case)
    y = case.call(impl, *inputs)[0]
    (grad,) = torch.autograd.grad(y.sum(), inputs[0], create_graph=True)
    (second,) = torch.autograd.grad((grad**2).sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable twice, and a third derivative"):
        ((second**2).sum() + (inputs[0] ** 2).sum()).backward()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("numbers", [FLOAT32, BFLOAT16], ids=str)
@skips_unserved
def test_non_contiguous_inputs(numbers: Numbers, impl: str) -> None:
    case = Case(5, 4, 6, 7, D=2).rounded(numbers.dtype)

    def strided(tensor: Tensor) -> Tensor:
        twice = torch.stack([tensor, torch.full_like(tensor, torch.nan)], -1)
        return twice[..., 0]

    def run(change: Callable[[Tensor], Tensor]) -> list[Tensor | None]:
        inputs = [change(t).detach().requires_grad_() for t in leaves(case, numbers.dtype)]
        given = [
            [change(t) for t in on_device(values, numbers.dtype)]
            for values in (case.cotangents, case.directions)
        ]
        return both_orders(case, impl, inputs, given)

    assert not strided(case.inputs[0]).is_contiguous()
    for got, expected in zip(run(strided), run(lambda t: t), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("numbers", [FLOAT32, BFLOAT16], ids=str)
@skips_unserved
def test_lengths_from_anywhere(numbers: Numbers, impl: str) -> None:
    case = CASES["lengths, both directions"].rounded(numbers.dtype)
    expected = everything(case.run(impl, numbers.dtype, DEVICE))
    ends = torch.tensor(case.lengths)
    for lengths in (ends, ends.to(DEVICE), ends.to(DEVICE, torch.int32)):
        this = copy.copy(case)
        this.lengths = lengths
        assert_same_bits(everything(this.run(impl, numbers.dtype, DEVICE)), expected)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("numbers", [FLOAT32, BFLOAT16], ids=str)
@skips_unserved
def test_what_comes_after_the_end_is_not_read(numbers: Numbers, impl: str) -> None:
    case = CASES["lengths, both directions"].rounded(numbers.dtype)
    spoiled = copy.copy(case)
    spoiled.inputs = [case.inputs[0].clone(), *case.inputs[1:]]
    for row, length in enumerate(case.lengths):
        spoiled.inputs[0][length:, row] = torch.nan
    got, expected = (c.run(impl, numbers.dtype, DEVICE) for c in (spoiled, case))
    assert_same_bits(everything(got), everything(expected))
    assert not got.outputs[0][1:, 1].any()
    assert not got.first[0][1:, 1].any()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("numbers", [FLOAT32, BFLOAT16], ids=str)
@skips_unserved
def test_nan_comes_out_and_stays_in_its_row(numbers: Numbers, impl: str) -> None:
    case = Case(4, 3, 3, 5)
    x, *rest = on_device(case.inputs, numbers.dtype)
    x[1, 0, 0] = torch.nan
    y = case.call(impl, x, *rest)[0]
    assert torch.isnan(y[1:, 0]).all()
    assert torch.isfinite(y[0]).all()
    assert torch.isfinite(y[:, 1:]).all()


OUT_OF_RANGE = """
import sys
import torch
from lstm_cases import Case
wild = Case(6, 4, 3, 16, D=2, lengths=torch.tensor([6, 0, -5, 99], device="cuda"))
tame = Case(6, 4, 3, 16, D=2, lengths=[6, 1, 1, 6])
try:
    got, expected = (case.run(sys.argv[1], torch.float32, "cuda") for case in (wild, tame))
except RuntimeError as error:
    if " cannot run lstm: " not in str(error):
        raise
    sys.exit(f"skip {error}")
torch.cuda.synchronize()
for values in (got.outputs, got.first, got.second):
    assert all(v is None or torch.isfinite(v).all() for v in values)
for a, b in zip((*got.outputs, got.first[0]), (*expected.outputs, expected.first[0])):
    torch.testing.assert_close(a[:, ::3], b[:, ::3])
"""


@pytest.mark.parametrize("impl", KERNELS)
def test_lengths_out_of_range_on_the_device(impl: str) -> None:
    """They are clamped. In a process of its own: an error of a kernel would stay with the device's
    context."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_RANGE, impl],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.stderr.startswith("skip "):
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("numbers", [FLOAT32, BFLOAT16], ids=str)
@skips_unserved
def test_empty_batch(numbers: Numbers, impl: str) -> None:
    case = Case(3, 0, 2, 4, D=2)
    got = case.run(impl, numbers.dtype, DEVICE)
    assert [tuple(t.shape) for t in got.outputs] == [(3, 0, 8), (2, 0, 4), (2, 0, 4)]
    for tensor, grad in zip(case.inputs, got.first, strict=True):
        assert grad is None or (grad.shape == tensor.shape and not grad.any())


@pytest.mark.parametrize("impl", IMPLS)
@skips_unserved
def test_another_stream(impl: str) -> None:
    """The inputs come late on it: a kernel on any other stream would read NaN."""
    case = Case(9, 20, 30, 40, D=2)
    values = on_device(case.inputs)
    given = [on_device(case.cotangents), on_device(case.directions)]
    expected = both_orders(case, impl, [t.clone().requires_grad_() for t in values], given)
    inputs = [torch.full_like(t, torch.nan, requires_grad=True) for t in values]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # cycles: some 50 ms
        with torch.no_grad():
            for leaf, value in zip(inputs, values, strict=True):
                leaf.copy_(value)
        got = both_orders(case, impl, inputs, given)
    torch.cuda.current_stream().wait_stream(stream)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("impl", IMPLS)
@skips_unserved
def test_another_device_than_the_current_one(impl: str) -> None:
    case = CASES["lengths, both directions"]
    got, expected = (case.run(impl, torch.float32, f"cuda:{index}") for index in (1, 0))
    for a, b in zip(everything(got), everything(expected), strict=True):
        assert a is None or a.device.index == 1
        torch.testing.assert_close(a, b, check_device=False)


def _graph_case(impl: str) -> Case:
    """Lengths on the device where they stay there: torch's LSTM reads them on the host."""
    lengths = None if impl == "torch" else torch.tensor([9, 3, 1, 7, 9], device=DEVICE)
    return Case(9, 5, 6, 40, D=2, lengths=lengths)


@pytest.mark.parametrize("impl", IMPLS)
@skips_unserved
def test_captured_in_a_graph(impl: str) -> None:
    case = _graph_case(impl)
    inputs = leaves(case)
    given = [on_device(case.cotangents), on_device(case.directions)]
    run = functools.partial(both_orders, case, impl, inputs, given)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    other = Case(9, 5, 6, 40, D=2, seed=1)
    fresh = [*other.inputs, *other.cotangents]
    with torch.no_grad():
        for tensor, value in zip([*inputs, *given[0]], fresh, strict=True):
            tensor.copy_(value)
        if case.lengths is not None:
            case.lengths.copy_(torch.tensor([2, 9, 4, 1, 6]))
    graph.replay()
    for a, b in zip(captured, run(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("impl", IMPLS)
@skips_unserved
def test_the_host_does_not_wait(impl: str) -> None:
    case = _graph_case(impl)
    inputs = leaves(case)
    given = [on_device(case.cotangents), on_device(case.directions)]
    both_orders(case, impl, inputs, given)  # what is compiled or set up once may synchronise
    torch.cuda.set_sync_debug_mode("error")
    try:
        both_orders(case, impl, inputs, given)
        outputs = case.call(impl, *inputs)
        torch.autograd.grad(outputs, inputs, given[0])
        with torch.no_grad():
            case.call(impl, *inputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("impl", KERNELS)
@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
@pytest.mark.parametrize("name", ["lengths, both directions", "H 128"])
@skips_unserved
def test_same_bits_in_every_run(name: str, numbers: Numbers, impl: str) -> None:
    case = ALL_CASES[name].rounded(numbers.dtype)
    with tf32(numbers.tf32):
        first, *others = (everything(case.run(impl, numbers.dtype, DEVICE)) for _ in range(4))
    for other in others:
        assert_same_bits(other, first)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@skips_unserved
def test_autocast_as_torch_has_it(dtype: torch.dtype, impl: str) -> None:
    exact = nn.LSTM(5, 24, num_layers=2, bidirectional=True).double()
    x = torch.randn(7, 6, 5, dtype=torch.float64)
    cotangent = torch.randn(7, 6, 48, dtype=torch.float64)

    def run(layer: nn.LSTM, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        y, states = layer(x)
        grads = torch.autograd.grad(y, tuple(layer.parameters()), cotangent.to(y))
        return [y, *states], list(grads)

    truth, true_grads = run(exact, x)
    rival, fast = (build(5, 24, num_layers=2, bidirectional=True) for build in (nn.LSTM, FastLSTM))
    fast.impl = impl
    results = []
    for layer in (rival, fast):
        layer.load_state_dict(exact.state_dict())
        with torch.autocast(DEVICE, dtype):
            results.append(run(layer.to(DEVICE), x.to(DEVICE, torch.float32)))
    (expected, rival_grads), (got, grads) = results
    assert [t.dtype for t in got] == [t.dtype for t in expected]
    assert_close_to_reference(got, truth, expected)
    for grad, true, other in zip(grads, true_grads, rival_grads, strict=True):
        assert grad.dtype == other.dtype == torch.float32
        assert relative_error(grad, true) <= tolerance(dtype, relative_error(other, true))


@pytest.mark.parametrize("impl", IMPLS)
@skips_unserved
def test_retain_graph(impl: str) -> None:
    case = Case(5, 3, 2, 4)
    inputs, cotangents = leaves(case), on_device(case.cotangents)
    outputs = case.call(impl, *inputs)
    once = torch.autograd.grad(outputs, inputs, cotangents, retain_graph=True)
    first = torch.autograd.grad(outputs, inputs, cotangents, create_graph=True)
    total = sum((g**2).sum() for g in first)
    second = torch.autograd.grad(total, inputs, retain_graph=True)
    again = torch.autograd.grad(total, inputs, retain_graph=True)
    twice = torch.autograd.grad(outputs, inputs, cotangents)
    for expected, *others in zip(once, first, twice, strict=True):
        for other in others:
            torch.testing.assert_close(other, expected)
    for a, b in zip(second, again, strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(RuntimeError, match="a second time"):
        torch.autograd.grad(outputs, inputs, cotangents)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("way", ["packed", "packed, sorted", "lengths", "padded"])
@skips_unserved
def test_layer_equals_torch(way: str, impl: str) -> None:
    options = {"num_layers": 2, "bidirectional": True, "batch_first": True}
    exact = nn.LSTM(5, 24, **options).double()
    ends = torch.tensor(sorted(ENDS, reverse=True) if way == "packed, sorted" else ENDS)
    x = torch.randn(len(ENDS), 7, 5, dtype=torch.float64)
    state = tuple(torch.randn(4, len(ENDS), 24, dtype=torch.float64) for _ in range(2))
    cotangent = torch.randn(len(ENDS), 7, 48, dtype=torch.float64)

    def run(layer: nn.LSTM, way: str) -> list[Tensor]:
        weight = layer.weight_ih_l0
        padded = x.to(weight, copy=True).requires_grad_()
        hx = tuple(s.to(weight, copy=True).requires_grad_() for s in state)
        if way.startswith("packed"):
            packed = pack_padded_sequence(padded, ends, batch_first=True, enforce_sorted=False)
            if way == "packed, sorted":
                packed = pack_padded_sequence(padded, ends, batch_first=True)
            y, states = layer(packed, hx)
            y, _ = pad_packed_sequence(y, batch_first=True)
        elif way == "lengths":
            y, states = layer(padded, hx, lengths=ends)
        else:
            y, states = layer(padded, hx)
        wanted = (padded, *hx, *layer.parameters())
        total = (y * cotangent.to(weight)).sum() + sum((s**2).sum() for s in states)
        return [y, *states, *torch.autograd.grad(total, wanted)]

    fast, rival = FastLSTM(5, 24, impl=impl, **options), nn.LSTM(5, 24, **options)
    for layer in (fast, rival):
        layer.load_state_dict(exact.state_dict())
        layer.to(DEVICE)
    theirs = "packed" if way == "lengths" else way
    assert_close_to_reference(run(fast, way), run(exact, theirs), run(rival, theirs))


def _penalty_of(layer: FastLSTM, head: Tensor, x: Tensor) -> Tensor:
    # At points between x and x, which is x whatever is drawn.
    return gradient_penalty(lambda s: (layer(s)[0] @ head.to(s)).sum(1), x, x)


@pytest.mark.parametrize(
    ("impl", "recompute"), [*((i, False) for i in IMPLS), *((i, True) for i in KERNELS)]
)
@pytest.mark.parametrize("numbers", [FLOAT32, FLOAT64], ids=str)
@skips_unserved
def test_gradient_penalty_against_finite_differences(
    numbers: Numbers, impl: str, recompute: bool
) -> None:
    options = {"num_layers": 2, "bidirectional": True, "batch_first": True}
    layer = FastLSTM(5, 12, impl=impl, recompute=recompute, **options).to(DEVICE, numbers.dtype)
    exact = FastLSTM(5, 12, impl="reference", **options).double()
    exact.load_state_dict(layer.state_dict())
    head = torch.randn(24, dtype=torch.float64).float().double()
    x = torch.randn(4, 7, 5).double()
    loss = _penalty_of(layer, head.to(DEVICE), x.to(DEVICE, numbers.dtype))
    grads = torch.autograd.grad(loss, tuple(layer.parameters()))
    step, allowed = 1e-5, {torch.float32: 1e-5, torch.float64: 1e-7}[numbers.dtype]
    for (name, parameter), grad in zip(exact.named_parameters(), grads, strict=True):
        grad = grad.to("cpu", torch.float64)
        # Along the gradient itself, and along a direction that sees what it lacks.
        for direction in (grad, torch.randn_like(grad)):
            direction = direction / direction.norm()
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.add_(direction, alpha=sign * step)
                values.append(float(_penalty_of(exact, head, x).detach()))
                with torch.no_grad():
                    parameter.sub_(direction, alpha=sign * step)
            numeric = (values[0] - values[1]) / (2 * step)
            error = abs(float((grad * direction).sum()) - numeric)
            assert error <= allowed * max(1.0, float(grad.norm())), name


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("impl", KERNELS)
@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
@pytest.mark.parametrize(
    "name", ["one step", "lengths, both directions", "H 128", "several windows of dz"]
)
@skips_unserved
def test_recompute_has_the_same_gradients(name: str, numbers: Numbers, impl: str) -> None:
    case = ALL_CASES[name].rounded(numbers.dtype)
    truth, rival = truth_of(name, numbers.dtype), rival_of(name, numbers)
    x, h0, c0, *weights = inputs = leaves(case, numbers.dtype)
    count = len(weights) // case.D
    groups = [weights[d * count : (d + 1) * count] for d in range(case.D)]
    cotangents, directions = (
        on_device(values, numbers.dtype) for values in (case.cotangents, case.directions)
    )
    with tf32(numbers.tf32), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # that it saves no memory
        outputs = lstm(x, groups, h0, c0, lengths=case.lengths, recompute=True, impl=impl)
        plain = torch.autograd.grad(outputs, inputs, cotangents, retain_graph=True)
        first = torch.autograd.grad(outputs, inputs, cotangents, create_graph=True)
        second = torch.autograd.grad(first, inputs, directions, allow_unused=True)
    for what, got, true, other in (
        ("output", outputs, truth.outputs, rival.outputs),
        ("gradient", plain, truth.first, rival.first),
        ("recorded gradient", first, truth.first, rival.first),
        ("second gradient", second, truth.second[: len(inputs)], rival.second[: len(inputs)]),
    ):
        for index, values in enumerate(zip(got, true, other, strict=True)):
            assert_close(*values, numbers, f"{what}[{index}]")


def _peak_of_training(layer: nn.LSTM) -> int:
    """Bytes that a forward and backward take at most over weights, inputs and cotangents."""
    x, cotangent = (torch.randn(1000, 256, size, device=DEVICE) for size in (64, 128))
    parameters = tuple(layer.to(DEVICE).parameters())
    for _ in range(2):  # workspaces that are kept come with the first
        gc.collect()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        torch.autograd.grad(layer(x)[0], parameters, cotangent)
        peak = torch.cuda.max_memory_allocated() - before
    return peak


@pytest.mark.parametrize("impl", KERNELS)
@pytest.mark.parametrize(("recompute", "share"), [(False, 1.0), (True, 0.5)])
@skips_unserved
def test_peak_memory_of_training(recompute: bool, share: float, impl: str) -> None:
    ours = _peak_of_training(FastLSTM(64, 128, impl=impl, recompute=recompute))
    theirs = _peak_of_training(nn.LSTM(64, 128))
    assert ours <= share * theirs, f"{ours / 2**20:.0f} MiB, nn.LSTM {theirs / 2**20:.0f} MiB"


@pytest.mark.slow
def test_offsets_of_more_than_32_bits() -> None:
    """T * B * 4H above 2**31: the last rows are what they are in a batch of their own.

    One test for all, since each takes half of a GPU's memory.
    """
    if torch.cuda.mem_get_info()[0] < 48 * 2**30:
        pytest.skip("needs 48 GiB of free memory on the device")
    small = Case(1024, 16, 8, 128).rounded(torch.bfloat16)
    x, h0, c0, *weights = on_device(small.inputs, torch.bfloat16)
    cotangent = on_device(small.cotangents[:1], torch.bfloat16)[0]
    copies = 257
    assert x.size(0) * x.size(1) * copies * 4 * 128 > 2**31
    for impl in KERNELS:
        results = []
        for count in (copies, 1):
            rows = x.repeat(1, count, 1).requires_grad_()
            state = [s.repeat(1, count, 1) for s in (h0, c0)]
            try:
                y = small.call(impl, rows, *state, *weights)[0]
            except RuntimeError as error:
                if not str(error).startswith(f"impl='{impl}' cannot run lstm: "):
                    raise
                break
            (grad,) = torch.autograd.grad(y, rows, cotangent.repeat(1, count, 1))
            results.append((y.detach()[:, -16:].clone(), grad[:, -16:].clone()))
            del y, grad, rows
        for got, expected in zip(*results, strict=True):
            assert torch.isfinite(got).all()
            assert relative_error(got, expected.double()) < torch.finfo(torch.bfloat16).eps
        torch.cuda.empty_cache()

"""What the tests of the LSTM on a GPU share: cases, dtypes, and the rule for numbers there.

The truth is computed on the CPU, once for all dtypes and implementations of a case in a process;
tests of one case are of one group, which pytest-xdist keeps in one process. The error of PyTorch's
own operator, which decides where an error is above the floor of the rule, is computed when one is.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.lstm_cases import CASES, RIVAL_DTYPES, Case, Orders
from tests.numerics import assert_close_to_reference, relative_error, tolerance

# Read when cuBLAS is first used: the `poison` fixture asks for deterministic algorithms.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

DEVICE = "cuda"
KERNELS = ["cell", "cuda", "triton"]
IMPLS = [*KERNELS, "torch"]
GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
# They take a cluster with a block without units, 16 blocks, a grid; tiles of 8, 16 and 32 rows.
GPU_CASES = {
    "one of everything": CASES["one of everything"],
    "odd sizes": CASES["odd sizes"],
    "both directions, no bias": CASES["both directions, no bias"],
    "lengths, both directions": CASES["lengths, both directions"],
    "vectors and one": CASES["vectors and one"],
    "several windows of dz": CASES["several windows of dz"],
    "many rows": Case(3, 150, 8, 64, D=2, lengths=[1 + b % 3 for b in range(150)]),
    "more rows": Case(3, 700, 8, 64),
    "H 128": Case(12, 33, 48, 128),
    "H 200": Case(9, 20, 30, 200),
    "H 300": Case(4, 9, 8, 300),
    "H 512": Case(8, 17, 64, 512),
}


@dataclass(frozen=True)
class Numbers:
    """The dtype an implementation computes in. ``tf32``: it rounds products of float32 to TF32."""

    dtype: torch.dtype
    tf32: bool = False

    def __str__(self) -> str:
        return "tf32" if self.tf32 else str(self.dtype).removeprefix("torch.")


FLOAT32, TF32 = Numbers(torch.float32), Numbers(torch.float32, tf32=True)
FLOAT16, BFLOAT16 = Numbers(torch.float16), Numbers(torch.bfloat16)
FLOAT64 = Numbers(torch.float64)
NUMBERS = [FLOAT32, TF32, FLOAT16, BFLOAT16, FLOAT64]


@contextlib.contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Turns TF32 on or off in cuDNN and cuBLAS.

    Both of cuDNN's settings change: where they differ, torch refuses to read the common one.
    """
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


def by_case(
    names: dict[str, Sequence[Numbers]], impls: Sequence[str] = IMPLS
) -> pytest.MarkDecorator:
    """Parameters ``name``, ``numbers`` and ``impl``: each dtype of a case with each implementation.

    torch's LSTM is not our kernel: one dtype a case is enough for it.
    """
    return pytest.mark.parametrize(
        ("name", "numbers", "impl"),
        [
            pytest.param(
                *(name, numbers, impl),
                id=f"{name}-{numbers}-{impl}",
                # Triton's run last (conftest.py), in whichever process is free by then.
                marks=pytest.mark.xdist_group(f"{name}, {impl == 'triton'}"),
            )
            for name, all_numbers in names.items()
            for impl in impls
            for numbers in (all_numbers[:1] if impl == "torch" else all_numbers)
        ],
    )


def case_of(name: str, numbers: Numbers = FLOAT32) -> Case:
    return GPU_CASES[name].rounded(numbers.dtype)


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


def capture(run: Callable[[], list[Tensor]]) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
    """A CUDA graph of ``run``, and the tensors that each replay of it fills."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    return graph, captured


def everything(orders: Orders) -> list[Tensor | None]:
    return [*orders.outputs, *orders.first, *orders.second]


def assert_same_bits(got: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> None:
    for index, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert (a is None) == (b is None), index
        assert a is None or (torch.isfinite(a).all() and torch.equal(a, b)), index


def truth_of(name: str, numbers: Numbers) -> Orders:
    # Only dtypes of 16 bits have inputs of their own.
    return _truth_of(name, numbers.dtype if numbers.dtype.itemsize == 2 else torch.float64)


@functools.cache
def _truth_of(name: str, dtype: torch.dtype) -> Orders:
    return GPU_CASES[name].rounded(dtype).run("reference")


@functools.cache
def rival_of(name: str, numbers: Numbers, impl: str) -> Orders:
    """PyTorch's own answer with the same settings on the same GPU.

    For our kernels it is plain PyTorch. cuDNN errs several times more than that; only what is
    cuDNN's itself (``impl="torch"``: outputs, and gradients that are not recorded) is held to it.
    """
    case, dtype = case_of(name, numbers), RIVAL_DTYPES.get(numbers.dtype, numbers.dtype)
    with tf32(numbers.tf32):
        plain = case.run("reference", dtype, DEVICE)
        if impl != "torch":
            return plain
        inputs = [t.detach() for t in leaves(case, dtype)]
        outputs, first = of_torchs_lstm(case, inputs, on_device(case.cotangents, dtype))
        return Orders(outputs, first, plain.second)


def of_torchs_lstm(
    case: Case, inputs: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and first gradients of ``torch.nn.LSTM`` itself."""
    layer = torch.nn.LSTM(case.I, case.H, bias=case.bias, bidirectional=case.D == 2)
    layer = layer.to(inputs[0])
    x, h, c, *weights = (t.detach().clone() for t in inputs)
    with torch.no_grad():
        for parameter, weight in zip(layer.parameters(), weights, strict=True):
            parameter.copy_(weight)
    leaves = [t.requires_grad_() for t in (x, h, c)] + list(layer.parameters())
    if case.lengths is None:
        y, states = layer(x, (h, c))
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, case.lengths, enforce_sorted=False)
        y, states = layer(packed, (h, c))
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=case.T)
    outputs = [y, *states]
    return outputs, list(torch.autograd.grad(outputs, leaves, cotangents))


def assert_orders(got: Orders, name: str, numbers: Numbers, impl: str) -> None:
    """Compare outputs, first and second gradients by the rule of numerics.py; skip empty lists."""
    case = case_of(name, numbers)
    names = {
        "outputs": ["y", "h_T", "c_T"],
        "first": case.names,
        "second": [*case.names, "grad_y", "grad_h", "grad_c"],
    }
    truth = truth_of(name, numbers)
    for order, of_order in names.items():
        pairs = zip(of_order, getattr(got, order), getattr(truth, order), strict=False)
        for index, (what, out, true) in enumerate(pairs):
            rival = functools.partial(_value, name, numbers, impl, order, index)
            assert_close(out, true, rival, numbers, f"{order} {what}")


def _value(name: str, numbers: Numbers, impl: str, order: str, index: int) -> Tensor | None:
    return getattr(rival_of(name, numbers, impl), order)[index]


def assert_close(
    out: Tensor | None,
    truth: Tensor | None,
    rival: Callable[[], Tensor | None],
    numbers: Numbers,
    what: str,
) -> None:
    """The rule of numerics.py. ``rival`` is called only where the error is above the floor.

    TF32 keeps 10 bits of mantissa, as float16 does: so does the floor. (torch takes TF32 for
    products of some shapes only, so that its error may be float32's.)
    """
    floor = torch.float16 if numbers.tf32 else numbers.dtype
    error = relative_error(out, truth)
    if error <= tolerance(floor):
        assert out is None or truth is None or out.shape == truth.shape, what
        return
    if not numbers.tf32:
        assert_close_to_reference(out, truth, rival(), what)
        return
    rival_error = relative_error(rival(), truth)
    assert error <= tolerance(floor, rival_error), (
        f"{what} (TF32): relative error {error:.3e}, torch's own {rival_error:.3e}"
    )

"""The LSTM's Triton kernels: right in the interpreter, and compiled for GPUs that are not here."""

from __future__ import annotations

import os

import pytest
import torch

pytest.importorskip("triton")

import numpy
import triton.language as tl
from lstm_cases import CASES, on_cpu_tensors
from numerics import assert_close_to_reference
from triton_tools import without_interpreter

from ganlstm_fast import FastLSTM
from ganlstm_fast.lstm import fit
from ganlstm_fast.lstm.triton_common import check_size

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
NAMES = [
    "one of everything",
    "odd sizes",
    "no bias",
    "both directions, no bias",
    "lengths",
    "lengths, both directions",
    "vectors and one",
]


@pytest.fixture
def bfloat16_dots(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's tl.dot multiplies the bits of bfloat16 as if they were integers."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        return
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    create_dot = InterpreterBuilder.create_dot

    def widened(value: TensorHandle) -> TensorHandle:
        if value.dtype != tl.bfloat16:
            return value
        bits = value.data.astype(numpy.uint32) << 16
        return TensorHandle(bits.view(numpy.float32), tl.float32)

    def create_widened_dot(self, a, b, *others):
        return create_dot(self, widened(a), widened(b), *others)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_widened_dot)


@pytest.mark.usefixtures("poison", "bfloat16_dots")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_equals_reference_to_second_order(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name].rounded(dtype)
    truth, rival = case.run("reference"), case.run("reference", dtype)
    if torch.cuda.is_available():
        monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "ieee")
        got = case.run("triton", dtype, "cuda")
    else:  # the autograd Functions on top of interpreted kernels, on CPU tensors
        on_cpu_tensors(monkeypatch, "triton")
        got = case.run("triton", dtype)
    for order in ("outputs", "first", "second"):
        for index, values in enumerate(
            zip(*(getattr(run, order) for run in (got, truth, rival)), strict=True)
        ):
            assert_close_to_reference(*values, f"{order}[{index}]")


COMPILE = """
import sys
from triton_tools import compiled, resources
from ganlstm_fast.lstm import triton_backward, triton_double_backward, triton_forward
from ganlstm_fast.lstm.triton_common import OPTIONS, tile

ELEMENT = {"weight_hh_ptr", "h_ptr", "y_ptr", "grad_y_ptr", "dz_ptr", "h__ptr", "h_out_ptr"}
ABSENT = {"lengths_ptr", "extra_ptr"}
KERNELS = (
    triton_forward.lstm_forward_kernel,
    triton_backward.lstm_backward_kernel,
    triton_double_backward.lstm_tangent_forward_kernel,
    triton_double_backward.lstm_tangent_backward_kernel,
)

architecture, dtype, hidden = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for kernel in KERNELS:
    constants = {"D": 1, "PRECISION": "ieee", **tile(hidden)}
    constants |= {"y_is_part": False, "saved_is_part": False}
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    constants |= {name: None for name in kernel.arg_names if name in ABSENT}
    types = {}
    for name in kernel.arg_names:
        kind = "*" + (dtype if name in ELEMENT else "fp32")
        types[name] = kind if name.endswith("_ptr") else "i32"
    found = compiled(kernel, architecture, types, constants, OPTIONS)
    print(kernel.fn.__name__, *resources(found))
"""
# Bytes that a block can have.
SHARED = {80: 163 << 10, 90: 227 << 10}
# Bytes of the stack, on which spilled registers go. The tangents keep weight_hh of four gates and
# the states of two orders: a few registers of them are spilled at H=128.
STACK = {"lstm_forward_kernel": 0, "lstm_backward_kernel": 0}
STACK_OF_TANGENTS = 160


@pytest.mark.parametrize("architecture", SHARED)
@pytest.mark.parametrize(("dtype", "hidden"), [("bf16", 128), ("fp16", 100), ("fp32", 64)])
def test_compiles_without_a_gpu(architecture: int, dtype: str, hidden: int) -> None:
    lines = without_interpreter(COMPILE, architecture, dtype, hidden)
    assert len(lines) == 4
    for kernel, shared, stack in lines:
        assert int(shared) <= SHARED[architecture], kernel
        assert int(stack) <= STACK.get(kernel, STACK_OF_TANGENTS), kernel


def test_says_what_it_does_not_take() -> None:
    with pytest.raises(RuntimeError, match=r"it takes H up to 64 in torch\.float32, got 65"):
        fit.check("triton", torch.empty(1, 1, 1), 65)
    fit.check("triton", torch.empty(1, 1, 1, dtype=torch.bfloat16), 128)
    with pytest.raises(RuntimeError, match="cannot run lstm: runs on cuda, not on cpu"):
        FastLSTM(3, 4, impl="triton")(torch.zeros(2, 3, 3))
    with pytest.raises(RuntimeError, match=r"fewer than 2\*\*29 elements, got shape"):
        check_size(torch.empty(1, 2**20, 2**9, device="meta"))

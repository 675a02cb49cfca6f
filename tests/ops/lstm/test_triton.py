"""The LSTM's Triton kernels: right in the interpreter, and compiled for GPUs that are not here."""

from __future__ import annotations

import os

import pytest
import torch

pytest.importorskip("triton")

import numpy
import triton.language as tl

from ganlstm_fast import FastLSTM
from ganlstm_fast.ops.lstm import fit
from ganlstm_fast.ops.lstm.triton_common import check_size
from tests.lstm_cases import CASES, on_cpu_tensors
from tests.numerics import assert_close_to_reference
from tests.triton_tools import TRITONS, compile_with

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
from tests.triton_tools import compiled, resources
from ganlstm_fast.ops.lstm import triton_backward, triton_double_backward, triton_forward
from ganlstm_fast.ops.lstm.triton_common import OPTIONS, tile

ELEMENT = {"weight_hh_ptr", "h_ptr", "y_ptr", "grad_y_ptr", "dz_ptr", "h__ptr", "h_out_ptr"}
# What may be None in each kernel, and is in each setting.
KERNELS = {
    triton_forward.lstm_forward_kernel: {"lengths_ptr", "bias_ptr", "gates_ptr", "c_all_ptr"},
    triton_backward.lstm_backward_kernel: {"lengths_ptr", "grad_y_ptr", "d_ptr"},
    triton_double_backward.lstm_tangent_forward_kernel: {"lengths_ptr"},
    triton_double_backward.lstm_tangent_backward_kernel: {"lengths_ptr", "extra_ptr"},
}
SETTINGS = {
    "usual": ({"lengths_ptr", "extra_ptr"}, 1, "ieee"),
    "nothing absent": (set(), 2, "ieee"),
    "all absent": (set().union(*KERNELS.values()), 1, "tf32"),
}

for words in sys.argv[1:]:
    setting, dtype, hidden, architecture = words.split(":")
    without, directions, precision = SETTINGS[setting]
    # Arrays of a part of the steps and of all: with and without what may be absent.
    is_part = not without
    for kernel, optional in KERNELS.items():
        constants = {"D": directions, "PRECISION": precision, **tile(int(hidden))}
        constants |= {"y_is_part": is_part, "saved_is_part": is_part}
        constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
        constants |= {name: None for name in optional & without}
        types = {"lengths_ptr": "*i64"}
        for name in set(kernel.arg_names) - {"lengths_ptr"}:
            kind = "*" + (dtype if name in ELEMENT else "fp32")
            types[name] = kind if name.endswith("_ptr") else "i32"
        found = compiled(kernel, int(architecture), types, constants, OPTIONS)
        print(setting.replace(" ", "_"), architecture, kernel.fn.__name__, *resources(found))
"""
# Spills come with the greatest H; which arguments may be absent does not depend on H.
COMPILED = {
    "installed": [
        *("usual:bf16:128:80", "usual:bf16:128:90", "usual:fp32:64:90"),
        *("nothing absent:fp16:20:80", "all absent:fp32:16:90"),
    ],
    "lowest": [
        "usual:bf16:128:80",
        *("nothing absent:fp16:20:90", "all absent:fp32:16:80"),
    ],
}
# Bytes of shared memory that a block can have.
SHARED = {80: 163 << 10, 90: 227 << 10}
# Bytes of the stack, on which spilled registers go. The tangents keep weight_hh of four gates and
# the states of two orders: a few registers of them are spilled at H=128.
STACK = {"lstm_forward_kernel": 0, "lstm_backward_kernel": 0}
STACK_OF_TANGENTS = {"installed": 160, "lowest": 168}


@pytest.mark.parametrize("triton", TRITONS)
def test_compiles_without_a_gpu(triton: str) -> None:
    lines = compile_with(triton, COMPILE, *COMPILED[triton])
    assert len(lines) == 4 * len(COMPILED[triton])
    for setting, architecture, kernel, shared, stack in lines:
        assert int(shared) <= SHARED[int(architecture)], (setting, kernel)
        assert int(stack) <= STACK.get(kernel, STACK_OF_TANGENTS[triton]), (setting, kernel)


def test_says_what_it_does_not_take() -> None:
    with pytest.raises(RuntimeError, match="it takes H up to 64 in 32 bits, got 65"):
        fit.check("triton", torch.empty(1, 1, 1), 65)
    fit.check("triton", torch.empty(1, 1, 1, dtype=torch.bfloat16), 128)
    with pytest.raises(RuntimeError, match="cannot run lstm: runs on cuda, not on cpu"):
        FastLSTM(3, 4, impl="triton")(torch.zeros(2, 3, 3))
    with pytest.raises(RuntimeError, match=r"fewer than 2\*\*29 elements, got shape"):
        check_size(torch.empty(1, 2**20, 2**9, device="meta"))

"""The LSTM on a GPU: memory, what fits, and lengths that are out of range."""

from __future__ import annotations

import copy
import functools
import gc
import os
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

from ganlstm_fast import FastLSTM, explain
from ganlstm_fast.ops import backends
from ganlstm_fast.ops.lstm import fit
from tests.gpu_cases import (
    DEVICE,
    GPU,
    KERNELS,
    on_device,
    skips_unserved,
)
from tests.lstm_cases import Case
from tests.numerics import relative_error

pytestmark = [*GPU, pytest.mark.usefixtures("tf32_off")]

OUT_OF_RANGE = """
import torch
from tests.lstm_cases import Case
wild = Case(6, 4, 3, 16, D=2, lengths=torch.tensor([6, 0, -5, 99], device="cuda"))
tame = Case(6, 4, 3, 16, D=2, lengths=[6, 1, 1, 6])
for impl in ("cell", "cuda", "triton"):
    try:
        got, expected = (case.run(impl, torch.float32, "cuda") for case in (wild, tame))
    except RuntimeError as error:
        if " cannot run lstm: " not in str(error):
            raise
        continue
    torch.cuda.synchronize()
    for values in (got.outputs, got.first, got.second):
        assert all(v is None or torch.isfinite(v).all() for v in values), impl
    for a, b in zip((*got.outputs, got.first[0]), (*expected.outputs, expected.first[0])):
        torch.testing.assert_close(a[:, ::3], b[:, ::3])
"""


def test_lengths_out_of_range_on_the_device() -> None:
    """The kernels clamp them.

    Runs in a new process, because a kernel's error would stay in the CUDA context.
    """
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_RANGE],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _peak_of_training(layer: nn.LSTM) -> int:
    """Bytes that a forward and backward take at most over weights, inputs and cotangents."""
    x, cotangent = (torch.randn(1000, 256, size, device=DEVICE) for size in (64, 128))
    parameters = tuple(layer.to(DEVICE).parameters())
    for _ in range(2):  # the first run allocates workspaces that stay
        gc.collect()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        torch.autograd.grad(layer(x)[0], parameters, cotangent)
        peak = torch.cuda.max_memory_allocated() - before
    return peak


@functools.cache
def _peak_of_torchs() -> int:
    return _peak_of_training(nn.LSTM(64, 128))


@pytest.mark.xdist_group("memory")
@pytest.mark.parametrize("impl", KERNELS)
@pytest.mark.parametrize(("recompute", "share"), [(False, 1.0), (True, 0.5)])
@skips_unserved
def test_peak_memory_of_training(recompute: bool, share: float, impl: str) -> None:
    ours = _peak_of_training(FastLSTM(64, 128, impl=impl, recompute=recompute))
    theirs = _peak_of_torchs()
    assert ours <= share * theirs, f"{ours / 2**20:.0f} MiB, nn.LSTM {theirs / 2**20:.0f} MiB"


@pytest.mark.xdist_group("memory")
@pytest.mark.slow
def test_offsets_of_more_than_32_bits() -> None:
    """T * B * 4H above 2**31: the last rows get what they get in a batch without the others.

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


def test_the_kernels_run_on_this_gpu() -> None:
    if backends.is_loaded("cuda"):
        assert backends.why_not_gpu(torch.cuda.current_device()) is None
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        assert "raises" not in explain(DEVICE, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_says_what_fits(dtype: torch.dtype) -> None:
    if "cuda" not in backends.serving("lstm", DEVICE, dtype):
        pytest.skip("the kernels do not run here")
    with pytest.raises(RuntimeError, match=r"impl='cuda' cannot run lstm: it .*; use impl='cell'"):
        fit.check("cuda", torch.zeros(1, 1, 1, device=DEVICE, dtype=dtype), 4096)


def test_a_copy_of_a_layer_keeps_its_weights_together() -> None:
    """cuDNN wants one buffer of weights: otherwise it warns and copies them at every call."""
    layer, x = (
        FastLSTM(5, 24, num_layers=2, device=DEVICE, impl="torch"),
        on_device([torch.randn(7, 3, 5)]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copied = copy.deepcopy(layer)(*x)
    torch.testing.assert_close(copied, layer(*x))

"""Compile the Triton kernels of the GPU's tests, in several processes and without the GPU.

    python -m tests.ops.warm_triton [PROCESSES] [ARCHITECTURE]

The tests then find the kernels in Triton's cache. They compile those that this leaves out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"

import pytest
import torch

from ganlstm_fast.ops.gradient_penalty import operators as penalty_operators
from ganlstm_fast.ops.lstm import autograd, gpu
from ganlstm_fast.ops.lstm.operators import (
    BackwardArguments,
    DoubleBackwardArguments,
    ForwardArguments,
)
from ganlstm_fast.ops.lstm.triton_common import MOST_HIDDEN
from ganlstm_fast.ops.spectral_norm import operators as spectral_norm_operators
from tests.gpu_cases import FLOAT32, GPU_CASES, Numbers
from tests.lstm_cases import Case
from tests.penalty_cases import CASES, Samples
from tests.triton_tools import by_triton, interpreted

# Cases that single tests define for themselves.
OTHER_CASES = [
    Case(6, 8, 5, 16, D=2, lengths=[6, 2, 4, 1, 6, 3, 5, 4]),
    Case(4, 3, 2, 9),
    Case(9, 20, 30, 40, D=2),
    Case(9, 5, 6, 40, D=2, lengths=[9, 3, 1, 7, 9]),
    Case(7, 6, 5, 24, D=2, lengths=[7, 1, 3, 6, 2, 5]),
    Case(4, 4, 5, 12, D=2),
]


def parameters(test: Callable[..., None], *names: str) -> list[tuple[Any, ...]]:
    """The parameters of a test's runs with Triton, in the same order in every process."""
    found: dict[tuple[Any, ...], None] = {}
    for mark in getattr(test, "pytestmark", []):
        if mark.name == "parametrize" and set(names) <= set(mark.args[0]):
            for values in mark.args[1]:
                row = dict(zip(mark.args[0], getattr(values, "values", values), strict=True))
                if row["impl"] == "triton":
                    found[tuple(row[name] for name in names)] = None
    return list(found)


def lstm_jobs() -> Iterator[Callable[[], None]]:
    from tests.ops.lstm import test_gpu

    cases: dict[tuple[str, Numbers], Case] = {}
    for test in vars(test_gpu).values():
        for name, numbers in parameters(test, "name", "numbers"):
            cases[name, numbers] = GPU_CASES[name]
    found = [(case, numbers) for (_, numbers), case in cases.items()]
    found += [(case, FLOAT32) for case in OTHER_CASES]
    for case, numbers in sorted(found, key=lambda pair: -pair[0].H):
        if numbers.dtype == torch.float64 or MOST_HIDDEN[numbers.dtype.itemsize] < case.H:
            continue
        yield lambda case=case, numbers=numbers: all_passes(case, numbers)


def all_passes(case: Case, numbers: Numbers) -> None:
    """Forward, backward and double backward, recorded or not; nobody looks at the results."""
    gpu.allows_tf32 = lambda _: numbers.tf32
    arguments = [t.to(numbers.dtype) for t in case.inputs]
    x, h0, c0, *weights = arguments
    lengths = None if case.lengths is None else torch.as_tensor(case.lengths)
    sides = [t.to(numbers.dtype) for t in case.cotangents]
    wanted = [True] * 6
    inputs = (x, weights, h0, c0, lengths)
    gpu.lstm_forward(ForwardArguments(*inputs, False, 0, "triton"))
    y, _, _, *saved = gpu.lstm_forward(ForwardArguments(*inputs, True, 0, "triton"))
    gpu.lstm_backward(BackwardArguments(*sides, *inputs, y, *saved, wanted, False, 0, "triton"))
    gpu.lstm_backward(
        BackwardArguments(None, *sides[1:], *inputs, y, *saved, wanted, True, 0, "triton")
    )
    *_, dz, d = gpu.lstm_backward(
        BackwardArguments(*sides, *inputs, y, *saved, wanted, True, 0, "triton")
    )
    v_x, v_h, v_c, *v_weights = (t.to(numbers.dtype) for t in case.directions)
    rest = (h0, c0, lengths, y, *saved, dz, d, [True] * 9, "triton")
    for given in (v_weights, [None] * len(v_weights)):
        gpu.lstm_double_backward(
            DoubleBackwardArguments(v_x, v_h, v_c, given, sides[2], x, weights, *rest)
        )
    if case.T > autograd.RECOMPUTE_WINDOW_GPU:
        window = autograd.RECOMPUTE_WINDOW_GPU
        y, _, _, *saved = gpu.lstm_forward(ForwardArguments(*inputs, True, window, "triton"))
        gpu.lstm_backward(
            BackwardArguments(*sides, *inputs, y, *saved, wanted, False, window, "triton")
        )


def spectral_norm_jobs() -> Iterator[Callable[[], None]]:
    import tests.ops.spectral_norm.test_kernels as tests

    def run(dtype: torch.dtype) -> None:
        a = tests.draw(tests.WEIGHTS, dtype)
        for iterations, training in ((1, True), (5, True), (1, False)):
            tests.by_kernels(tests.triton_kernels("cpu"), a, iterations, training)

    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        yield lambda dtype=dtype: run(dtype)


def penalty_jobs() -> Iterator[Callable[[], None]]:
    import tests.ops.gradient_penalty.test_gpu as tests

    def run(shapes: list[tuple[int, ...]], dtype: torch.dtype, curve: tuple[float, bool]) -> None:
        samples, kernels = Samples(shapes, dtype), by_triton(penalty_operators)
        seed = torch.zeros(1, dtype=torch.int64)
        value, norms = kernels.penalty_forward(samples.first, *curve)
        kernels.penalty_backward(value, samples.first, norms, *curve)
        for wanted in ([True, True], [False, True]):
            kernels.penalty_double_backward(
                samples.second, value, samples.first, norms, *curve, wanted
            )
        for real, fake in zip(samples.first, samples.second, strict=True):
            for pair in ((real, fake), (real, None), (None, real)):
                kernels.interpolate(*pair, seed)

    for name, curve, dtype in parameters(
        tests.test_penalty_to_second_order, "name", "curve", "dtype"
    ):
        yield lambda n=name, c=curve, d=dtype: run(CASES[n], d, c)


def jobs() -> list[Callable[[], None]]:
    return [*lstm_jobs(), *penalty_jobs(), *spectral_norm_jobs()]


def work(number: int, count: int, architecture: int) -> None:
    """Every ``count``-th job from ``number`` on."""
    from tests import triton_tools

    compiled = triton_tools.compile_only(architecture)
    torch.set_num_threads(1)
    with interpreted(spectral_norm_operators):
        for job in jobs()[number::count]:
            begun = time.monotonic()
            try:
                job()
            except Exception as error:  # the tests will report it
                print(f"{type(error).__name__}: {str(error)[:200]}", flush=True)
            print(f"{time.monotonic() - begun:5.1f} s, {len(compiled)} compiled", flush=True)


def main() -> int:
    pytest.importorskip("triton")
    count = int(sys.argv[1]) if len(sys.argv) > 1 else os.cpu_count() or 1
    if len(sys.argv) > 2:
        architecture = int(sys.argv[2])
    else:
        architecture = int("{}{}".format(*torch.cuda.get_device_capability()))
    if len(sys.argv) > 3:
        work(int(sys.argv[3]), count, architecture)
        return 0
    command = [sys.executable, "-m", "tests.ops.warm_triton", str(count), str(architecture)]
    running = [
        subprocess.Popen([*command, str(number)]) for number in range(min(count, len(jobs())))
    ]
    return max(process.wait() for process in running)


if __name__ == "__main__":
    sys.exit(main())

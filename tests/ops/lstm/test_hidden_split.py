"""The LSTM on fewer rows than threads, where threads share the hidden units."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

import pytest
import torch

from ganlstm_fast import FastLSTM
from tests.lstm_cases import Case
from tests.marks import needs_cpu_kernels
from tests.numerics import assert_close_to_reference

pytestmark = needs_cpu_kernels


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("B", "I", "H", "D", "threads", "lengths"),
    [
        (1, 9, 128, 1, 2, None),
        (1, 9, 131, 1, 4, None),
        (1, 3, 128, 2, 5, [33]),
        (2, 5, 128, 1, 4, [20, 70]),
        (3, 1, 128, 2, 12, [70, 1, 41]),
    ],
)
def test_equals_reference_to_second_order(
    B: int,
    I: int,  # noqa: E741
    H: int,
    D: int,
    threads: int,
    lengths: Sequence[int] | None,
    dtype: torch.dtype,
) -> None:
    case = Case(70, B, I, H, D=D, lengths=lengths).rounded(dtype)
    torch.set_num_threads(threads)
    got, again = case.run("cpu", dtype), case.run("cpu", dtype)
    truth, rival = case.run("reference"), case.run("torch", dtype)
    for order in ("outputs", "first", "second"):
        assert_close_to_reference(
            getattr(got, order), getattr(truth, order), getattr(rival, order), order
        )
        for a, b in zip(getattr(got, order), getattr(again, order), strict=True):
            assert torch.equal(a, b)


def second_order(lstm: FastLSTM, x: torch.Tensor) -> list[torch.Tensor]:
    """y, and the gradients of a penalty on the gradient with respect to x."""
    x = x.clone().requires_grad_()
    y = lstm(x)[0]
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return [y, grad, *torch.autograd.grad(grad.square().sum(), list(lstm.parameters()))]


def test_calls_from_several_threads_at_once() -> None:
    torch.set_num_threads(2)
    lstm, x = FastLSTM(8, 160), torch.randn(60, 1, 8)
    expected = second_order(lstm, x)
    results: list[list[torch.Tensor]] = []
    callers = [
        threading.Thread(target=lambda: results.extend(second_order(lstm, x) for _ in range(5)))
        for _ in range(3)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=120)
    assert len(results) == 15
    for result in results:
        assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


PROGRAM = """
import os, torch
from ganlstm_fast import FastLSTM
from tests.ops.lstm.test_hidden_split import second_order
torch.manual_seed(0)
torch.set_num_threads(4)
lstm, x = FastLSTM(8, 256), torch.randn(60, 1, 8)
for value in second_order(lstm, x):
    print(float(value.detach().double().abs().sum()), flush=True)
if os.environ.get("FORK"):
    with torch.no_grad():
        y = lstm(x)[0]
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)
            same = torch.allclose(lstm(x)[0], y, rtol=1e-5, atol=1e-6)
            os._exit(0 if same else 1)
        assert os.waitpid(child, 0)[1] == 0
"""


def test_ends_with_fewer_threads_than_asked_for() -> None:
    """The numbers are the same with all threads, with one, and in a process that forks."""
    alone, limited, forked = (
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
        for more in ({}, {"OMP_THREAD_LIMIT": "1"}, {"FORK": "1"})
    )
    assert alone == limited
    assert alone == forked

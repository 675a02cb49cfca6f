"""What the code of every family must do on a device, written once and run over all of them.

A family takes part by its rows in ``WORKS``. Rules that need no GPU check the CPU's kernels too.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch

from tests.gpu_cases import (
    BFLOAT16,
    DEVICE,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    GPU,
    GPU_CASES,
    IMPLS,
    KERNELS,
    TF32,
    Numbers,
    assert_same_bits,
    capture,
    skips_unserved,
    tf32,
)
from tests.lstm_cases import Case
from tests.marks import needs_cpu_kernels
from tests.numerics import assert_close_to_reference
from tests.ops.works import Build, Work, of_critic, of_lstm, of_penalty, of_spectral_norm
from tests.spectral_norm_cases import WEIGHTS

pytestmark = pytest.mark.usefixtures("tf32_off")

LENGTHS = Case(9, 5, 6, 40, D=2, lengths=[9, 3, 1, 7, 9])
WORKS: dict[str, Build] = {
    "lstm": of_lstm(Case(9, 20, 30, 40, D=2)),
    "lstm, lengths on the device": of_lstm(LENGTHS, lengths_on_device=True),
    "lstm, lengths on the host": of_lstm(LENGTHS),
    "spectral norm": of_spectral_norm(WEIGHTS),
    "penalty": of_penalty("large"),
    "penalty of a tuple": of_penalty("tuple"),
    "critic's penalty": of_critic((16, 24, 28)),
    "critic's penalty of images": of_critic((4, 3, 64, 64)),
}


def impls_of(name: str) -> list[str]:
    if not name.startswith("lstm"):
        return ["cuda", "triton"]
    # torch's LSTM reads lengths on the host.
    return KERNELS if name == "lstm, lengths on the device" else IMPLS


ON_GPU = [(name, impl) for name in WORKS for impl in impls_of(name)]
# Lengths on the host are copied at each call: a graph would not read them again.
ON_DEVICE = [row for row in ON_GPU if row[0] != "lstm, lengths on the host"]


def runs(
    rows: Sequence[tuple[str, str]], *, on_cpu: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Parameters ``name``, ``impl`` and ``device``; ``on_cpu``: works for the CPU's kernels too."""

    def mark(test: Callable[..., None]) -> Callable[..., None]:
        parameters = [
            pytest.param(name, impl, DEVICE, marks=GPU, id=f"{name}-{impl}") for name, impl in rows
        ] + [
            pytest.param(name, "cpu", "cpu", marks=needs_cpu_kernels, id=f"{name}-cpu")
            for name in on_cpu
        ]
        return pytest.mark.parametrize(("name", "impl", "device"), parameters)(skips_unserved(test))

    return mark


def build(name: str, device: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Work:
    return WORKS[name](device, dtype, seed)


@contextlib.contextmanager
def another_stream(device: str) -> Iterator[None]:
    """A stream that is busy for a while and runs beside the usual one; none on a CPU."""
    if device == "cpu":
        yield
        return
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # cycles: some 50 ms
        yield
    torch.cuda.current_stream().wait_stream(stream)


@runs(ON_GPU, on_cpu=WORKS)
def test_reads_what_comes_late_on_another_stream(name: str, impl: str, device: str) -> None:
    """A kernel on any other stream reads NaN, and so does one that keeps what it has read."""
    work, values = build(name, device), build(name, device)
    expected = work.run(impl)
    with torch.no_grad():
        for tensor in work.tensors:
            if tensor.is_floating_point():
                tensor.fill_(torch.nan)
    with another_stream(device):
        work.copy_(values)
        got = work.run(impl)
    work.assert_equal(got, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@runs(ON_GPU)
def test_runs_on_the_device_of_its_tensors(name: str, impl: str, device: str) -> None:
    """Also where it is not the current one."""
    work = build(name, f"{device}:1")
    got = work.run(impl)
    assert all(tensor.device.index == 1 for tensor in got)
    work.assert_equal(got, build(name, f"{device}:0").run(impl))


@runs(ON_DEVICE)
def test_captured_in_a_graph(name: str, impl: str, device: str) -> None:
    """Each replay reads what the tensors hold by then, also after other calls."""
    work = build(name, device)
    graph, captured = capture(functools.partial(work.run, impl))
    work.copy_(build(name, device, seed=1))
    expected = work.run(impl)
    # They are kept, so that the allocator has no room for them where the graph writes.
    others = [build(name, device, seed=seed).run(impl) for seed in (2, 3, 4)]
    for _ in range(2):
        graph.replay()
        work.assert_equal(captured, expected)
    assert others


@runs([*ON_DEVICE, ("lstm, lengths on the device", "auto")])
def test_the_host_does_not_wait(name: str, impl: str, device: str) -> None:
    work = build(name, device)
    # What is compiled or set up once may wait.
    work.run(impl)
    work.run_once(impl)
    torch.cuda.set_sync_debug_mode("error")
    try:
        work.run(impl)
        work.run_once(impl)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("poison")
@runs([row for row in ON_GPU if row[1] != "torch"], on_cpu=WORKS)
def test_writes_all_that_it_returns(name: str, impl: str, device: str) -> None:
    """Memory that nothing has written holds NaN."""
    work = build(name, device)
    truth, rival = work.to(torch.float64).run("reference"), work.run("reference")
    got, once = work.run(impl), work.run_once(impl)
    assert_close_to_reference(got, truth, rival)
    assert_close_to_reference(once, truth[: len(once)], rival[: len(once)])


SAME_BITS: dict[str, tuple[Build, list[Numbers]]] = {
    "lstm, lengths": (
        of_lstm(GPU_CASES["lengths, both directions"]),
        [FLOAT32, BFLOAT16, FLOAT64],
    ),
    "lstm, H 128": (of_lstm(GPU_CASES["H 128"]), [TF32, FLOAT16]),
    "lstm, H 300": (of_lstm(GPU_CASES["H 300"]), [FLOAT32]),
    "spectral norm": (of_spectral_norm(WEIGHTS), [FLOAT64, FLOAT32, BFLOAT16, FLOAT16]),
    **{
        f"penalty, {name}": (of_penalty(name), [FLOAT32])
        for name in ("many", "odd", "large", "large tuple")
    },
}


def same_bits_runs() -> Iterator[object]:
    for name, (_, all_numbers) in SAME_BITS.items():
        for numbers in all_numbers:
            for impl in KERNELS if name.startswith("lstm") else ("cuda", "triton"):
                values = (name, numbers, impl, DEVICE)
                yield pytest.param(*values, marks=GPU, id=f"{name}-{numbers}-{impl}")
            if numbers not in (TF32, FLOAT16):
                values = (name, numbers, "cpu", "cpu")
                yield pytest.param(*values, marks=needs_cpu_kernels, id=f"{name}-{numbers}-cpu")


@pytest.mark.parametrize(("name", "numbers", "impl", "device"), list(same_bits_runs()))
@skips_unserved
def test_same_bits_in_every_run(name: str, numbers: Numbers, impl: str, device: str) -> None:
    work = SAME_BITS[name][0](device, numbers.dtype, 0)
    with tf32(numbers.tf32):
        first, *others = (work.run(impl) for _ in range(4))
    for other in others:
        assert_same_bits(other, first)

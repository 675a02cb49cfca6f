"""What the machine can do at most, measured in the run that quotes it: by ``ceilings.cpp`` on a
processor, by PyTorch on a GPU.

The rates are the best of several short windows: what the hardware gives when nothing else has it,
so that a fraction of it never flatters.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.measure.environment import precision
from ganlstm_fast.ops import backends

SOURCE = Path(__file__).with_name("ceilings.cpp")
WINDOWS, SECONDS = 6, 0.05

Ceilings = dict[str, float | None]


def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, (os.environ.get("CXX") or "c++", "g++"))), None)


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The compiled source, or None where it cannot be compiled."""
    compiler = _compiler()
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(OSError):
        built = Path(folder, "ceilings.so")
        flags = ["-std=c++17", "-O2", "-shared", "-fPIC", "-pthread"]
        command = [compiler, *flags, str(SOURCE), "-o", str(built)]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            library = ctypes.CDLL(str(built))  # stays loaded when the file has gone
            for name in ("multiply_adds", "bf16_dot", "copy", "ping_pong"):
                getattr(library, f"ceiling_{name}").restype = ctypes.c_double
            return library
    return None


def isa() -> str:
    """The instruction set of the CPU kernels; where none are built, torch's."""
    by_torch = {"AVX512": "avx512", "AVX2": "avx2"}.get(torch.backends.cpu.get_cpu_capability())
    return backends.cpu_isa() or by_torch or "baseline"


def measure(device: str = "cpu") -> Ceilings:
    """All ceilings, in about two seconds; None stands for what is not there or not measurable."""
    return _of_gpu() if device == "cuda" else _of_processor()


def _of_gpu() -> Ceilings:
    """The names of ``_of_processor``, None for what a GPU has not, and more.

    ``multiply_adds``, ``tf32``, ``bf16_dot``: multiply-adds per second of a matrix product of
    random numbers in float32, in TF32 and in bfloat16. ``copy``: bytes per second, read and
    written. ``launch``: seconds from one empty kernel to the next, as the host launches them.
    ``launch_in_graph``: as a CUDA graph does.
    """
    n = 8192

    def product(dtype: torch.dtype, tf32: bool) -> float:
        a, b = (torch.randn(n, n, device="cuda", dtype=dtype) for _ in range(2))
        with precision(tf32):
            return n**3 / _device_seconds(lambda: torch.mm(a, b, out=c[dtype]))

    c = {d: torch.empty(n, n, device="cuda", dtype=d) for d in (torch.float32, torch.bfloat16)}
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    launches = 1000

    def launch() -> None:
        for _ in range(launches):
            torch.cuda._sleep(0)

    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        launch()
    return {
        "multiply_adds": product(torch.float32, False),
        "multiply_adds_1": None,
        "bf16_dot": product(torch.bfloat16, False),
        "copy": 2 * source.nbytes / _device_seconds(lambda: target.copy_(source)),
        "ping_pong": None,
        "tf32": product(torch.float32, True),
        "launch": _device_seconds(launch) / launches,
        "launch_in_graph": _device_seconds(graph.replay) / launches,
    }


def _device_seconds(call: Callable[[], object]) -> float:
    """Of a GPU for one call, by its events: the least of ``WINDOWS``."""
    call()
    times = []
    for _ in range(WINDOWS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(1e-3 * start.elapsed_time(end))
    return min(times)


def _of_processor() -> Ceilings:
    """Of all threads together, where it does not say otherwise.

    ``multiply_adds``: float32 multiply-adds per second, of ``threads`` threads, in the instruction
    set of the kernels. ``multiply_adds_1``: of one thread. ``bf16_dot``: multiply-adds of bfloat16,
    where the kernels use such. ``copy``: bytes per second, read and written. ``ping_pong``:
    seconds for a word from one thread to another.
    """
    names = ("multiply_adds", "multiply_adds_1", "bf16_dot", "copy", "ping_pong")
    library = _library()
    if library is None:
        return dict.fromkeys(names)
    threads, seconds = torch.get_num_threads(), ctypes.c_double(SECONDS)
    this = isa()
    time.sleep(0.3)  # torch's threads wait busily for a while after their work

    def best(of: Callable[..., float], *arguments: object) -> float | None:
        values = [of(*arguments, seconds) for _ in range(WINDOWS)]
        value = min(values) if of is library.ceiling_ping_pong else max(values)
        return value if min(values) > 0 else None

    of_floats = this.removesuffix("bf16")
    fma = functools.partial(best, library.ceiling_multiply_adds, of_floats.encode())
    bf16 = best(library.ceiling_bf16_dot, threads) if this != of_floats else None
    copy = best(library.ceiling_copy, threads)
    values = (fma(threads), fma(1), bf16, copy, best(library.ceiling_ping_pong))
    return dict(zip(names, values, strict=True))

"""What the machine can do at most, measured by ``ceilings.cpp`` in the run that quotes it.

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

from ganlstm_fast import backends

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
    """The instruction set that the CPU kernels use; without kernels, what torch uses."""
    by_torch = {"AVX512": "avx512", "AVX2": "avx2"}.get(torch.backends.cpu.get_cpu_capability())
    return backends.cpu_isa() or by_torch or "baseline"


def measure() -> Ceilings:
    """All ceilings, in about two seconds; None stands for what is not there or not measurable.

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

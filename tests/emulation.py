"""The kernels of a GPU compiled for the CPU, where threads are emulated (csrc/tests/emulator.h)."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch

import setup

TESTS = Path(__file__).parents[1] / "csrc/tests"


def load(name: str) -> None:
    """Compile csrc/tests/``name``.cpp and load the operators that it registers."""
    if shutil.which("g++") is None:
        pytest.skip("g++ was not found")
    _load_once(name)


# A fixture may be set up again where tests do not run in the order of their file. Operators that
# are registered a second time are an error that torch's stable ABI does not report: it crashes.
@functools.cache
def _load_once(name: str) -> None:
    packages = Path(torch.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, f"{name}.so")
        command = ["g++", *setup.CXX_FLAGS, "-O1", "-shared", *setup.torch_flags(packages)]
        command += [str(TESTS / f"{name}.cpp"), "-o", str(output)]
        command += [f"-L{packages / 'lib'}", "-ltorch_cpu"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        torch.ops.load_library(str(output))

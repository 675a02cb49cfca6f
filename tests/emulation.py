"""The kernels of a GPU compiled for the CPU, where threads are emulated (csrc/tests/emulator.h)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import setup

TESTS = Path(__file__).parents[1] / "csrc/tests"


def load(name: str, folder: Path) -> None:
    """Compile csrc/tests/``name``.cpp into ``folder`` and load the operators that it registers."""
    if shutil.which("g++") is None:
        pytest.skip("g++ was not found")
    output = folder / f"{name}.so"
    packages = Path(torch.__file__).parent
    command = ["g++", *setup.CXX_FLAGS, "-O1", "-shared", *setup.torch_flags(packages)]
    command += [str(TESTS / f"{name}.cpp"), "-o", str(output)]
    command += [f"-L{packages / 'lib'}", "-ltorch_cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    torch.ops.load_library(str(output))

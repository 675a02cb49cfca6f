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
from ganlstm_fast.ops import schemas

OPERATORS = [
    *("spectral_norm_forward", "spectral_norm_forward_", "spectral_norm_backward"),
    *("spectral_norm_double_backward", "interpolate", "penalty_forward", "penalty_backward"),
    "penalty_double_backward",
]
TESTS = Path(__file__).parents[1] / "csrc/tests"


def load(name: str) -> None:
    """Compile csrc/tests/``name``.cpp and load the operators that it registers."""
    if shutil.which("g++") is None:
        pytest.skip("g++ was not found")
    _load_once(name)


@functools.cache
def _define() -> torch.library.Library:
    """The operators, in a namespace of their own, for as long as the process runs."""
    library = torch.library.Library("ganlstm_fast_emulated", "DEF")
    for name in OPERATORS:
        library.define(schemas.overload(schemas.schema_of(name), "cuda"))
    library.define(schemas.schema_of("lstm_why_not_cuda"))
    return library


# A fixture may be set up again where tests do not run in the order of their file.
@functools.cache
def _load_once(name: str) -> None:
    _define()
    packages = Path(torch.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, f"{name}.so")
        command = ["g++", *setup.CXX_FLAGS, "-O1", "-shared", *setup.torch_flags(packages)]
        command += [str(TESTS / f"{name}.cpp"), "-o", str(output)]
        command += [f"-L{packages / 'lib'}", "-ltorch_cpu"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        torch.ops.load_library(str(output))

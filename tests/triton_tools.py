"""Triton kernels compiled for GPUs that are not here, and run on CPU tensors."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ganlstm_fast import backends


def on_cpu_tensors(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    """``impl="triton"`` serves CPU tensors as well, on which its kernels are interpreted."""
    rows = [
        dataclasses.replace(row, devices=("cuda", "cpu")) if row.name == "triton" else row
        for row in backends._FAMILIES[family]
    ]
    monkeypatch.setitem(backends._FAMILIES, family, tuple(rows))


def without_interpreter(code: str, *arguments: object) -> list[list[str]]:
    """The words of each line that Python code prints, in a process that does not interpret."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def compile_only(architecture: int) -> dict[Any, str]:
    """Have launches of this process compile for a GPU that is not here, and do nothing else.

    Returns:
        A dict that comes to hold what they compile, each with the kernel's name.
    """
    from triton import JITFunction
    from triton.runtime import driver

    class Driver:
        def get_current_target(self) -> Any:
            return _target(architecture)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int) -> int:
            return 0

    found: dict[Any, str] = {}
    run = JITFunction.run

    def compile_alone(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        found[run(self, *arguments, grid=grid, warmup=True, **options)] = self.fn.__name__

    driver.set_active(Driver())
    JITFunction.run = compile_alone
    return found


def compiled(
    kernel: Any,
    architecture: int,
    types: Mapping[str, str],
    constants: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Any:
    """A kernel whose arguments have these ``types``, but for the ``constants``."""
    import triton
    from triton.compiler import ASTSource

    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    places = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature, places)
    return triton.compile(source, target=_target(architecture), options=dict(options))


def _target(architecture: int) -> Any:
    from triton.backends.compiler import GPUTarget

    return GPUTarget("cuda", architecture, 32)


def resources(this: Any) -> tuple[int, int]:
    """Bytes of shared memory and of the stack, where spilled registers go, of a compiled kernel."""
    import triton

    cuobjdump = next(Path(triton.__file__).parent.glob("backends/nvidia/bin/cuobjdump"))
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(this.asm["cubin"])
        file.flush()
        usage = subprocess.run(
            [cuobjdump, "--dump-resource-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    return this.metadata.shared, int(re.search(r"REG:\d+ STACK:(\d+)", usage)[1])

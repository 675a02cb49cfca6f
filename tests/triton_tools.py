"""Triton kernels compiled for GPUs that are not here, and run on CPU tensors.

They are compiled by two Tritons: the installed one, and that of the lowest torch that the package
supports, which `make` puts into a folder of its own. The latter compiles only: its interpreter does
not run with the numpy that the tests have.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from ganlstm_fast.ops import backends
from ganlstm_fast.ops.registry import Operator

TRITONS = ("installed", "lowest")
LOWEST = Path(sys.prefix, "triton-lowest")


def _patch_once_a_launch() -> None:
    """Triton's interpreter replaces the functions of its language when a kernel is launched, and
    again in each call of a jitted function from there, when nothing is left to replace: half of the
    time that the tests of the kernels would take."""
    from triton.runtime import interpreter

    launch, patch = interpreter.GridExecutor.__call__, interpreter._patch_lang
    done: set[tuple[bool, ...]] = set()

    def launch_unpatched(self: Any, *arguments: Any, **constants: Any) -> Any:
        done.clear()
        return launch(self, *arguments, **constants)

    @functools.cache
    def languages(fn: Any) -> tuple[bool, ...]:
        names = [id(value) for value in fn.__globals__.values()]
        return tuple(id(module) in names for module in (interpreter.tl, interpreter.tl.core))

    def patch_once(fn: Any) -> Any:
        if languages(fn) in done:
            return None
        done.add(languages(fn))
        return patch(fn)

    interpreter.GridExecutor.__call__ = launch_unpatched
    interpreter._patch_lang = patch_once


if os.environ.get("TRITON_INTERPRET") == "1":
    _patch_once_a_launch()


def operators_of(family: ModuleType) -> list[Operator[Any, Any]]:
    """The operators in a family's ``operators.py``."""
    return [value for value in vars(family).values() if isinstance(value, Operator)]


def by_triton(family: ModuleType) -> SimpleNamespace:
    """Triton's kernels, called by the names of the operators with their plain arguments."""

    def function(operator: Operator[Any, Any]) -> Any:
        return lambda *arguments: operator.triton(operator.kind(*arguments))

    return SimpleNamespace(**{this.name: function(this) for this in operators_of(family)})


@contextlib.contextmanager
def interpreted(family: ModuleType) -> Iterator[None]:
    """Within the block, operators with ``impl="triton"`` run Triton's kernels on CPU tensors."""
    library = torch.library.Library("ganlstm_fast", "IMPL")
    for operator in operators_of(family):
        operator.triton_on("CPU", library)
    yield
    library._destroy()


def on_cpu_tensors(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    """``impl="triton"`` also serves CPU tensors: Triton interprets the kernels there."""
    rows = [
        dataclasses.replace(row, devices=("cuda", "cpu")) if row.name == "triton" else row
        for row in backends.FAMILIES[family]
    ]
    monkeypatch.setitem(backends.FAMILIES, family, tuple(rows))


def compile_with(triton: str, code: str, *arguments: object) -> list[list[str]]:
    """Runs Python code in a new process; returns the words of each line that it prints.

    There ``import triton`` finds one of ``TRITONS``, and launches are not interpreted.
    """
    hidden = ("TRITON_INTERPRET", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    paths = list(sys.path)
    if triton == "lowest":
        if not (LOWEST / "triton").is_dir():
            say = pytest.fail if os.environ.get("CI") else pytest.skip
            say(f"the Triton of the lowest torch is not in {LOWEST}; `make test` installs it")
        paths.insert(0, str(LOWEST))
        environment["TRITON_CACHE_DIR"] = str(LOWEST / "cache")
        code = f"import triton\nassert triton.__file__.startswith({str(LOWEST)!r})\n{code}"
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def compile_only(architecture: int) -> dict[Any, str]:
    """Have launches of this process compile for a GPU that is not here, and do nothing else.

    Returns:
        A dict that launches fill, until the next call of this function: what they compiled, and the
        kernel's name for each.
    """
    from triton import JITFunction
    from triton.runtime import driver

    class Driver:
        def get_current_target(self) -> Any:
            return _target(architecture)

        def get_current_device(self) -> int:
            return architecture  # Triton keeps what it has compiled by the device

        def get_current_stream(self, device: int) -> int:
            return 0

    found: dict[Any, str] = {}
    run = getattr(JITFunction.run, "__wrapped__", JITFunction.run)

    @functools.wraps(run)
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

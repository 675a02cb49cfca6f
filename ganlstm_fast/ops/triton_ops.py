"""Operators in Triton: those of csrc/bindings.cpp, under names of their own.

A GPU's C++ kernels have the operators there, and where nothing was compiled there are none. Triton
is imported when the first of these is called.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

PREFIX = "triton_"


class Operator(NamedTuple):
    """The module that has the kernel, by the operator's name; the operator's schema."""

    module: str
    arguments: str
    results: str


def define(operators: Mapping[str, Operator]) -> torch.library.Library:
    """Define the operators, for as long as the result lives."""
    library = torch.library.Library("ganlstm_fast", "FRAGMENT")
    for name, (_, arguments, results) in operators.items():
        library.define(f"{PREFIX}{name}({arguments}) -> ({results})")
    return library


def register(operators: Mapping[str, Operator], device: str) -> torch.library.Library:
    """The kernels for tensors of a device ("CUDA"; the interpreter's run on "CPU") for as long as
    the result lives."""
    library = torch.library.Library("ganlstm_fast", "IMPL")
    for name, operator in operators.items():
        library.impl(PREFIX + name, _kernel(operator.module, name), device)
    return library


def _kernel(module: str, name: str) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*arguments)

    return run


def on_device(tensor: Tensor) -> contextlib.AbstractContextManager[None]:
    """Triton launches on the current device, which need not be that of the tensors."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()

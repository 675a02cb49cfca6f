"""The spectral norm's operators in Triton: those of csrc/bindings.cpp, under names of their own.

A GPU's C++ kernels have the operators there, and where nothing was compiled there are none. Triton
is imported when the first of these is called.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch

PREFIX = "triton_"

# Each with its module, arguments and results.
_OPERATORS = {
    "spectral_norm_forward": (
        "triton_forward",
        "Tensor[] weights, Tensor[] u, Tensor[] v, int[] dims, int n_power_iterations, float eps,"
        " bool training",
        "Tensor[] normalized, Tensor vectors",
    ),
    "spectral_norm_forward_": (
        "triton_forward",
        "Tensor[] weights, Tensor(a!)[] u, Tensor(b!)[] v, int[] dims, int n_power_iterations,"
        " float eps",
        "Tensor[] normalized, Tensor vectors",
    ),
    "spectral_norm_backward": (
        "triton_backward",
        "Tensor?[] grads, Tensor[] normalized, Tensor vectors, int[] dims, float eps",
        "Tensor[] grad_weights, Tensor inner",
    ),
    "spectral_norm_double_backward": (
        "triton_double_backward",
        "Tensor?[] v_weights, Tensor?[] grads, Tensor[] normalized, Tensor vectors, Tensor inner,"
        " int[] dims, float eps, bool[] wanted",
        "Tensor[] g_grads, Tensor[] g_weights",
    ),
}


def _kernel(module: str, name: str) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        imported = importlib.import_module(f"ganlstm_fast.spectral_norm.{module}")
        return getattr(imported, name)(*arguments)

    return run


def register(device: str) -> torch.library.Library:
    """The kernels for tensors of a device ("CUDA"; the interpreter's run on "CPU") for as long as
    the result lives."""
    library = torch.library.Library("ganlstm_fast", "IMPL")
    for name, (module, _, _) in _OPERATORS.items():
        library.impl(PREFIX + name, _kernel(module, name), device)
    return library


def _define() -> torch.library.Library:
    library = torch.library.Library("ganlstm_fast", "FRAGMENT")
    for name, (_, arguments, results) in _OPERATORS.items():
        library.define(f"{PREFIX}{name}({arguments}) -> ({results})")
    return library


# Kept for the life of the process: the registrations end with the object.
_libraries = _define(), register("CUDA")

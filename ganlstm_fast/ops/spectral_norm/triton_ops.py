"""The spectral norm's operators in Triton."""

from __future__ import annotations

import torch

from ganlstm_fast.ops import triton_ops
from ganlstm_fast.ops.triton_ops import Operator

_PACKAGE = "ganlstm_fast.ops.spectral_norm"
OPERATORS = {
    "spectral_norm_forward": Operator(
        f"{_PACKAGE}.triton_forward",
        "Tensor[] weights, Tensor[] u, Tensor[] v, int[] dims, int n_power_iterations, float eps,"
        " bool training",
        "Tensor[] normalized, Tensor vectors",
    ),
    "spectral_norm_forward_": Operator(
        f"{_PACKAGE}.triton_forward",
        "Tensor[] weights, Tensor(a!)[] u, Tensor(b!)[] v, int[] dims, int n_power_iterations,"
        " float eps",
        "Tensor[] normalized, Tensor vectors",
    ),
    "spectral_norm_backward": Operator(
        f"{_PACKAGE}.triton_backward",
        "Tensor?[] grads, Tensor[] normalized, Tensor vectors, int[] dims, float eps",
        "Tensor[] grad_weights, Tensor inner",
    ),
    "spectral_norm_double_backward": Operator(
        f"{_PACKAGE}.triton_double_backward",
        "Tensor?[] v_weights, Tensor?[] grads, Tensor[] normalized, Tensor vectors, Tensor inner,"
        " int[] dims, float eps, bool[] wanted",
        "Tensor[] g_grads, Tensor[] g_weights",
    ),
}


def register(device: str) -> torch.library.Library:
    """See :func:`ganlstm_fast.ops.triton_ops.register`."""
    return triton_ops.register(OPERATORS, device)


# Kept for the life of the process: the registrations end with the object.
_libraries = triton_ops.define(OPERATORS), register("CUDA")

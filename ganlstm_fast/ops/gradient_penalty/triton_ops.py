"""The gradient penalty's operators in Triton."""

from __future__ import annotations

import torch

from ganlstm_fast.ops import triton_ops
from ganlstm_fast.ops.triton_ops import Operator

_MODULE = "ganlstm_fast.ops.gradient_penalty.triton_kernels"
OPERATORS = {
    "interpolate": Operator(_MODULE, "Tensor? real, Tensor? fake, Tensor seed", "Tensor"),
    "penalty_forward": Operator(
        _MODULE, "Tensor[] grads, float center, bool one_sided", "Tensor value, Tensor norms"
    ),
    "penalty_backward": Operator(
        _MODULE,
        "Tensor grad_value, Tensor[] grads, Tensor norms, float center, bool one_sided",
        "Tensor[]",
    ),
    "penalty_double_backward": Operator(
        _MODULE,
        "Tensor?[] v_grads, Tensor grad_value, Tensor[] grads, Tensor norms, float center,"
        " bool one_sided, bool[] wanted",
        "Tensor g_grad_value, Tensor[] g_grads",
    ),
}


def register(device: str) -> torch.library.Library:
    """See :func:`ganlstm_fast.ops.triton_ops.register`."""
    return triton_ops.register(OPERATORS, device)


# Kept for the life of the process: the registrations end with the object.
_libraries = triton_ops.define(OPERATORS), register("CUDA")

"""Operators that have kernels and no gradient: asked for one, they raise.

Without an Autograd registration torch would only warn, and give none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ganlstm_fast.ops.functions import records
from ganlstm_fast.ops.gradient_penalty import triton_ops  # noqa: F401  (defines operators)
from ganlstm_fast.ops.spectral_norm.autograd import outputs_like


def _in_place_fake(*arguments: Any, **options: Any) -> None:
    pass


def _empty_like(weights: list[Tensor], wanted: list[bool]) -> list[Tensor]:
    return [w.new_empty(w.shape if want else (0,)) for w, want in zip(weights, wanted, strict=True)]


def _spectral_norm_backward_fake(
    grads: list[Tensor | None],
    normalized: list[Tensor],
    vectors: Tensor,
    dims: list[int],
    eps: float,
) -> tuple[list[Tensor], Tensor]:
    grad_weights = _empty_like(normalized, [grad is not None for grad in grads])
    return grad_weights, vectors.new_empty(len(normalized))


def _spectral_norm_double_backward_fake(
    v_weights: list[Tensor | None],
    grads: list[Tensor | None],
    normalized: list[Tensor],
    vectors: Tensor,
    inner: Tensor,
    dims: list[int],
    eps: float,
    wanted: list[bool],
) -> tuple[list[Tensor], list[Tensor]]:
    pairs = zip(v_weights, grads, strict=True)
    used = [v is not None and grad is not None for v, grad in pairs]
    g_grads, g_weights = (_empty_like(normalized, [u and w for u in used]) for w in wanted)
    return g_grads, g_weights


def _penalty_backward_fake(
    grad_value: Tensor, grads: list[Tensor], norms: Tensor, center: float, one_sided: bool
) -> list[Tensor]:
    return [torch.empty_like(grad) for grad in grads]


def _penalty_double_backward_fake(
    v_grads: list[Tensor | None],
    grad_value: Tensor,
    grads: list[Tensor],
    norms: Tensor,
    center: float,
    one_sided: bool,
    wanted: list[bool],
) -> tuple[Tensor, list[Tensor]]:
    # What is left out has the dtype of the gradients.
    g_grad_value = torch.empty_like(grad_value) if wanted[0] else grads[0].new_empty(0)
    return g_grad_value, [torch.empty_like(g) if wanted[1] else g.new_empty(0) for g in grads]


FAKES: dict[str, Callable[..., Any]] = {
    "lstm_forward_steps": _in_place_fake,
    "lstm_backward_steps": _in_place_fake,
    "lstm_tangent_forward_steps": _in_place_fake,
    "lstm_tangent_backward_steps": _in_place_fake,
    # Right to second order in the Functions of the families alone.
    "penalty_backward": _penalty_backward_fake,
    "penalty_double_backward": _penalty_double_backward_fake,
    "triton_penalty_backward": _penalty_backward_fake,
    "triton_penalty_double_backward": _penalty_double_backward_fake,
    "spectral_norm_forward_": outputs_like,
    "spectral_norm_backward": _spectral_norm_backward_fake,
    "spectral_norm_double_backward": _spectral_norm_double_backward_fake,
    "triton_spectral_norm_forward_": outputs_like,
    "triton_spectral_norm_backward": _spectral_norm_backward_fake,
    "triton_spectral_norm_double_backward": _spectral_norm_double_backward_fake,
}


def _raising(name: str) -> Callable[..., Any]:
    op = getattr(torch.ops.ganlstm_fast, name).default

    def autograd(*arguments: Any, **options: Any) -> Any:
        lists = (value if isinstance(value, (list, tuple)) else (value,) for value in arguments)
        if any(records(*values) for values in lists):
            raise RuntimeError(
                f"ganlstm_fast::{name} has no gradient; call it under torch.no_grad(), or use the "
                "function of ganlstm_fast that has one"
            )
        with torch._C._AutoDispatchBelowAutograd():
            return op(*arguments, **options)

    return autograd


def _register() -> torch.library.Library:
    library = torch.library.Library("ganlstm_fast", "IMPL")
    for name, fake in FAKES.items():
        if not hasattr(torch.ops.ganlstm_fast, name):
            continue  # nothing was compiled
        library.impl(name, _raising(name), "Autograd")
        torch.library.register_fake(f"ganlstm_fast::{name}", fake, lib=library)
    return library


# Kept for the life of the process: the registrations end with the object.
_library = _register()

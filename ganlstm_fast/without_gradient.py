"""Operators that have kernels and no gradient: asked for one, they raise.

Without an Autograd registration torch would only warn, and give none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ganlstm_fast import backends


def _in_place_fake(*arguments: Any, **options: Any) -> None:
    pass


def _interpolate_fake(real: Tensor, fake: Tensor, weight: Tensor) -> Tensor:
    return torch.empty_like(real)


FAKES: dict[str, Callable[..., Any]] = {
    "lstm_forward_steps": _in_place_fake,
    "lstm_backward_steps": _in_place_fake,
    "lstm_tangent_forward_steps": _in_place_fake,
    "lstm_tangent_backward_steps": _in_place_fake,
    "interpolate": _interpolate_fake,
}


def _raising(name: str) -> Callable[..., Any]:
    op = getattr(torch.ops.ganlstm_fast, name).default

    def autograd(*arguments: Any, **options: Any) -> Any:
        tensors = [value for value in arguments if isinstance(value, Tensor)]
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
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
        library.impl(name, _raising(name), "Autograd")
        torch.library.register_fake(f"ganlstm_fast::{name}", fake, lib=library)
    return library


# Kept for the life of the process: the registrations end with the object.
_library = _register() if backends.is_loaded("cpu") else None

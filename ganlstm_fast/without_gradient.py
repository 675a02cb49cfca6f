"""Operators that have kernels and no gradient: asked for one, they raise.

Without an Autograd registration torch would only warn, and give none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ganlstm_fast import backends


def _lstm_cell_forward_fake(z: Tensor, c_prev: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(c_prev), torch.empty_like(c_prev), torch.empty_like(z)


def _interpolate_fake(real: Tensor, fake: Tensor, weight: Tensor) -> Tensor:
    return torch.empty_like(real)


FAKES: dict[str, Callable[..., Any]] = {
    "lstm_cell_forward": _lstm_cell_forward_fake,
    "interpolate": _interpolate_fake,
}


def _raising(name: str) -> Callable[..., Any]:
    op = getattr(torch.ops.ganlstm_fast, name).default

    def autograd(*tensors: Tensor) -> Any:
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            raise RuntimeError(
                f"ganlstm_fast::{name} has no gradient; call it under torch.no_grad(), or use the "
                "function of ganlstm_fast that has one"
            )
        with torch._C._AutoDispatchBelowAutograd():
            return op(*tensors)

    return autograd


def _register() -> torch.library.Library:
    library = torch.library.Library("ganlstm_fast", "IMPL")
    for name, fake in FAKES.items():
        library.impl(name, _raising(name), "Autograd")
        torch.library.register_fake(f"ganlstm_fast::{name}", fake, lib=library)
    return library


# Kept for the life of the process: the registrations end with the object.
_library = _register() if backends.is_loaded("cpu") else None

"""The operators of a family's implementations, as its autograd Functions call them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ganlstm_fast.ops import backends
from ganlstm_fast.ops.triton_ops import PREFIX


class Operators:
    """The operators of an implementation, each by its name, and below autograd.

    Those with C++ kernels share theirs, of which the tensors' device chooses; the names of others
    have a ``prefix``. As plain objects they pass through a Function. ``traced_NAME`` is the
    operator itself, which a graph takes.
    """

    def __init__(self, names: Sequence[str], prefix: str = "") -> None:
        self.prefix = prefix
        for name in names:
            operator = getattr(torch.ops.ganlstm_fast, prefix + name)
            setattr(self, f"traced_{name}", operator)
            setattr(self, name, _below_autograd(operator.default))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no operator {name} with the prefix {self.prefix!r}")


def _below_autograd(operator: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*arguments)

    return run


# What an operator does for autograd, called with the ``Operators`` first, and what it returns for
# tensors without data.
Above = tuple[Callable[..., Any], Callable[..., Any]]


def register(
    names: Sequence[str], above: Mapping[str, Above]
) -> tuple[torch.library.Library, dict[str, Operators]]:
    """The operators of each implementation that has any, with those ``above`` registered.

    The first result is to be kept: the registrations end with it.
    """
    library = torch.library.Library("ganlstm_fast", "IMPL")
    found = {"triton": Operators(names, PREFIX)}
    if backends.is_loaded("cpu"):
        found["cpu"] = found["cuda"] = Operators(names)
    for operators in set(found.values()):
        for name, (autograd, fake) in above.items():
            whole = operators.prefix + name
            library.impl(whole, functools.partial(autograd, operators), "Autograd")
            torch.library.register_fake(f"ganlstm_fast::{whole}", fake, lib=library)
    return library, found

"""Whole modules with a spectral norm in files: ``torch.save(model)``, ``multiprocessing.spawn``.

torch refuses to pickle a parametrized module, whose class is made at run time. This remembers the
class it was made of and makes it anew.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils import parametrize

__all__ = ["make_picklable", "rebuild"]


def make_picklable(module: nn.Module) -> None:
    """Let a parametrized module be pickled, with all of its parametrizations."""
    type(module).__reduce_ex__ = _reduce  # type: ignore[method-assign]


def _reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
    base = parametrize.type_before_parametrizations(self)
    getstate = getattr(base, "__getstate__", None)  # no class has one in Python 3.10
    state = dict(vars(self)) if getstate is None else getstate(self)
    return rebuild, (base, tuple(self.parametrizations)), state


def rebuild(base: type[nn.Module], names: tuple[str, ...]) -> nn.Module:
    """A module of ``base`` whose weights ``names`` are parametrized, before it has its state.

    Files name this function: it stays here.
    """
    module = base.__new__(base)
    parametrize._inject_new_class(module)
    for name in names:
        parametrize._inject_property(module, name)
    make_picklable(module)
    return module

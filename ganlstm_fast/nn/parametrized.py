"""What a layer with a spectral norm has beyond torch's parametrization.

Its weight can be written to (:mod:`.computed_weight`), and it can be pickled, for
``torch.save(model)`` and ``multiprocessing.spawn``: torch refuses, since the class of a
parametrized module is made at run time. Here the class that it was made of is remembered.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from ganlstm_fast.nn.computed_weight import ComputedWeight, computed_from

__all__ = ["complete", "rebuild", "set_class"]


class _ComputedWeightProperty(property):
    """The property of a weight's name. ``torchs``: torch's property, which it replaces."""

    torchs: property


def complete(module: nn.Module, name: str) -> None:
    """To be called after a spectral norm was registered on the weight ``name``."""
    set_class(module, parametrize.type_before_parametrizations(module), ours=(name,))


def set_class(module: nn.Module, base: type, *, ours: tuple[str, ...] = ()) -> None:
    """Make ``module`` an instance of ``base``, parametrized if it was.

    That is safe between a layer of torch's and ours of the same family, and only there: both are
    plain classes without ``__slots__`` (Python refuses another layout), the state lies in
    ``__dict__`` and is the same except for attributes that the callers add or remove, and neither
    constructor registers anything outside of it. The object stays, and with it whatever refers to
    it: hooks, DDP, its places in the model.

    Args:
        ours: weights with a spectral norm of this library, besides those that already had one.
            Without any the class is the one that torch makes.
    """
    if not parametrize.is_parametrized(module):
        module.__class__ = base
        return
    # parametrize has inserted a class of properties, which a deepcopy shares. So it is not changed:
    # a new class gets its body.
    body = vars(type(module))
    if ours:
        ours += tuple(name for name in body if _is_ours(body, name))
    module.__class__ = _new_class(base, body, ours)


def _new_class(base: type, body: Any, ours: tuple[str, ...]) -> type:
    """A class as parametrize makes it, with what this module adds for the weights ``ours``."""
    left_out = ("__dict__", "__weakref__", "__doc__", "__parameters__")  # Python's own of a class
    cls: Any = type(
        f"Parametrized{base.__name__}",
        (base,),
        {
            key: value.torchs if isinstance(value, _ComputedWeightProperty) else value
            for key, value in body.items()
            if key not in left_out and value is not _reduce and value is not _reset_parameters
        },
    )
    for name in ours:
        setattr(cls, name, _property(name, vars(cls)[name]))
    if ours:
        cls.__reduce_ex__ = _reduce
        if hasattr(base, "reset_parameters"):
            cls.reset_parameters = _reset_parameters
    return cls


def _is_ours(body: Any, name: str) -> bool:
    return isinstance(body.get(name), _ComputedWeightProperty)


def _property(name: str, torchs: property) -> _ComputedWeightProperty:
    def chain_of(module: nn.Module) -> Any:
        return module._modules["parametrizations"]._modules[name]

    def get(module: nn.Module) -> Tensor:
        return computed_from(chain_of(module), torchs.fget(module))  # type: ignore[misc]

    def assign(module: nn.Module, value: Tensor) -> None:
        if isinstance(value, ComputedWeight) and value.has_written_to(chain_of(module).original):
            return  # by ``layer.weight *= 2``
        torchs.fset(module, value)  # type: ignore[misc]

    result = _ComputedWeightProperty(get, assign)
    result.torchs = torchs
    return result


def _reset_parameters(self: Any) -> None:
    base: Any = parametrize.type_before_parametrizations(self)
    base.reset_parameters(self)
    # It may go through self.parameters(), and so bypass the weights that can be written to.
    for chain in self.parametrizations.values():
        for item in chain:
            if hasattr(item, "start_again") and len(chain) == 1:
                item.start_again(chain.original.detach())


def _reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
    base = parametrize.type_before_parametrizations(self)
    getstate = getattr(base, "__getstate__", None)  # no class has one in Python 3.10
    state = dict(vars(self)) if getstate is None else getstate(self)
    body = vars(type(self))
    return rebuild, (base, {name: _is_ours(body, name) for name in self.parametrizations}), state


def rebuild(base: type[nn.Module], names: dict[str, bool]) -> nn.Module:
    """A module of ``base`` with parametrized weights, before it has its state.

    Files name this function: it stays here.

    Args:
        names: of the weights, and whether each has a spectral norm of this library.
    """
    module: Any = base.__new__(base)
    parametrize._inject_new_class(module)
    for name in names:
        parametrize._inject_property(module, name)
    ours = tuple(name for name, is_ours in names.items() if is_ours)
    module.__class__ = _new_class(base, vars(type(module)), ours)
    return module

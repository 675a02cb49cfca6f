"""The value of a weight under a spectral norm, which passes on what is written to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["ComputedWeight", "computed_from", "usable"]


class Norm(Protocol):
    """A parametrization whose parameter may be rewritten."""

    def start_again(self, weight: Tensor) -> None: ...


@dataclass(slots=True)
class _Source:
    """Where a computed weight comes from.

    Attributes:
        parameter: what it is computed from.
        norm: what computes it.
        root: the computed weight itself where this is a view of it.
        views: what leads from ``root`` to the view.
    """

    parameter: Tensor
    norm: Norm
    root: Tensor | None = None
    views: tuple[Callable[[Tensor], Tensor], ...] = ()

    def target(self) -> Tensor:
        """The part of the parameter that the view shows."""
        part = self.parameter
        for view in self.views:
            part = view(part)
        return part

    def written(self, tensor: Tensor) -> None:
        """After a write: show it, as code that reads what it wrote expects, and estimate anew."""
        root = tensor if self.root is None else self.root
        with torch.no_grad():
            Tensor.detach(root).copy_(self.parameter)
            self.norm.start_again(self.parameter.detach())
        # In a block of parametrize.cached() the next access would get this very tensor.
        for key, value in list(parametrize._cache.items()):
            if value is root:
                del parametrize._cache[key]


class ComputedWeight(Tensor):
    """``layer.weight`` under a spectral norm: a plain tensor to read.

    What is written to it in place, to its ``.data`` or to a view of it goes to the parameter that
    it is computed from. This tensor then shows the parameter; the next ``layer.weight`` is computed
    from it. So ``nn.init.xavier_uniform_(layer.weight.data)``,
    ``layer.reset_parameters()`` and ``layer.weight.copy_(other)`` do what they do to a parameter.
    Operators give plain tensors of it. Not passed on: what a function writes to an ``out=``
    argument, as ``nn.init.eye_`` does, and what C++ code writes.
    """

    # As torch.nn.Parameter: operators take it as the tensor it is, at no cost.
    __torch_function__ = torch._C._disabled_torch_function_impl

    _source: _Source

    def __setitem__(self, index: Any, value: Any) -> None:
        self._source.target()[index] = value
        self._source.written(self)

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        self._source.target().data.copy_(value)
        self._source.written(self)

    # Copies and files hold the numbers alone.
    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.as_subclass(Tensor).__deepcopy__(memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.as_subclass(Tensor).__reduce_ex__(protocol)


def computed_from(parameter: Tensor, norm: Norm, value: Tensor) -> Tensor:
    """``value``, which ``norm`` computed from ``parameter``, as a weight that can be written to.

    As it is while a graph is traced, and where ``parameter`` is not one, as in
    ``torch.func.functional_call``: nothing outlives the call there that could be written to.
    """
    if (
        type(parameter) is nn.Parameter
        and type(value) is Tensor
        and not torch.compiler.is_compiling()
    ):
        value.__class__ = ComputedWeight
        value._source = _Source(parameter, norm)  # type: ignore[attr-defined]
    return value


def usable(vector: Tensor) -> Tensor:
    """``vector``, or another of length 1 where it has no direction to start iterations from.

    Memory that was never filled (``torch.nn.utils.skip_init``) has none. No random number is drawn,
    which would change those that initialise the next layer.
    """
    length = torch.linalg.vector_norm(vector)
    other = torch.arange(1, vector.numel() + 1, device=vector.device, dtype=vector.dtype).cos()
    other = (other / torch.linalg.vector_norm(other)).view(vector.shape)
    return torch.where(torch.isfinite(length) & (length > 0), vector, other)


def _writing(name: str) -> Callable[..., Tensor]:
    plain = getattr(Tensor, name)

    def method(self: ComputedWeight, *args: Any, **options: Any) -> Tensor:
        plain(self._source.target(), *args, **options)
        self._source.written(self)
        return self

    method.__name__ = name
    return method


def _viewing(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:

    def method(self: ComputedWeight, *args: Any, **options: Any) -> Any:
        value = plain(self, *args, **options)
        if not _is_view_of(value, self):
            return value
        source = self._source
        root = self if source.root is None else source.root
        views = (*source.views, lambda tensor: plain(tensor, *args, **options))
        value.__class__ = ComputedWeight
        value._source = _Source(source.parameter, source.norm, root, views)
        return value

    method.__name__ = name
    return method


def _is_view_of(value: object, tensor: Tensor) -> bool:
    return (
        type(value) is Tensor
        and tensor.device.type != "meta"
        and value.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
    )


# In-place methods that change what a tensor is, not its values.
_NOT_WRITING = frozenset(
    [
        "as_strided_",
        "detach_",
        "requires_grad_",
        "resize_",
        "resize_as_",
        "resize_as_sparse_",
        "set_",
        "share_memory_",
        "sparse_resize_",
        "sparse_resize_and_clear_",
        "squeeze_",
        "swapaxes_",
        "swapdims_",
        "t_",
        "transpose_",
        "unsqueeze_",
    ]
)
_VIEWING = [
    "__getitem__",
    "detach",
    "flatten",
    "narrow",
    "permute",
    "reshape",
    "select",
    "squeeze",
    "t",
    "transpose",
    "unsqueeze",
    "view",
    "view_as",
]

for _name in dir(Tensor):
    if _name.endswith("_") and not _name.startswith("_") and _name not in _NOT_WRITING:
        setattr(ComputedWeight, _name, _writing(_name))
for _name in _VIEWING:
    setattr(ComputedWeight, _name, _viewing(_name, getattr(Tensor, _name)))
for _name in ("T", "mT"):
    setattr(ComputedWeight, _name, property(_viewing(_name, getattr(Tensor, _name).__get__)))

"""The weight of a layer with a spectral norm, which passes on what is written to it.

The weight ``W / sigma`` is computed at each access, so that a write would be lost with the tensor
that it went to. Here it reaches the parameter ``W``:

- What overwrites values (``normal_``, ``copy_``, ``w[0] = 1``, ``.data = value``) puts them into
  the parameter.
- Any other write (``clamp_``, ``*= mask``) changes what the tensor shows; the parameter becomes
  that times sigma. So the layer computes with what was seen.

Either way the parameter is what it would be without a spectral norm, where that does not depend on
the size of the weight, as a mask or ``w -= w.mean()`` does not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["ComputedWeight", "ComputedWeightView", "computed_from", "usable"]


@dataclass(slots=True)
class _Source:
    """Where a computed weight comes from.

    Attributes:
        parameter: what it is computed from.
        norm: the spectral norm that computes it; None where other parametrizations stand beside it,
            so that nobody knows which parameter gives a value.
        scale: how many times what is shown the parameter is, for each value: sigma, or 1 where it
            was overwritten. None: nothing was written yet.
    """

    parameter: Tensor
    norm: nn.Module | None
    scale: Tensor | None = None

    @torch.no_grad()
    def written(self, root: Tensor, part: Tensor, overwritten: bool, index: Any = None) -> None:
        """Pass on a write to ``part`` of ``root``, the computed weight.

        Args:
            overwritten: all of ``part``, with values that do not depend on what was there.
            index: of the values of ``part`` that alone were overwritten.
        """
        if self.norm is None:
            raise RuntimeError(_SEVERAL)
        root, part, parameter = (t.detach() for t in _plain(root, part, self.parameter))
        if _overlaps(part):
            part = root
        if self.scale is None:
            self.scale = torch.empty_like(root).copy_(self.norm.scale_of(parameter))
        where = part.shape, part.stride(), part.storage_offset() - root.storage_offset()
        scale = self.scale.as_strided(*where)
        if overwritten:
            scale.fill_(1.0)
        elif index is not None:
            scale[index] = 1.0
        if parameter.stride() == root.stride():
            shape, stride, offset = where
            target = parameter.as_strided(shape, stride, parameter.storage_offset() + offset)
            target.copy_(part * scale)
        else:
            parameter.copy_(root * self.scale)
        self.norm.start_again(parameter)
        # In a block of parametrize.cached() the next access would get this very tensor.
        for key, value in list(parametrize._cache.items()):
            if value is not None and _address(value) == _address(root):
                del parametrize._cache[key]


def _plain(*tensors: Tensor) -> list[Tensor]:
    """Aliases of the class Tensor."""
    with torch._C.DisableTorchFunctionSubclass():
        return [Tensor.as_subclass(t, Tensor) for t in tensors]


def _overlaps(tensor: Tensor) -> bool:
    return any(n > 1 and step == 0 for n, step in zip(tensor.shape, tensor.stride(), strict=True))


def _address(tensor: Tensor) -> int:
    return Tensor.untyped_storage(tensor).data_ptr()


class _Weight(Tensor):
    """What a weight and its views share."""

    _chain: parametrize.ParametrizationList
    _found: _Source | None = None

    @property
    def _source(self) -> _Source:
        # Looked for when it is asked for, which few weights are.
        if self._found is None:
            modules = self._chain._modules
            norm = modules["0"] if len(modules) == 1 else None
            self._found = _Source(self._chain.original, norm)
        return self._found

    # Copies and files hold the numbers alone.
    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return _plain(self)[0].__deepcopy__(memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _plain(self)[0].__reduce_ex__(protocol)

    @property
    def _is_param(self) -> bool:
        return False

    @_is_param.setter
    def _is_param(self, value: bool) -> None:
        # nn.Parameter(layer.weight) sets it on what detach() gave, and is a parameter of its own.
        vars(self).clear()
        self.__class__ = nn.Parameter


class ComputedWeight(_Weight):
    """``layer.weight`` under a spectral norm: a plain tensor to read.

    What is written to it in place, to its ``.data`` or to a view of it reaches the parameter, as
    this module says. So ``nn.init.xavier_uniform_(layer.weight.data)``, ``layer.weight.copy_(w)``
    and ``layer.reset_parameters()`` do what they do to a parameter. Operators give plain tensors.

    In a forward that records a graph it is a temporary tensor, as under torch's parametrization.

    Not seen: what a function, and not a method, writes to this tensor itself, as ``nn.init.eye_``
    by ``out=``, and what NumPy writes.
    """

    # As torch.nn.Parameter: operators take it as the tensor it is, at no cost.
    __torch_function__ = torch._C._disabled_torch_function_impl

    _root: ComputedWeight | None = None  # what detach() was called on; None: on nothing

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return _tied(Tensor.detach(self), self, ComputedWeightView)

    @data.setter
    def data(self, value: Tensor) -> None:
        if _address(value) != _address(self):  # else it is from ``data *= mask``, which wrote
            self.data.copy_(_checked(self, value))

    def has_written_to(self, parameter: Tensor) -> bool:
        return self._source.parameter is parameter and self._source.scale is not None

    def detach(self) -> Tensor:
        return _tied(Tensor.detach(self), self, ComputedWeight)


class ComputedWeightView(_Weight):
    """A part of a :class:`ComputedWeight`, or its ``.data``: whatever writes to it is passed on.

    Every operator comes by here, which takes time; the weight itself is what layers compute with.
    """

    _root: ComputedWeight

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        views = [t for t in tree_leaves((args, kwargs)) if isinstance(t, cls)]
        with torch._C.DisableTorchFunctionSubclass():
            name = getattr(func, "__name__", "").replace("_foreach_", "")
            overwrites = (
                name in _OVERWRITING or "out" in kwargs or getattr(func, "__module__", "") == _INIT
            )
            if func is Tensor.data.__set__:  # type: ignore[attr-defined]
                func, overwrites = Tensor.copy_, True
                args = (args[0], _checked(*args))
            versions = [view._version for view in views]
            result = func(*args, **kwargs)
            for view, version in zip(views, versions, strict=True):
                if view._version != version and isinstance(view, _Weight):
                    if view.requires_grad and torch.is_grad_enabled():
                        raise RuntimeError(_NEEDS_NO_GRAD)
                    view._source.written(view._root, view, *_new(overwrites, name, view, args))
            return tree_map(lambda value: _as_view(value, views), result)


def _new(overwrites: bool, name: str, weight: _Weight, args: tuple[Any, ...]) -> tuple[bool, Any]:
    """Whether all that a call wrote is new, else the index of what is new, or None."""
    address = _address(weight)
    if any(isinstance(v, _Weight) and _address(v) == address for v in tree_leaves(args[1:])):
        return False, None  # as ``w[0] *= 2``, which assigns what it has changed
    return overwrites, args[1] if name == "__setitem__" else None


def _root_of(weight: ComputedWeight | ComputedWeightView) -> ComputedWeight:
    return weight if weight._root is None else weight._root  # type: ignore[return-value]


def _tied(value: Tensor, to: ComputedWeight | ComputedWeightView, cls: type[_Weight]) -> Tensor:
    """``value``, of the storage of ``to``, as a ``cls`` whose writes are passed on."""
    value.__class__ = cls
    value._found = to._source  # type: ignore[attr-defined]
    value._root = _root_of(to)  # type: ignore[attr-defined]
    return value


_INIT = nn.init.__name__
_SEVERAL = (
    "ganlstm_fast: a write to a weight that several parametrizations compute would be lost; write "
    "to layer.parametrizations.<name>.original"
)
_NEEDS_NO_GRAD = (
    "ganlstm_fast: the weight of a layer with a spectral norm was written to where a graph is "
    "recorded; write under torch.no_grad(), or to layer.weight.data"
)
_IN_A_FORWARD = (
    "ganlstm_fast: a forward without a graph writes to the weight of a layer with a spectral norm, "
    "which changes the parameter outside of a forward; write to layer.weight.clone(), or, if the "
    "parameter is meant, to layer.weight.data"
)


def computed_from(chain: parametrize.ParametrizationList, value: Tensor) -> Tensor:
    """``value``, which ``chain`` computed, as a weight that can be written to.

    As it is while a graph is traced, and where the chain's tensor is no parameter, as in
    ``torch.func.functional_call``: nothing outlives the call there that could be written to.
    """
    parameter = chain._parameters.get("original")
    if (
        type(parameter) is nn.Parameter
        and type(value) is Tensor
        and not torch.compiler.is_compiling()
    ):
        value.__class__ = ComputedWeight
        value._chain = chain  # type: ignore[attr-defined]
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


def _checked(weight: Tensor, value: Tensor) -> Tensor:
    """``value``, which is to replace a weight's data."""
    if weight.shape != value.shape or weight.dtype != value.dtype:
        raise ValueError(
            f"data: expected {tuple(weight.shape)} {weight.dtype} as the weight has, got "
            f"{tuple(value.shape)} {value.dtype}"
        )
    return value


_CALL = nn.Module._call_impl.__code__


def _is_method_of_a_module(frame: FrameType) -> bool:
    names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
    return bool(names) and isinstance(frame.f_locals.get(names[0]), nn.Module)


def _in_a_forward() -> bool:
    """Whether a module's forward is running, from which this is called."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code is _CALL or (code.co_name == "forward" and _is_method_of_a_module(frame)):
            return True
        frame = frame.f_back
    return False


def _writing(name: str) -> Callable[..., Any]:
    plain = getattr(Tensor, name)

    def method(self: ComputedWeight, *args: Any, **options: Any) -> Any:
        if _in_a_forward():
            if torch.is_grad_enabled():
                return plain(self, *args, **options)
            raise RuntimeError(_IN_A_FORWARD)
        if self.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(_NEEDS_NO_GRAD)
        result = plain(self, *args, **options)
        new = _new(name in _OVERWRITING, name, self, (self, *args))
        self._source.written(_root_of(self), self, *new)
        return result

    method.__name__ = name
    return method


def _viewing(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: ComputedWeight, *args: Any, **options: Any) -> Any:
        value = plain(self, *args, **options)
        if torch.is_grad_enabled() and self.requires_grad and _in_a_forward():
            return value  # of the graph, as the weight itself
        return tree_map(lambda part: _as_view(part, [self]), value)

    method.__name__ = name
    return method


def _as_view(value: object, weights: list[Any]) -> object:
    """``value``, tied to the one of ``weights`` that it is a view of."""
    if type(value) is Tensor and value.device.type != "meta":
        for weight in weights:
            if isinstance(weight, _Weight) and _address(weight) == _address(value):
                return _tied(value, weight, ComputedWeightView)
    return value


# In-place methods of which the result does not depend on what was there.
_OVERWRITING = {
    *("bernoulli_", "cauchy_", "copy_", "exponential_", "fill_", "geometric_", "log_normal_"),
    *("normal_", "random_", "uniform_", "zero_"),
}
# In-place methods that change what a tensor is, not its values.
_NOT_WRITING = {
    *("as_strided_", "detach_", "requires_grad_", "resize_", "resize_as_", "resize_as_sparse_"),
    *("set_", "share_memory_", "sparse_resize_", "sparse_resize_and_clear_", "squeeze_"),
    *("swapaxes_", "swapdims_", "t_", "transpose_", "unsqueeze_"),
}
_VIEWING = (
    *("__getitem__", "__iter__", "as_strided", "chunk", "diagonal", "expand", "flatten"),
    *(
        "hsplit",
        "movedim",
        "narrow",
        "permute",
        "ravel",
        "reshape",
        "reshape_as",
        "select",
        "split",
    ),
    *("split_with_sizes", "squeeze", "swapaxes", "swapdims", "t", "tensor_split", "transpose"),
    *("unbind", "unflatten", "unfold", "unsqueeze", "view", "view_as", "vsplit"),
)

for _name in dir(Tensor):
    if _name.endswith("_") and not _name.startswith("_") and _name not in _NOT_WRITING:
        setattr(ComputedWeight, _name, _writing(_name))
for _name in ("iadd", "imul", "ipow", "isub", "itruediv", "setitem"):
    setattr(ComputedWeight, f"__{_name}__", _writing(f"__{_name}__"))
for _name in _VIEWING:
    setattr(ComputedWeight, _name, _viewing(_name, getattr(Tensor, _name)))
for _name in ("T", "mT"):
    setattr(ComputedWeight, _name, property(_viewing(_name, getattr(Tensor, _name).__get__)))

"""The weight of a layer with a spectral norm: passes writes on to the parameter.

The weight ``W / sigma`` is computed at each access, so a write to it would be lost when that tensor
is freed. Here the write reaches the parameter ``W``:

- What overwrites values (``normal_``, ``copy_``, ``w[0] = 1``, ``.data = value``) puts them into
  the parameter.
- Any other write (``clamp_``, ``*= mask``) changes what the tensor shows; the parameter becomes
  that times sigma. So the layer computes with the values that the code saw.

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
        norm: the spectral norm that computes it; None where there are other parametrizations too,
            so that the parameter for a given value is unknown.
        state: of the parameter when the weight was computed, or last written to.
        scale: the factor from each shown value to the parameter: sigma, or 1 where the value was
            overwritten. None: nothing was written yet.
    """

    parameter: Tensor
    norm: nn.Module | None
    state: tuple[int, int]
    scale: Tensor | None = None

    @torch.no_grad()
    def written(self, root: Tensor, part: Tensor, new: Callable[[Tensor], object] | None) -> None:
        """Pass on a write to ``part`` of ``root``, the computed weight.

        Args:
            new: writes ones into a tensor like ``part`` where the write replaced values by others
                that do not depend on the old ones. None: it replaced none.
        """
        if self.norm is None:
            raise RuntimeError(_SEVERAL)
        if self.state != _state(self.parameter):
            raise RuntimeError(_OUTDATED)
        root, part, parameter = (t.detach() for t in _plain(root, part, self.parameter))
        if _overlaps(part):
            part, new = root, None
        if self.scale is None:
            sigma = _ratio(parameter, self.norm.evaluated(parameter))
            self.scale = torch.empty_like(root, dtype=sigma.dtype).copy_(sigma)
        shape, stride, offset = part.shape, part.stride(), part.storage_offset()
        offset -= root.storage_offset()
        scale = self.scale.as_strided(shape, stride, offset)
        if new is not None:
            new(scale)
        if parameter.stride() == root.stride():
            offset += parameter.storage_offset()
            parameter.as_strided(shape, stride, offset).copy_(part * scale)
        else:
            parameter.copy_(root * self.scale)
        self.norm.start_again(parameter)
        self.state = _state(self.parameter)
        # In a block of parametrize.cached() the next access would get this very tensor.
        for key, value in list(parametrize._cache.items()):
            if value is not None and _address(value) == _address(root):
                del parametrize._cache[key]


def _ratio(weight: Tensor, normalized: Tensor) -> Tensor:
    """How many times ``normalized`` the weight is, in float32 at least; 1 where both are zero."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    lengths = [torch.linalg.vector_norm(t, dtype=wide) for t in (weight, normalized)]
    ratio = lengths[0] / lengths[1]
    return torch.where(torch.isfinite(ratio) & (ratio > 0), ratio, torch.ones_like(ratio))


def _state(parameter: Tensor) -> tuple[int, int]:
    return parameter._version, parameter.data_ptr()


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

    _from: tuple[parametrize.ParametrizationList, Tensor, tuple[int, int]]
    _found: _Source | None = None

    @property
    def _source(self) -> _Source:
        # Looked up lazily, because few weights are ever written to.
        if self._found is None:
            chain, parameter, state = self._from
            norm = chain._modules["0"] if len(chain._modules) == 1 else None
            self._found = _Source(parameter, norm, state)
        return self._found

    def __format__(self, spec: str) -> str:
        return _plain(self)[0].__format__(spec)

    # Copies and files hold only the values.
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
        # The same memory comes from ``data *= mask``, which has already written.
        if _address(value) != _address(self) or value.stride() != self.stride():
            self.data.copy_(_checked(self, value))

    def has_written_to(self, parameter: Tensor) -> bool:
        source = self._source
        is_of_it = source.parameter is parameter and source.scale is not None
        return is_of_it and source.state == _state(parameter)

    def detach(self) -> Tensor:
        return _tied(Tensor.detach(self), self, ComputedWeight)


class ComputedWeightView(_Weight):
    """A part of a :class:`ComputedWeight`, or its ``.data``: whatever writes to it is passed on.

    Every operator on it passes through here, which takes time. Layers compute with the weight
    itself, which does not.
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
            if "out" in kwargs or getattr(func, "__module__", "") == _INIT:
                name = "copy_"
            if func is Tensor.data.__set__:  # type: ignore[attr-defined]
                func, name = Tensor.copy_, "copy_"
                args = (args[0], _checked(*args))
            versions = [_version(view) for view in views]
            result = func(*args, **kwargs)
            for view, version in zip(views, versions, strict=True):
                # An inference tensor has no version, so the method's name decides.
                wrote = name in _NAMES_OF_WRITES if version is None else _version(view) != version
                if wrote and isinstance(view, _Weight):
                    if view.requires_grad and torch.is_grad_enabled():
                        raise RuntimeError(_NEEDS_NO_GRAD)
                    view._source.written(view._root, view, _new(name, view, args, kwargs))
            return tree_map(lambda value: _as_view(value, views), result)


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _new(
    name: str, weight: _Weight, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[[Tensor], object] | None:
    """What a call of a method ``name`` overwrote, for :meth:`_Source.written`."""
    address = _address(weight)
    if any(isinstance(v, _Weight) and _address(v) == address for v in tree_leaves(args[1:])):
        return None  # as ``w[0] *= 2``, which assigns what it has changed
    if name in _OVERWRITING:
        return lambda ones: ones.fill_(1.0)
    if name in _OVERWRITING_PARTS:
        return lambda ones: _OVERWRITING_PARTS[name](ones, *args[1:], **kwargs)
    return None


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
_OUTDATED = (
    "ganlstm_fast: a write to the weight of a layer with a spectral norm that was computed before "
    "its parameter changed, as by an optimiser's step; read layer.weight again"
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

    ``value`` itself while a graph is traced, and where the chain's tensor is not a parameter, as in
    ``torch.func.functional_call``: nothing there outlives the call and could be written to.
    """
    parameters = chain._parameters
    parameter = parameters.get("original", parameters.get("original0"))
    if (
        type(parameter) is nn.Parameter
        and type(value) is Tensor
        and not torch.compiler.is_compiling()
        and not parameter.is_inference()
    ):
        value.__class__ = ComputedWeight
        value._from = chain, parameter, _state(parameter)  # type: ignore[attr-defined]
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
        self._source.written(_root_of(self), self, _new(name, self, (self, *args), options))
        return result

    method.__name__ = name
    return method


def _viewing(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: ComputedWeight, *args: Any, **options: Any) -> Any:
        value = plain(self, *args, **options)
        if _in_a_forward():
            return value  # temporary, as under torch's parametrization
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


# In-place methods whose result does not depend on the old values.
_OVERWRITING = {
    *("bernoulli_", "cauchy_", "copy_", "exponential_", "fill_", "geometric_", "log_normal_"),
    *("normal_", "random_", "uniform_", "zero_"),
}
# Those for which this holds in a part: the same call, with ones as its values, marks that part.
_OVERWRITING_PARTS: dict[str, Callable[..., object]] = {
    "__setitem__": lambda ones, index, value: ones.__setitem__(index, 1.0),
    "fill_diagonal_": lambda ones, value, wrap=False: ones.fill_diagonal_(1.0, wrap=wrap),
    "index_copy_": lambda ones, dim, index, source: ones.index_fill_(dim, index, 1.0),
    "index_fill_": lambda ones, dim, index, value: ones.index_fill_(dim, index, 1.0),
    "masked_fill_": lambda ones, mask, value: ones.masked_fill_(mask, 1.0),
    "masked_scatter_": lambda ones, mask, source: ones.masked_fill_(mask, 1.0),
}
# In-place methods that change what a tensor is, not its values.
_NOT_WRITING = {
    *("as_strided_", "detach_", "requires_grad_", "resize_", "resize_as_", "resize_as_sparse_"),
    *("set_", "share_memory_", "sparse_resize_", "sparse_resize_and_clear_", "squeeze_"),
    *("swapaxes_", "swapdims_", "t_", "transpose_", "unsqueeze_"),
}
_VIEWING = (
    *("__getitem__", "__iter__", "adjoint", "as_strided", "broadcast_to", "chunk", "diagonal"),
    *("dsplit", "expand", "expand_as", "flatten", "moveaxis"),
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

_NAMES_OF_WRITES = {
    *(name for name in dir(Tensor) if name.endswith("_") and not name.startswith("_")),
    *("__iadd__", "__ifloordiv__", "__imod__", "__imul__", "__ipow__", "__isub__"),
    *("__itruediv__", "__setitem__"),
} - _NOT_WRITING

for _name in _NAMES_OF_WRITES:
    setattr(ComputedWeight, _name, _writing(_name))
for _name in _VIEWING:
    setattr(ComputedWeight, _name, _viewing(_name, getattr(Tensor, _name)))
for _name in ("H", "T", "mH", "mT"):
    setattr(ComputedWeight, _name, property(_viewing(_name, getattr(Tensor, _name).__get__)))

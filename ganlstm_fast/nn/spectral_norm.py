"""Spectral normalisation of a module's weight, and layers that come with it.

Drop-in for ``torch.nn.utils.parametrizations.spectral_norm``: same buffers, same ``state_dict``,
same numbers from the same ``u`` and ``v``.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.common_types import _size_1_t, _size_2_t, _size_3_t
from torch.nn.utils import parametrize
from torch.types import Device

from ganlstm_fast.nn.computed_weight import usable
from ganlstm_fast.nn.conv_norm import OperatorSpectralNorm
from ganlstm_fast.nn.drop_in import NotQuantized
from ganlstm_fast.nn.parametrized import complete
from ganlstm_fast.ops.spectral_norm import reference
from ganlstm_fast.ops.spectral_norm.function import check_options, normalize_and_update
from ganlstm_fast.ops.validation import describe

if TYPE_CHECKING:
    from ganlstm_fast.nn.drop_in import called_as
    from ganlstm_fast.nn.spectral_norm_step import SharedWeights

__all__ = [
    "SNConv1d",
    "SNConv2d",
    "SNConv3d",
    "SNConvTranspose1d",
    "SNConvTranspose2d",
    "SNConvTranspose3d",
    "SNEmbedding",
    "SNLinear",
    "SpectralNorm",
    "remove_spectral_norm",
    "spectral_norm",
]

_INITIAL_ITERATIONS = 15
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

ModuleT = TypeVar("ModuleT", bound=nn.Module)
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class SpectralNorm(nn.Module):
    """The parametrization ``weight -> weight / sigma``; see :func:`spectral_norm`.

    Buffers ``_u`` (h,) and ``_v`` (w,), named as torch names them. They start from random vectors
    and 15 iterations. A vector (one dimension) has no buffers and is divided by its norm.
    """

    _u: Tensor
    _v: Tensor
    _shared: SharedWeights | None = None  # while spectral_norm_step holds

    def __init__(
        self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12
    ) -> None:
        super().__init__()
        self.dim = check_options(weight.dim(), n_power_iterations, eps, dim)
        self.n_power_iterations = n_power_iterations
        self.eps = eps
        if weight.dim() == 1:
            return
        matrix = reference.as_matrix(weight.detach(), self.dim)
        u = F.normalize(matrix.new_empty(matrix.shape[0]).normal_(), dim=0, eps=eps)
        v = F.normalize(matrix.new_empty(matrix.shape[1]).normal_(), dim=0, eps=eps)
        u, v = reference.power_iteration(matrix, u, v, _INITIAL_ITERATIONS, eps)
        self.register_buffer("_u", u.to(weight.dtype))
        self.register_buffer("_v", v.to(weight.dtype))

    def forward(self, weight: Tensor) -> Tensor:
        if weight.dim() == 1:
            return reference.normalize_vector(weight, self.eps)
        if self._shared is not None:
            shared = self._shared.get(self, weight)
            if shared is not None:
                return shared
        return self._normalize(weight, self.n_power_iterations, self.training)

    def start_again(self, weight: Tensor) -> None:
        """Iterate as often as at first, after ``weight`` was written to."""
        if weight.dim() == 1:
            return
        for vector in (self._u, self._v):
            vector.copy_(usable(vector))
        self._normalize(weight, _INITIAL_ITERATIONS, True)

    def evaluated(self, weight: Tensor) -> Tensor:
        """The normalised weight, without another iteration."""
        if weight.dim() == 1:
            return reference.normalize_vector(weight, self.eps)
        return self._normalize(weight, self.n_power_iterations, False)

    def _normalize(self, weight: Tensor, n_power_iterations: int, training: bool) -> Tensor:
        vectors = (self._u,), (self._v,)
        (normalized,) = normalize_and_update(
            (weight,), *vectors, (self.dim,), n_power_iterations, self.eps, training
        )
        return normalized

    def __getstate__(self) -> dict[str, Any]:
        # A copied or loaded layer is outside of any block of spectral_norm_step.
        return {name: value for name, value in self.__dict__.items() if name != "_shared"}

    def right_inverse(self, value: Tensor) -> Tensor:
        return value

    def extra_repr(self) -> str:
        return f"n_power_iterations={self.n_power_iterations}, dim={self.dim}, eps={self.eps}"


def _translate_state(
    name: str,
    module: nn.Module,
    state_dict: MutableMapping[str, Any],
    prefix: str,
    *_: Any,
) -> None:
    """Put what other spectral norms saved under the names of torch's parametrization.

    These are the older ``torch.nn.utils.spectral_norm`` and layers with buffers ``sn_u`` (1, h) and
    ``sn_sigma`` (1,), as those of the mimicry library (torch_mimicry/modules/spectral_norm.py).
    """
    index = _find(module, name)
    if index is None:
        return
    norm = module.parametrizations[name][index]
    if not isinstance(norm, SpectralNorm):
        return
    new = f"{prefix}parametrizations.{name}."
    keys = {"weight": f"{new}original", "u": f"{new}{index}._u", "v": f"{new}{index}._v"}
    old = {"weight": f"{prefix}{name}_orig", "u": f"{prefix}{name}_u", "v": f"{prefix}{name}_v"}
    if all(key in state_dict for key in old.values()):
        for what, key in old.items():
            state_dict[keys[what]] = state_dict.pop(key)
        return
    weight, u = state_dict.get(f"{prefix}{name}"), state_dict.get(f"{prefix}sn_u")
    # These have the rows in dimension 0. If the shapes do not fit, load_state_dict reports it.
    fits = name == "weight" and norm.dim == 0 and isinstance(weight, Tensor) and weight.dim() > 1
    if fits and isinstance(u, Tensor) and u.shape == (1, weight.shape[0]):
        matrix = reference.as_matrix(weight.detach(), 0).to(u.dtype)
        # Half an iteration more than v needs: in eval mode those layers iterate once too, without
        # storing the result, so this gives the same sigma.
        v = F.normalize(torch.mv(matrix.t(), u[0]), dim=0)
        values = {"weight": weight, "u": F.normalize(torch.mv(matrix, v), dim=0), "v": v}
        for key in (name, "sn_u", "sn_sigma"):
            state_dict.pop(prefix + key, None)
        state_dict.update({keys[what]: value for what, value in values.items()})


def _find(module: nn.Module, name: str) -> int | None:
    """The index of our parametrization of ``name``, or None."""
    if not parametrize.is_parametrized(module, name):
        return None
    chain = module.parametrizations[name]
    ours = (SpectralNorm, OperatorSpectralNorm)
    return next((i for i, item in enumerate(chain) if isinstance(item, ours)), None)


def spectral_norm(
    module: ModuleT,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
    *,
    norm: str = "matrix",
    input_size: int | Sequence[int] | None = None,
) -> ModuleT:
    """Divide ``module.<name>`` by its largest singular value, estimated by power iteration.

    ``W_sn = W / (u^T W v)``; in training mode each access of the weight first runs
    ``n_power_iterations`` of ``u = normalize(W v)``, ``v = normalize(W^T u)`` and stores both; in
    eval mode they stay (Miyato et al., 2018). :func:`ganlstm_fast.spectral_norm_step` and
    :func:`torch.nn.utils.parametrize.cached` make the accesses of a block share one iteration.
    The parameter is ``module.parametrizations.<name>.original``. After a write to ``module.<name>``
    in place or to its ``.data`` it is what was written, so that initialisers and
    ``module.reset_parameters()`` work as without a spectral norm; 15 iterations follow at once.
    Differentiable twice; where no kernel runs, to any order.

    Several forwards before one backward, ``retain_graph=True``, an optimiser step between forward
    and a second backward are all fine: no tensor that autograd saved is ever changed.

    ``state_dict`` is that of ``torch.nn.utils.parametrizations.spectral_norm``; one saved by the
    older ``torch.nn.utils.spectral_norm`` loads as well, and one of layers with buffers ``sn_u``
    and ``sn_sigma``, as those of the mimicry library.

    With ``norm="conv"`` the weight of a convolution is divided by the norm of the convolution
    itself, as an operator on inputs of one size (Gouk et al., 2018; Farnia et al., 2019). Divided
    by the norm of the matrix, a convolution can still stretch an input by up to the square root of
    the number of outputs that a pixel enters: 3 for a 3x3 kernel, 2 for 4x4 with stride 2. It is
    the tighter choice and the slower one: an iteration is one pass of the convolution and one of
    its transpose over one input, and converges more slowly, so that sigma stays further below the
    norm; give it more iterations. The bound also holds for smaller inputs, not for larger ones. Any
    stride, dilation, groups and zero padding, transposed too. Its buffers are ``_conv_u``
    (out_channels, *output_size) and ``_conv_v`` (in_channels, *input_size), which torch's
    parametrization does not have.

    Args:
        module: changed in place.
        name: a parameter of ``module`` (float16, bfloat16, float32 or float64).
        n_power_iterations: iterations for each access in training mode.
        eps: floor of the norms.
        dim: dimension of the outputs. None: 1 for transposed convolutions, 0 for anything else.
        norm: ``"matrix"`` or, for the ``weight`` of a convolution, ``"conv"``.
        input_size: with ``norm="conv"``, the inputs' size without batch and channels: (L,), (H, W)
            or (D, H, W).

    Returns:
        ``module``.

    Raises:
        ValueError: no such parameter, one that is not yet initialised, or a wrong option.
        TypeError: the parameter is not of a floating dtype. IndexError: ``dim`` out of range.
        RuntimeError: the parameter has a spectral norm already.
    """
    weight = getattr(module, name, None)
    if isinstance(weight, nn.parameter.UninitializedTensorMixin):  # type: ignore[attr-defined]
        raise ValueError(
            f"name: expected an initialised parameter, got {name!r} of a lazy "
            f"{type(module).__name__}; run one forward first"
        )
    if not isinstance(weight, Tensor):
        raise ValueError(
            f"name: expected a parameter of {type(module).__name__}, got {name!r}, which is "
            f"{describe(weight)}"
        )
    if not weight.is_floating_point():
        raise TypeError(f"name: expected a floating-point parameter, {name!r} is {weight.dtype}")
    if weight.numel() == 0 or weight.dim() == 0:
        raise ValueError(
            f"name: expected a parameter with one dimension and one element or more, {name!r} has "
            f"shape {tuple(weight.shape)}"
        )
    if _find(module, name) is not None:
        raise RuntimeError(f"{name!r} of this {type(module).__name__} has a spectral norm already")
    if norm == "conv":
        if name != "weight":
            raise ValueError(f"name: expected 'weight' with norm='conv', got {name!r}")
        if dim is not None:
            raise ValueError(f"dim: expected None with norm='conv', got {dim!r}")
        conv = OperatorSpectralNorm(module, input_size, n_power_iterations, eps)
        parametrize.register_parametrization(module, name, conv)
        complete(module, name)
        return module
    if norm != "matrix":
        raise ValueError(f"norm: expected 'matrix' or 'conv', got {norm!r}")
    if input_size is not None:
        raise ValueError(f"input_size: expected None with norm='matrix', got {input_size!r}")
    if dim is None:
        dim = 1 if isinstance(module, _TRANSPOSED) else 0
    parametrization = SpectralNorm(weight, n_power_iterations, dim, eps)
    parametrize.register_parametrization(module, name, parametrization)
    module.register_load_state_dict_pre_hook(partial(_translate_state, name))
    complete(module, name)
    return module


def remove_spectral_norm(module: ModuleT, name: str = "weight") -> ModuleT:
    """Undo :func:`spectral_norm`; the normalised weight becomes the parameter.

    The weight is divided by sigma of the stored u and v, without another iteration, in training
    mode too. The Parameter stays the same object, so an optimiser that holds it goes on.

    Raises:
        ValueError: ``name`` has no spectral norm of this library, or others besides it.
    """
    if _find(module, name) is None:
        raise ValueError(
            f"name: expected a parameter with a spectral norm, got {name!r} of "
            f"{type(module).__name__}"
        )
    chain = module.parametrizations[name]
    if len(chain) > 1:
        raise ValueError(
            f"name: {name!r} has {len(chain)} parametrizations; remove them with "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    chain.eval()
    parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return module


# For NotQuantized: torch does not quantize parametrized layers.
_FIRST = "ganlstm_fast.remove_spectral_norm(layer), then "

# An integer, or a tuple of one for each spatial dimension.
Size = TypeVar("Size")


class _SNConv(nn.modules.conv._ConvNd, Generic[Size]):
    """The constructor of the convolutions, before a class of torch in their bases.

    Args:
        n_power_iterations, eps, norm, input_size: as for :func:`spectral_norm`.
        others: as for torch's layer.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size | int = 1,
        padding: str | Size | int = 0,
        dilation: Size | int = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        n_power_iterations: int = 1,
        eps: float = 1e-12,
        norm: str = "matrix",
        input_size: int | Sequence[int] | None = None,
    ) -> None:
        # Type checkers would look at _ConvNd's constructor; the one that runs is torch's layer's.
        torchs: Any = super()
        torchs.__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        spectral_norm(self, "weight", n_power_iterations, eps, norm=norm, input_size=input_size)

    if TYPE_CHECKING:

        def __call__(self, input: Tensor) -> Tensor: ...


class _SNConvTranspose(nn.modules.conv._ConvNd, Generic[Size]):
    """As ``_SNConv``, for transposed convolutions."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size | int = 1,
        padding: Size | int = 0,
        output_padding: Size | int = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size | int = 1,
        padding_mode: PaddingMode = "zeros",
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        n_power_iterations: int = 1,
        eps: float = 1e-12,
        norm: str = "matrix",
        input_size: int | Sequence[int] | None = None,
    ) -> None:
        torchs: Any = super()
        torchs.__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            groups,
            bias,
            dilation,
            padding_mode,
            device,
            dtype,
        )
        spectral_norm(self, "weight", n_power_iterations, eps, norm=norm, input_size=input_size)

    if TYPE_CHECKING:

        def __call__(self, input: Tensor, output_size: list[int] | None = None) -> Tensor: ...


class SNConv1d(_SNConv[_size_1_t], nn.Conv1d):
    """``torch.nn.Conv1d`` with :func:`spectral_norm`."""

    qconfig = NotQuantized("nn.Conv1d", _FIRST)


class SNConv2d(_SNConv[_size_2_t], nn.Conv2d):
    """``torch.nn.Conv2d`` with :func:`spectral_norm`."""

    qconfig = NotQuantized("nn.Conv2d", _FIRST)


class SNConv3d(_SNConv[_size_3_t], nn.Conv3d):
    """``torch.nn.Conv3d`` with :func:`spectral_norm`."""

    qconfig = NotQuantized("nn.Conv3d", _FIRST)


class SNConvTranspose1d(_SNConvTranspose[_size_1_t], nn.ConvTranspose1d):
    """``torch.nn.ConvTranspose1d`` with :func:`spectral_norm` over dimension 1, the outputs."""

    qconfig = NotQuantized("nn.ConvTranspose1d", _FIRST)


class SNConvTranspose2d(_SNConvTranspose[_size_2_t], nn.ConvTranspose2d):
    """``torch.nn.ConvTranspose2d`` with :func:`spectral_norm` over dimension 1, the outputs."""

    qconfig = NotQuantized("nn.ConvTranspose2d", _FIRST)


class SNConvTranspose3d(_SNConvTranspose[_size_3_t], nn.ConvTranspose3d):
    """``torch.nn.ConvTranspose3d`` with :func:`spectral_norm` over dimension 1, the outputs."""

    qconfig = NotQuantized("nn.ConvTranspose3d", _FIRST)


class SNLinear(nn.Linear):
    """``torch.nn.Linear`` with :func:`spectral_norm`."""

    qconfig = NotQuantized("nn.Linear", _FIRST)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        n_power_iterations: int = 1,
        eps: float = 1e-12,
        norm: str = "matrix",
        input_size: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        spectral_norm(self, "weight", n_power_iterations, eps, norm=norm, input_size=input_size)

    if TYPE_CHECKING:

        @called_as(nn.Linear.forward)
        def __call__(self) -> Any: ...


class SNEmbedding(nn.Embedding):
    """``torch.nn.Embedding`` with :func:`spectral_norm`.

    Raises:
        ValueError: ``max_norm``, which would change the normalised weight in place, or ``sparse``,
            since the gradient of a normalised weight is dense.
    """

    qconfig = NotQuantized("nn.Embedding", _FIRST)

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        n_power_iterations: int = 1,
        eps: float = 1e-12,
    ) -> None:
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            _weight,
            _freeze,
            device,
            dtype,
        )
        spectral_norm(self, "weight", n_power_iterations, eps)
        if max_norm is not None:
            raise ValueError(f"max_norm: expected None under spectral norm, got {max_norm}")
        if sparse:
            raise ValueError("sparse: expected False under spectral norm, got True")

    if TYPE_CHECKING:

        @called_as(nn.Embedding.forward)
        def __call__(self) -> Any: ...

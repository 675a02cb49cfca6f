"""Spectral normalisation of a module's weight, and layers that come with it.

Drop-in for ``torch.nn.utils.parametrizations.spectral_norm``: same buffers, same ``state_dict``,
same numbers from the same ``u`` and ``v``.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ganlstm_fast.spectral_norm import check_options, normalize_and_update, reference
from ganlstm_fast.validation import describe

if TYPE_CHECKING:
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


class SpectralNorm(nn.Module):
    """The parametrization ``weight -> weight / sigma``; see :func:`spectral_norm`.

    Buffers ``_u`` (h,) and ``_v`` (w,), named as torch names them. They start from random vectors
    and 15 iterations. A vector (one dimension) has no buffers and is divided by its norm.
    """

    _u: Tensor
    _v: Tensor
    _shared: SharedWeights | None = None  # inside of spectral_norm_step

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
        (normalized,) = normalize_and_update(
            (weight,),
            (self._u,),
            (self._v,),
            (self.dim,),
            self.n_power_iterations,
            self.eps,
            self.training,
        )
        return normalized

    def __getstate__(self) -> dict[str, Any]:
        # A copy, or what is loaded from a file, is in no block of spectral_norm_step.
        return {name: value for name, value in self.__dict__.items() if name != "_shared"}

    def right_inverse(self, value: Tensor) -> Tensor:
        return value

    def extra_repr(self) -> str:
        return f"n_power_iterations={self.n_power_iterations}, dim={self.dim}, eps={self.eps}"


def _rename_old_keys(
    name: str,
    module: nn.Module,
    state_dict: MutableMapping[str, Any],
    prefix: str,
    *_: Any,
) -> None:
    """Rename what ``torch.nn.utils.spectral_norm``, the older one, saved to the newer names."""
    if not parametrize.is_parametrized(module, name):
        return
    new = f"{prefix}parametrizations.{name}."
    names = {"_orig": f"{new}original", "_u": f"{new}0._u", "_v": f"{new}0._v"}
    if all(f"{prefix}{name}{old}" in state_dict for old in names):
        for old, key in names.items():
            state_dict[key] = state_dict.pop(f"{prefix}{name}{old}")


def _find(module: nn.Module, name: str) -> int | None:
    """The index of our parametrization of ``name``, or None."""
    if not parametrize.is_parametrized(module, name):
        return None
    chain = module.parametrizations[name]
    return next((i for i, item in enumerate(chain) if isinstance(item, SpectralNorm)), None)


def spectral_norm(
    module: ModuleT,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> ModuleT:
    """Divide ``module.<name>`` by its largest singular value, estimated by power iteration.

    ``W_sn = W / (u^T W v)``; in training mode each access of the weight first runs
    ``n_power_iterations`` of ``u = normalize(W v)``, ``v = normalize(W^T u)`` and stores both; in
    eval mode they stay (Miyato et al., 2018). :func:`ganlstm_fast.spectral_norm_step` and
    :func:`torch.nn.utils.parametrize.cached` make the accesses of a block share one iteration.
    The weight with a gradient is ``module.parametrizations.<name>.original``: initialise that one.
    Differentiable twice; where no kernel runs, to any order.

    Several forwards before one backward, ``retain_graph=True``, an optimiser step between forward
    and a second backward are all fine: no tensor that autograd saved is ever changed.

    ``state_dict`` is that of ``torch.nn.utils.parametrizations.spectral_norm``; one saved by the
    older ``torch.nn.utils.spectral_norm`` loads as well.

    Args:
        module: changed in place.
        name: a parameter of ``module`` (float16, bfloat16, float32 or float64).
        n_power_iterations: iterations for each access in training mode.
        eps: floor of the norms.
        dim: dimension of the outputs. None: 1 for transposed convolutions, 0 for anything else.

    Returns:
        ``module``.

    Raises:
        ValueError: no such parameter, one that is not yet initialised, or a wrong option.
        TypeError: the parameter is not of a floating dtype. IndexError: ``dim`` out of range.
        RuntimeError: the parameter has a spectral norm already.
    """
    weight = getattr(module, name, None)
    if isinstance(weight, nn.parameter.UninitializedTensorMixin):
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
    if dim is None:
        dim = 1 if isinstance(module, _TRANSPOSED) else 0
    parametrization = SpectralNorm(weight, n_power_iterations, dim, eps)
    parametrize.register_parametrization(module, name, parametrization)
    module.register_load_state_dict_pre_hook(partial(_rename_old_keys, name))
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


class _SpectralNormLayer:
    """Mixed in before a layer of torch: its constructor, then :func:`spectral_norm`.

    Takes the arguments of torch's layer, and ``n_power_iterations`` and ``eps`` by keyword.
    """

    def __init__(
        self, *args: Any, n_power_iterations: int = 1, eps: float = 1e-12, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        spectral_norm(self, "weight", n_power_iterations, eps)


class SNConv1d(_SpectralNormLayer, nn.Conv1d):
    """``torch.nn.Conv1d`` with :func:`spectral_norm`."""


class SNConv2d(_SpectralNormLayer, nn.Conv2d):
    """``torch.nn.Conv2d`` with :func:`spectral_norm`."""


class SNConv3d(_SpectralNormLayer, nn.Conv3d):
    """``torch.nn.Conv3d`` with :func:`spectral_norm`."""


class SNConvTranspose1d(_SpectralNormLayer, nn.ConvTranspose1d):
    """``torch.nn.ConvTranspose1d`` with :func:`spectral_norm` over dimension 1, the outputs."""


class SNConvTranspose2d(_SpectralNormLayer, nn.ConvTranspose2d):
    """``torch.nn.ConvTranspose2d`` with :func:`spectral_norm` over dimension 1, the outputs."""


class SNConvTranspose3d(_SpectralNormLayer, nn.ConvTranspose3d):
    """``torch.nn.ConvTranspose3d`` with :func:`spectral_norm` over dimension 1, the outputs."""


class SNLinear(_SpectralNormLayer, nn.Linear):
    """``torch.nn.Linear`` with :func:`spectral_norm`."""


class SNEmbedding(_SpectralNormLayer, nn.Embedding):
    """``torch.nn.Embedding`` with :func:`spectral_norm`.

    Raises:
        ValueError: ``max_norm``, which would change the normalised weight in place, or ``sparse``,
            since the gradient of a normalised weight is dense.
    """

    def __init__(
        self, *args: Any, n_power_iterations: int = 1, eps: float = 1e-12, **kwargs: Any
    ) -> None:
        super().__init__(*args, n_power_iterations=n_power_iterations, eps=eps, **kwargs)
        if self.max_norm is not None:
            raise ValueError(f"max_norm: expected None under spectral norm, got {self.max_norm}")
        if self.sparse:
            raise ValueError("sparse: expected False under spectral norm, got True")

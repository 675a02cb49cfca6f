"""Spectral normalisation of weights, as functions. The layers are in ``ganlstm_fast.nn``."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from ganlstm_fast.ops.backends import resolve
from ganlstm_fast.ops.functions import without_autocast
from ganlstm_fast.ops.spectral_norm import autograd, reference
from ganlstm_fast.ops.spectral_norm.operators import ForwardArguments
from ganlstm_fast.ops.validation import check_tensor, describe

__all__ = [
    "check_options",
    "normalize_and_update",
    "spectral_normalize",
    "spectral_normalize_group",
]


def check_options(ndim: int, n_power_iterations: int, eps: float, dim: int) -> int:
    """Check the options of a spectral norm and return ``dim`` counted from the front.

    Raises:
        TypeError, ValueError: a wrong ``n_power_iterations`` or ``eps``.
        IndexError: ``dim`` out of range.
    """
    if not isinstance(n_power_iterations, int) or isinstance(n_power_iterations, bool):
        raise TypeError(
            f"n_power_iterations: expected an integer, got {describe(n_power_iterations)}"
        )
    if n_power_iterations <= 0:
        raise ValueError(
            f"n_power_iterations: expected a positive integer, got {n_power_iterations}"
        )
    if not isinstance(eps, (int, float)) or not 0 < eps < math.inf:
        raise ValueError(f"eps: expected a positive number, got {describe(eps)}")
    if not isinstance(dim, int) or not -ndim <= dim < ndim:
        raise IndexError(f"dim: expected a dimension in [{-ndim}, {ndim - 1}], got {describe(dim)}")
    return dim % ndim


def spectral_normalize(
    weight: Tensor,
    u: Tensor,
    v: Tensor,
    *,
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int = 0,
    training: bool = True,
    impl: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """``weight / sigma`` with ``sigma = u^T W v`` after power iteration on ``u`` and ``v``.

    ``W`` is ``weight`` as a matrix (h, w): ``dim`` gives the rows, all else the columns. With
    ``training`` each iteration is ``u = normalize(W v)``, ``v = normalize(W^T u)``, so that sigma
    approaches the largest singular value from below; otherwise u and v are used as they are. For
    autograd u and v are constants (Miyato et al., Spectral Normalization for Generative Adversarial
    Networks, 2018, eq. 12): ``dW = (G - <G, W_sn> u v^T) / sigma``.

    The numbers are those of ``torch.nn.utils.parametrizations.spectral_norm`` with one exception:
    where ``W v`` or ``W^T u`` is zero the vector is kept, and where ``|sigma| <= eps`` the weight
    is divided by 1. A zero weight thus stays zero and has finite gradients; torch gives NaN.

    Args:
        weight: float tensor of two dimensions or more. float16 and bfloat16 are summed in float32.
        u: (h,), v: (w,), of any floating dtype, on the weight's device. Not changed.
        n_power_iterations: number of iterations when ``training``.
        eps: floor of the norms.
        dim: dimension of the outputs; 1 for transposed convolutions.
        training: whether to iterate.
        impl: which implementation runs, see ``ganlstm_fast.ops.backends``.

    Returns:
        The normalised weight (shape and dtype of ``weight``), and u and v after the iterations as
        new tensors without a graph. Nothing that autograd has saved is shared with u or v, so both
        may be overwritten before the backward. Differentiable in ``weight``
        twice, and to any order by the reference; a third derivative of the kernels raises.

    Raises:
        TypeError: an argument that is not a floating-point tensor, or not an integer.
        ValueError: a wrong shape, device or option. IndexError: ``dim`` out of range.
        RuntimeError: ``impl`` does not serve this call.
    """
    dim = _check(weight, u, v, n_power_iterations, eps, dim)
    options = (n_power_iterations, eps, training)
    name = _resolve(impl, weight)
    if name != "reference":
        normalized, new_u, new_v = _fused(name, [weight], [u], [v], [dim], *options)
        return normalized[0], new_u[0], new_v[0]
    return _reference(weight, u, v, dim, *options)


def spectral_normalize_group(
    weights: Sequence[Tensor],
    u: Sequence[Tensor],
    v: Sequence[Tensor],
    *,
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dims: Sequence[int] | None = None,
    training: bool = True,
    impl: str | None = None,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """:func:`spectral_normalize` of a list of weights, which share one launch of the kernels.

    Args:
        weights, u, v: as for :func:`spectral_normalize`, one of each a weight. Shapes, dtypes and
            devices may differ; those of one dtype on one device are computed together.
        dims: dimension of the outputs of each weight; None: 0 for all.
        n_power_iterations, eps, training, impl: as for :func:`spectral_normalize`, for all.

    Returns:
        The normalised weights, u and v, each a list in the order of ``weights``.

    Raises:
        ValueError: lists of different lengths; else as :func:`spectral_normalize`.
    """
    dims = [0] * len(weights) if dims is None else list(dims)
    for name, values in (("u", u), ("v", v), ("dims", dims)):
        if len(values) != len(weights):
            raise ValueError(
                f"{name}: expected {len(weights)} as there are weights, got {len(values)}"
            )
    options = (n_power_iterations, eps, training)
    together: dict[tuple[str, torch.device, torch.dtype], list[int]] = {}
    results: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
    for k, weight in enumerate(weights):
        dims[k] = _check(weight, u[k], v[k], n_power_iterations, eps, dims[k])
        name = _resolve(impl, weight)
        if name != "reference":
            together.setdefault((name, weight.device, weight.dtype), []).append(k)
        else:
            results[k] = _reference(weight, u[k], v[k], dims[k], *options)
    for (name, *_), members in together.items():
        lists = ([values[k] for k in members] for values in (weights, u, v, dims))
        results |= zip(members, zip(*_fused(name, *lists, *options), strict=True), strict=True)
    normalized, new_u, new_v = ([results[k][i] for k in range(len(weights))] for i in range(3))
    return normalized, new_u, new_v


def normalize_and_update(
    weights: Sequence[Tensor],
    u: Sequence[Tensor],
    v: Sequence[Tensor],
    dims: Sequence[int],
    n_power_iterations: int,
    eps: float,
    training: bool,
    keep: bool = False,
) -> Sequence[Tensor]:
    """The normalised weights of layers; with ``training`` their buffers u and v are overwritten.

    Arguments are not checked. The weights are of one dtype on one device. ``keep``: more than one
    backward may come without ``retain_graph``.
    """
    name = _resolve(None, weights[0])
    if name != "reference":
        weights = [w.contiguous() for w in weights]
        given_u, given_v = _readable(name, weights[0], u, v)
        is_readable = given_u is u or all(map(operator.is_, (*given_u, *given_v), (*u, *v)))
        update = training and is_readable and not torch.compiler.is_compiling()
        options = (n_power_iterations, eps, training, name)
        a = ForwardArguments(weights, given_u, given_v, dims, *options)
        normalized, vectors = autograd.spectral_norm_forward(a, update, keep)
        if update or not training:
            return normalized
        new = _vectors(vectors, u, v)
    else:
        options = (n_power_iterations, eps, training)
        lists = zip(weights, u, v, dims, strict=True)
        results = [_reference(w, *vectors, dim, *options) for w, *vectors, dim in lists]
        normalized = [n for n, _, _ in results]
        new = [vector for _, *vectors in results for vector in vectors]
    if training:
        # In place, because DataParallel and DistributedDataParallel keep references to these
        # tensors. Autograd has saved others.
        torch._foreach_copy_([b for pair in zip(u, v, strict=True) for b in pair], new)
    return normalized


def _resolve(impl: str | None, weight: Tensor) -> str:
    return resolve("spectral_norm", impl, weight.device, weight.dtype)


def _check(
    weight: Tensor, u: Tensor, v: Tensor, n_power_iterations: int, eps: float, dim: int
) -> int:
    """Check the arguments of one weight and return ``dim`` counted from the front."""
    check_tensor("weight", weight)
    if weight.dim() < 2:
        raise ValueError(
            f"weight: expected two dimensions or more, got shape {tuple(weight.shape)}"
        )
    dim = check_options(weight.dim(), n_power_iterations, eps, dim)
    if weight.numel() == 0:
        raise ValueError(f"weight: expected at least one element, got shape {tuple(weight.shape)}")
    height = weight.shape[dim]
    for name, vector, size in (("u", u, height), ("v", v, weight.numel() // height)):
        check_tensor(name, vector, (size,))
        if vector.device != weight.device:
            raise ValueError(
                f"{name}: expected device {weight.device} of the weight, got {vector.device}"
            )
    return dim


def _reference(
    weight: Tensor,
    u: Tensor,
    v: Tensor,
    dim: int,
    n_power_iterations: int,
    eps: float,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    with without_autocast(weight.device.type):
        return reference.spectral_normalize(
            weight,
            u,
            v,
            n_power_iterations=n_power_iterations,
            eps=eps,
            dim=dim,
            training=training,
        )


def _fused(
    impl: str,
    weights: Sequence[Tensor],
    u: Sequence[Tensor],
    v: Sequence[Tensor],
    dims: Sequence[int],
    n_power_iterations: int,
    eps: float,
    training: bool,
) -> tuple[Sequence[Tensor], list[Tensor], list[Tensor]]:
    weights = [w.contiguous() for w in weights]
    given_u, given_v = _readable(impl, weights[0], u, v)
    options = (n_power_iterations, eps, training, impl)
    a = ForwardArguments(weights, given_u, given_v, dims, *options)
    normalized, vectors = autograd.spectral_norm_forward(a)
    new = _vectors(vectors, u, v)
    # Copies, so that a caller who changes what was returned does not change what was saved.
    return normalized, *(
        [n.to(t.dtype, copy=True) for n, t in zip(values, given, strict=True)]
        for values, given in ((new[0::2], u), (new[1::2], v))
    )


def _readable(impl: str, weight: Tensor, *vectors: Sequence[Tensor]) -> Sequence[Sequence[Tensor]]:
    """A GPU's kernels take them contiguous, in the dtype of the weight or in that of the sums."""
    if not (weight.is_cuda or impl == "triton"):
        return vectors
    wide = torch.promote_types(weight.dtype, torch.float32)
    dtypes = (weight.dtype, wide)
    return [[(t if t.dtype in dtypes else t.to(wide)).contiguous() for t in v] for v in vectors]


def _vectors(vectors: Tensor, u: Sequence[Tensor], v: Sequence[Tensor]) -> Sequence[Tensor]:
    """u and v of the first weight, of the second, ... out of what the operator returned."""
    sizes = [t.numel() for pair in zip(u, v, strict=True) for t in pair]
    return vectors.split_with_sizes([*sizes, len(u)])[:-1]

"""Spectral normalisation of one weight, as a function. The layers are in ``ganlstm_fast.nn``."""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor

from ganlstm_fast.backends import resolve
from ganlstm_fast.spectral_norm import reference
from ganlstm_fast.validation import check_tensor, describe

__all__ = ["check_options", "spectral_normalize"]


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
    if not isinstance(eps, (int, float)) or not (eps > 0 and math.isfinite(eps)):
        raise ValueError(f"eps: expected a positive number, got {describe(eps)}")
    if not isinstance(dim, int) or not -ndim <= dim < ndim:
        raise IndexError(f"dim: expected a dimension in [{-ndim}, {ndim - 1}], got {describe(dim)}")
    return dim % ndim


def _without_autocast(device: str) -> contextlib.AbstractContextManager[None]:
    """Autocast would run the products in 16 bits, where sigma loses all but 3 digits."""
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()  # the meta device


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
        impl: which implementation runs, see ``ganlstm_fast.backends``.

    Returns:
        The normalised weight (shape and dtype of ``weight``), and u and v after the iterations as
        new tensors without a graph. Nothing that autograd has saved is shared with u or v, so both
        may be overwritten before the backward. Differentiable in ``weight`` to any order.

    Raises:
        TypeError: an argument that is not a floating-point tensor, or not an integer.
        ValueError: a wrong shape, device or option. IndexError: ``dim`` out of range.
        RuntimeError: ``impl`` does not serve this call.
    """
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
    resolve("spectral_norm", impl, weight.device.type, weight.dtype)
    with _without_autocast(weight.device.type):
        return reference.spectral_normalize(
            weight,
            u,
            v,
            n_power_iterations=n_power_iterations,
            eps=eps,
            dim=dim,
            training=training,
        )

"""Spectral normalisation in plain PyTorch: the ground truth, differentiable to any order."""

from __future__ import annotations

import torch
from torch import Tensor


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """``weight`` with ``dim`` in front and the other dimensions, in their order, flattened."""
    return weight.movedim(dim, 0).flatten(1)


def _direction(product: Tensor, before: Tensor, eps: float) -> Tensor:
    """``product`` normalised; ``before`` where the product is zero and has no direction."""
    norm = torch.linalg.vector_norm(product)
    return torch.where(norm > 0, product / norm.clamp_min(eps), before)


def _divisor(sigma: Tensor, eps: float) -> Tensor:
    return torch.where(sigma.abs() > eps, sigma, torch.ones_like(sigma))


@torch.no_grad()
def power_iteration(
    matrix: Tensor, u: Tensor, v: Tensor, n_power_iterations: int, eps: float
) -> tuple[Tensor, Tensor]:
    """``n_power_iterations`` times ``u = normalize(W v)``, ``v = normalize(W^T u)``.

    Args:
        matrix: W, (h, w).
        u: (h,), used only where ``W v`` is zero.
        v: (w,).
        eps: ``normalize(x)`` is ``x / max(||x||, eps)``; a zero product keeps the vector it had.

    Returns:
        New tensors u (h,) and v (w,) without a graph, in float32 at least.
    """
    wide = torch.promote_types(matrix.dtype, torch.float32)
    matrix, u, v = matrix.to(wide), u.to(wide), v.to(wide)
    for _ in range(n_power_iterations):
        u = _direction(torch.mv(matrix, v), u, eps)
        v = _direction(torch.mv(matrix.t(), u), v, eps)
    return u, v


def spectral_normalize(
    weight: Tensor,
    u: Tensor,
    v: Tensor,
    *,
    n_power_iterations: int,
    eps: float,
    dim: int,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See ``spectral_normalize`` of function.py; arguments are not checked here."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    weight_wide = weight.to(wide)
    matrix = as_matrix(weight_wide, dim)
    if training:
        new_u, new_v = power_iteration(matrix, u, v, n_power_iterations, eps)
    else:
        # Autograd saves these two: they must not be the buffers, which the next call changes.
        new_u, new_v = u.detach().to(wide, copy=True), v.detach().to(wide, copy=True)
    sigma = torch.dot(new_u, torch.mv(matrix, new_v))
    normalized = (weight_wide / _divisor(sigma, eps)).to(weight.dtype)
    # Copies, so that a caller who changes what was returned does not change what was saved.
    return normalized, new_u.to(u.dtype, copy=True), new_v.to(v.dtype, copy=True)


def normalize_vector(weight: Tensor, eps: float) -> Tensor:
    """``w / ||w||``, the spectral normalisation of a vector; ``w`` where ``||w|| <= eps``."""
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    square = wide.square().sum()
    # sqrt has no derivative at 0, so it gets a 1 there, and `where` does not take that value.
    norm = torch.where(square > 0, square, torch.ones_like(square)).sqrt()
    norm = torch.where(square > 0, norm, torch.zeros_like(norm))
    return (wide / _divisor(norm, eps)).to(weight.dtype)

"""Weights under spectral norm, run to second order by any implementation and by torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils import parametrizations

from ganlstm_fast.ops.spectral_norm.function import spectral_normalize_group


def inputs(shape, dim, dtype=torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """A weight, u and v whose values are exact in ``dtype``."""
    weight = torch.randn(shape).to(dtype)
    rows = shape[dim]
    u, v = torch.randn(rows), torch.randn(weight.numel() // rows)
    return weight, (u / u.norm()).to(dtype), (v / v.norm()).to(dtype)


def three_orders(weights, u, v, dims, grads, cotangents, impl, **options):
    """Outputs; first-order gradients; second-order ones, for the weights and the cotangents."""
    weights = [w.detach().requires_grad_() for w in weights]
    grads = [g.detach().requires_grad_() for g in grads]
    options = {"dims": dims, "impl": impl, **options}
    normalized, new_u, new_v = spectral_normalize_group(weights, u, v, **options)
    first = torch.autograd.grad(normalized, weights, grads, create_graph=True)
    second = torch.autograd.grad(first, [*weights, *grads], cotangents)
    return [*normalized, *new_u, *new_v], list(first), list(second)


def torchs(weight, u, v, dim, grad, cotangent, training, iterations):
    """The same of torch's parametrization, in the dtype of ``weight``."""
    rival = parametrizations._SpectralNorm(weight, iterations, dim).train(training)
    rival.load_state_dict({"_u": u, "_v": v})
    weight, grad = (t.detach().requires_grad_() for t in (weight, grad))
    out = rival(weight)
    (first,) = torch.autograd.grad(out, weight, grad, create_graph=True)
    second = torch.autograd.grad(first, [weight, grad], cotangent)
    return [out, rival._u, rival._v], [first], list(second)

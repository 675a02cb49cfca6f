"""Weights under spectral norm, run to second order by any implementation and by torch."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils import parametrizations

from ganlstm_fast.ops.spectral_norm import reference
from ganlstm_fast.ops.spectral_norm.function import spectral_normalize_group

# Shapes and the dimension of the outputs: of many parts, of one, transposed, and a matrix of one
# row or column.
WEIGHTS = [
    *(((64, 3, 4, 4), 0), ((33, 17, 3, 3), 0), ((6, 9, 4, 4), 1), ((9, 40), 1), ((40, 300), 0)),
    *(((300, 9), 0), ((1, 50), 0), ((50, 1), 0), ((120, 90), 0)),
]
EPS = 1e-12


def draw(weights: list[tuple[tuple[int, ...], int]], dtype: torch.dtype) -> SimpleNamespace:
    """Weights W, vectors u and v, cotangents G of the forward and V of the backward."""

    def like(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, dtype=torch.float64).to(dtype)

    shapes, dims = [shape for shape, _ in weights], [dim for _, dim in weights]
    w, g, v_weight = ([like(shape) for shape in shapes] for _ in range(3))
    u, v = [], []
    for weight, dim in zip(w, dims, strict=True):
        matrix = reference.as_matrix(weight.double(), dim)
        start = normalize(torch.randn(matrix.shape[1], dtype=torch.float64), dim=0)
        vectors = reference.power_iteration(matrix, start.new_zeros(matrix.shape[0]), start, 1, EPS)
        for values, vector in zip((u, v), vectors, strict=True):
            values.append(vector.to(dtype))
    return SimpleNamespace(w=w, u=u, v=v, g=g, v_weight=v_weight, dims=dims)


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

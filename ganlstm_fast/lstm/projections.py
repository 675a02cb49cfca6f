"""What is parallel in time in an LSTM's passes: one matrix product before or after the loop.

Shapes: T steps, B rows, D directions, I inputs, H hidden units. Products of 16-bit numbers are
summed, and returned, in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def by_direction(weights: Sequence[Tensor], directions: int, kind: int) -> Tensor:
    """(D, ...): weight_ih, weight_hh, bias_ih or bias_hh (kind 0 to 3) of all directions."""
    return torch.stack(list(weights[kind :: len(weights) // directions]))


def multiply(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype.itemsize > 2:
        return a @ b
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()


def project(x: Tensor, weight: Tensor) -> Tensor:
    """x (T, B, I) times weight (D, 4H, I) transposed: (T, B, D, 4H)."""
    product = multiply(x.flatten(0, 1), weight.flatten(0, 1).t())
    return product.view(*x.shape[:2], *weight.shape[:2])


def project_states(states: Tensor, weight: Tensor) -> Tensor:
    """states (T, B, D, K) times weight (D, K, N) for each direction: (T, B, D, N)."""
    products = [
        multiply(states[:, :, d].flatten(0, 1), w).view(*states.shape[:2], -1)
        for d, w in enumerate(weight)
    ]
    return torch.stack(products, 2)


def before(states: Tensor, initial: Tensor | None, lengths: Tensor | None) -> Tensor:
    """Of states (T, B, D, H), those of the step before in each direction; ``initial`` (D, B, H).

    After a sequence's end the result is 0 or the state there, which is 0.
    """
    result = torch.zeros_like(states)
    result[1:, :, 0] = states[:-1, :, 0]
    if initial is not None:
        result[0, :, 0] = initial[0]
    if states.size(2) == 2:
        result[:-1, :, 1] = states[1:, :, 1]
        if initial is not None and lengths is None:
            result[-1, :, 1] = initial[1]
        elif initial is not None:
            rows = torch.arange(states.size(1), device=states.device)
            result[lengths - 1, rows, 1] = initial[1]
    return result


def valid_inputs(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x with 0 after each sequence's end, where it may hold anything: 0 times NaN is NaN."""
    if lengths is None:
        return x
    steps = torch.arange(x.size(0), device=x.device)[:, None, None]
    return torch.where(steps < lengths[None, :, None], x, 0)


def outer(dz: Tensor, columns: Tensor) -> Tensor:
    """The sum over all steps of dz^T columns, of (T, B, N) and (T, B, K): (N, K)."""
    return multiply(dz.flatten(0, 1).t(), columns.flatten(0, 1))

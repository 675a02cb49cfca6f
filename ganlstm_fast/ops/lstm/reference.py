"""The LSTM in plain PyTorch: the ground truth of the kernels, differentiable to any order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def lstm(
    x: Tensor,
    weights: Sequence[Sequence[Tensor]],
    h0: Tensor,
    c0: Tensor,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One LSTM layer over a sequence, in one or two directions.

    The gates are in the order i, f, g, o of ``torch.nn.LSTM`` (Hochreiter and Schmidhuber 1997,
    with the forget gate of Gers et al. 2000)::

        z = x_t W^T + h_{t-1} R^T + b;  i, f, o = sigmoid(z_i, z_f, z_o);  g = tanh(z_g)
        c_t = f c_{t-1} + i g;  h_t = o tanh(c_t)  [P^T]

    Args:
        x: (T, B, I).
        weights: for each of the D directions ``weight_ih`` (4H, I), ``weight_hh`` (4H, P),
            optionally ``bias_ih`` and ``bias_hh`` (4H,), optionally ``weight_hr`` (P, H); P = H
            without it.
        h0: (D, B, P).
        c0: (D, B, H).
        lengths: (B,) integers in 1..T, or None for T. After its length a sequence's state does not
            change and its output is 0. The second direction starts at the last valid step.

    Returns:
        y (T, B, D*P), h_T (D, B, P), c_T (D, B, H).
    """
    if lengths is not None:
        # What comes after the end may be NaN, which a product with a zero gradient would pass on.
        steps = torch.arange(x.size(0), device=x.device).unsqueeze(1)
        valid = (steps < lengths.to(x.device)).unsqueeze(-1)
        x = torch.where(valid, x, torch.zeros_like(x))
    outputs, last_h, last_c = [], [], []
    for direction, of_direction in enumerate(weights):
        y, h, c = _one_direction(
            x, of_direction, h0[direction], c0[direction], lengths, reverse=direction == 1
        )
        outputs.append(y)
        last_h.append(h)
        last_c.append(c)
    return torch.cat(outputs, -1), torch.stack(last_h), torch.stack(last_c)


def _one_direction(
    x: Tensor,
    weights: Sequence[Tensor],
    h: Tensor,
    c: Tensor,
    lengths: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    weight_ih, weight_hh, *rest = weights
    biases = [w for w in rest if w.dim() == 1]
    projection = next((w for w in rest if w.dim() == 2), None)
    projected = torch.nn.functional.linear(x, weight_ih)
    for bias in biases:
        projected = projected + bias
    steps = range(x.size(0))
    outputs: list[Tensor] = [x] * len(steps)
    for t in reversed(steps) if reverse else steps:
        h_new, c_new = _cell(projected[t] + h @ weight_hh.t(), c)
        if projection is not None:
            h_new = h_new @ projection.t()
        if lengths is None:
            h, c = h_new, c_new
            outputs[t] = h
        else:
            valid = (t < lengths.to(x.device)).unsqueeze(-1)
            h, c = torch.where(valid, h_new, h), torch.where(valid, c_new, c)
            outputs[t] = torch.where(valid, h_new, torch.zeros_like(h_new))
    return torch.stack(outputs), h, c


def _cell(z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    z_i, z_f, z_g, z_o = z.chunk(4, -1)
    c = z_f.sigmoid() * c + z_i.sigmoid() * z_g.tanh()
    return z_o.sigmoid() * c.tanh(), c

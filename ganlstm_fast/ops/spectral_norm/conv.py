"""The norm of a convolution as an operator on inputs of one size, in plain PyTorch.

Spectral norm in the sense of Miyato et al. (2018) is that of the weight as a matrix (outputs,
inputs * kernel), which differs from what the convolution does by a factor that depends on kernel,
stride and padding. Here it is that of the linear map itself, by power iteration through the
convolution and its transpose (Gouk et al., Regularisation of Neural Networks by Enforcing Lipschitz
Continuity, 2018; Farnia et al., Generalizable Adversarial Training via Spectral Normalization,
2019; asked for in pytorch #99149).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlstm_fast.ops.spectral_norm import reference
from ganlstm_fast.ops.validation import describe

__all__ = ["Convolution", "power_iteration", "spectral_normalize"]

_KINDS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


@dataclass(frozen=True)
class Convolution:
    """What the operator of a convolution has besides the weight; see :meth:`of`."""

    input_shape: tuple[int, ...]  # (channels, *size)
    output_shape: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]  # on both sides
    extra_padding: tuple[int, ...]  # at the end besides, for padding="same" and an even kernel
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, module: nn.Module, input_size: Any) -> Convolution:
        """The geometry of ``module`` for inputs (B, channels, *input_size).

        Raises:
            ValueError: not one of torch's convolutions, a padding mode other than zeros, or an
                input size of the wrong length, not positive, or too small for the kernel.
            TypeError: an input size that is not a tuple of integers.
        """
        if not isinstance(module, _KINDS):
            raise ValueError(
                "norm: expected 'matrix' for anything but a convolution, got 'conv' for "
                f"{type(module).__name__}"
            )
        if module.padding_mode != "zeros":
            raise ValueError(
                f"norm: 'conv' expects padding_mode='zeros', got {module.padding_mode!r}; use "
                "norm='matrix'"
            )
        size = _check_size(input_size, len(module.kernel_size))
        # Also of padding="same" and "valid"; in the order of F.pad, the last dimension first.
        pairs = module._reversed_padding_repeated_twice
        before, after = tuple(pairs[-2::-2]), tuple(pairs[::-2])
        geometry = cls(
            input_shape=(module.in_channels, *size),
            output_shape=(),
            stride=tuple(module.stride),
            padding=before,
            extra_padding=tuple(a - b for a, b in zip(after, before, strict=True)),
            dilation=tuple(module.dilation),
            transposed=module.transposed,
            output_padding=tuple(module.output_padding),
            groups=module.groups,
        )
        output = tuple(map(geometry._output_size, range(len(size)), size, module.kernel_size))
        if min(output) < 1:
            raise ValueError(
                f"input_size: expected a size that the kernel {tuple(module.kernel_size)} fits "
                f"into, got {size}"
            )
        return replace(geometry, output_shape=(module.out_channels, *output))

    def _output_size(self, axis: int, size: int, kernel: int) -> int:
        reach = self.dilation[axis] * (kernel - 1) + 1 - 2 * self.padding[axis]
        if self.transposed:
            return (size - 1) * self.stride[axis] + reach + self.output_padding[axis]
        return (size + self.extra_padding[axis] - reach) // self.stride[axis] + 1

    def forward(self, weight: Tensor, x: Tensor) -> Tensor:
        """The convolution of ``x``, of ``input_shape``, to ``output_shape``; without bias."""
        return self._convolve(self._pad(x), weight, self.transposed, self.output_padding)

    def transpose(self, weight: Tensor, y: Tensor) -> Tensor:
        """The transpose of :meth:`forward`: ``<y, forward(x)> = <transpose(y), x>``."""
        rest = (0,) * len(self.stride)
        if not self.transposed:
            # What a stride leaves over at the end of the padded input.
            rest = tuple(
                (size + self.extra_padding[axis] + 2 * self.padding[axis])
                - ((y.shape[1 + axis] - 1) * self.stride[axis])
                - (self.dilation[axis] * (weight.shape[2 + axis] - 1) + 1)
                for axis, size in enumerate(self.input_shape[1:])
            )
        x = self._convolve(y, weight, not self.transposed, rest)
        # Longer than the input by the extra padding, or, for an output_padding above the stride,
        # by outputs that no input reaches.
        for axis, size in enumerate(self.input_shape[1:], start=1):
            x = x.narrow(axis, 0, size)
        return x

    def _pad(self, x: Tensor) -> Tensor:
        if not any(self.extra_padding):
            return x
        return F.pad(x, [n for extra in reversed(self.extra_padding) for n in (0, extra)])

    def _convolve(
        self, x: Tensor, weight: Tensor, transposed: bool, output_padding: tuple[int, ...]
    ) -> Tensor:
        return torch.convolution(
            x.unsqueeze(0),
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            transposed,
            output_padding,
            self.groups,
        ).squeeze(0)


def _check_size(input_size: Any, ndim: int) -> tuple[int, ...]:
    if isinstance(input_size, int) and not isinstance(input_size, bool) and ndim == 1:
        input_size = (input_size,)
    if not isinstance(input_size, (tuple, list)) or not all(
        isinstance(n, int) and not isinstance(n, bool) for n in input_size
    ):
        raise TypeError(
            f"input_size: expected a tuple of {ndim} integers with norm='conv', got "
            f"{describe(input_size)}"
        )
    if len(input_size) != ndim or min(input_size) < 1:
        raise ValueError(f"input_size: expected {ndim} positive integers, got {tuple(input_size)}")
    return tuple(input_size)


@torch.no_grad()
def power_iteration(
    weight: Tensor, u: Tensor, v: Tensor, conv: Convolution, n_power_iterations: int, eps: float
) -> tuple[Tensor, Tensor]:
    """``n_power_iterations`` times ``u = normalize(A v)``, ``v = normalize(A^T u)``.

    Args:
        weight: of the convolution. ``A`` is the convolution with it.
        u: ``conv.output_shape``, used only where ``A v`` is zero.
        v: ``conv.input_shape``.
        eps: floor of the norms.

    Returns:
        New tensors u and v without a graph, in float32 at least.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    weight, u, v = weight.to(wide), u.to(wide), v.to(wide)
    for _ in range(n_power_iterations):
        u = reference._direction(conv.forward(weight, v), u, eps)
        v = reference._direction(conv.transpose(weight, u), v, eps)
    return u, v


def spectral_normalize(
    weight: Tensor,
    u: Tensor,
    v: Tensor,
    conv: Convolution,
    *,
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    training: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """``weight / sigma`` with ``sigma = <u, A v>``, ``A`` the convolution with ``weight``.

    As ``spectral_normalize`` of function.py with another operator: ``u`` is of
    ``conv.output_shape``, ``v`` of ``conv.input_shape``; with ``training`` both are iterated
    first; for autograd they are constants, ``d sigma = <u, (dA) v>``; differentiable in ``weight``
    to any order. A zero weight stays zero. float16 and bfloat16 are summed in float32, without
    autocast; on a GPU cuDNN's TF32 setting for convolutions applies.

    Returns:
        The normalised weight, and u and v after the iterations as new tensors without a graph,
        which may be overwritten before the backward.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    weight_wide = weight.to(wide)
    if training:
        new_u, new_v = power_iteration(weight, u, v, conv, n_power_iterations, eps)
    else:
        # Autograd saves these two: they must not be the buffers, which the next call changes.
        new_u, new_v = u.detach().to(wide, copy=True), v.detach().to(wide, copy=True)
    sigma = (new_u * conv.forward(weight_wide, new_v)).sum()
    normalized = (weight_wide / reference._divisor(sigma, eps)).to(weight.dtype)
    return normalized, new_u.to(u.dtype, copy=True), new_v.to(v.dtype, copy=True)

"""The parametrization behind ``spectral_norm(..., norm="conv")``."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlstm_fast.nn.computed_weight import usable
from ganlstm_fast.ops.functions import without_autocast
from ganlstm_fast.ops.spectral_norm import conv as conv_ops
from ganlstm_fast.ops.spectral_norm.function import check_options

__all__ = ["OperatorSpectralNorm"]

_INITIAL_ITERATIONS = 15


# The name must not contain "Conv": DCGAN's weights_init treats every such module as a convolution.
class OperatorSpectralNorm(nn.Module):
    """The parametrization ``weight -> weight / sigma``, sigma being the norm of the convolution.

    Buffers ``_conv_u`` (out_channels, *output_size) and ``_conv_v`` (in_channels, *input_size), in
    the weight's dtype: not ``_u`` and ``_v``, so that a state_dict of the norm of the matrix is
    refused, with the names of the keys, and never half loaded. They start from random tensors and
    15 iterations. See :func:`ganlstm_fast.spectral_norm` for the arguments.
    """

    _conv_u: Tensor
    _conv_v: Tensor

    def __init__(
        self,
        module: nn.Module,
        input_size: Any,
        n_power_iterations: int = 1,
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        self.conv = conv_ops.Convolution.of(module, input_size)
        weight = module.weight.detach()
        check_options(weight.dim(), n_power_iterations, eps, 0)
        self.n_power_iterations = n_power_iterations
        self.eps = eps
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
        u, v = (
            F.normalize(wide.new_empty(shape).normal_().flatten(), dim=0).view(shape)
            for shape in (self.conv.output_shape, self.conv.input_shape)
        )
        with without_autocast(weight.device.type):
            u, v = conv_ops.power_iteration(wide, u, v, self.conv, _INITIAL_ITERATIONS, eps)
        self.register_buffer("_conv_u", u.to(weight.dtype))
        self.register_buffer("_conv_v", v.to(weight.dtype))

    def forward(self, weight: Tensor) -> Tensor:
        return self._normalize(weight, self.n_power_iterations, self.training)

    def start_again(self, weight: Tensor) -> None:
        """Iterate as often as at first, after ``weight`` was written to."""
        for vector in (self._conv_u, self._conv_v):
            vector.copy_(usable(vector))
        self._normalize(weight, _INITIAL_ITERATIONS, True)

    def evaluated(self, weight: Tensor) -> Tensor:
        """The normalised weight, without another iteration."""
        return self._normalize(weight, self.n_power_iterations, False)

    def _normalize(self, weight: Tensor, n_power_iterations: int, training: bool) -> Tensor:
        with without_autocast(weight.device.type):
            normalized, u, v = conv_ops.spectral_normalize(
                weight,
                self._conv_u,
                self._conv_v,
                self.conv,
                n_power_iterations=n_power_iterations,
                eps=self.eps,
                training=training,
            )
        if training:
            # In place, as SpectralNorm does, and for the same reasons.
            with torch.no_grad():
                self._conv_u.copy_(u)
                self._conv_v.copy_(v)
        return normalized

    def right_inverse(self, value: Tensor) -> Tensor:
        return value

    def extra_repr(self) -> str:
        return (
            f"n_power_iterations={self.n_power_iterations}, eps={self.eps}, "
            f"input_size={self.conv.input_shape[1:]}"
        )

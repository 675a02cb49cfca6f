"""An LSTM whose weights have a spectral norm."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn
from torch.types import Device

from ganlstm_fast.nn.lstm import FastLSTM
from ganlstm_fast.nn.spectral_norm import spectral_norm

__all__ = ["SNLSTM", "spectral_norm_lstm"]

LSTMT = TypeVar("LSTMT", bound=nn.LSTM)


def spectral_norm_lstm(lstm: LSTMT, n_power_iterations: int = 1, eps: float = 1e-12) -> LSTMT:
    """:func:`spectral_norm` on each ``weight_ih`` and ``weight_hh``, in place; returns ``lstm``."""
    for name in list(lstm._flat_weights_names):
        if name.startswith(("weight_ih", "weight_hh")):
            spectral_norm(lstm, name, n_power_iterations, eps)
    return lstm


class SNLSTM(FastLSTM):
    """``FastLSTM`` with :func:`spectral_norm` on each ``weight_ih`` and ``weight_hh``.

    Each of them, the four gates' rows together (4H, I or H), is divided by its largest singular
    value, for every layer and direction; biases and the projection of ``proj_size`` are not
    (Miyato et al., Spectral Normalization for Generative Adversarial Networks, 2018). In training
    mode a forward runs ``n_power_iterations`` for each weight, once. A torch.nn.LSTM under torch's
    parametrization runs two to four times as many, since its forward reads each weight several
    times; inside ``torch.nn.utils.parametrize.cached()`` both run the same and have the same
    numbers.

    ``state_dict`` is that of a ``torch.nn.LSTM`` with
    ``torch.nn.utils.parametrizations.spectral_norm`` on the same weights. First and second order
    gradients are those of ``FastLSTM``; shapes, dtypes and errors too.

    Args:
        n_power_iterations: iterations for each forward in training mode.
        eps: floor of the norms.
        others: as for ``FastLSTM``.

    Raises:
        TypeError, ValueError: a wrong ``n_power_iterations`` or ``eps``, or as ``FastLSTM`` does.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        recompute: bool = False,
        impl: str | None = None,
        n_power_iterations: int = 1,
        eps: float = 1e-12,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
            recompute=recompute,
            impl=impl,
        )
        spectral_norm_lstm(self, n_power_iterations, eps)

"""The averaged weights that samples are drawn from."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class WeightAverage(nn.Module):
    """The exponential moving average of a module's weights; the first update copies them.

    In update t the decay is ``min(decay, (1 + t) / (10 + t))``, as in TensorFlow's
    ``ExponentialMovingAverage`` with ``num_updates``. So in a short run the average spans about the
    last ninth. A fixed decay would still hold the useless first weights.

    The ``state_dict`` is that of torch's ``AveragedModel``. That class is not used because it keeps
    its count in a tensor, and reading it makes a GPU finish all its work in every step.

    Attributes:
        module: a copy of the module, with the averaged weights. Its buffers are the latest.
        count: how many times it has been updated.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(module)
        self.decay = decay
        self.count = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the weights that ``module`` now has."""
        averages, weights = list(self.module.parameters()), list(module.parameters())
        if self.count:
            decay = min(self.decay, (1 + self.count) / (10 + self.count))
            torch._foreach_lerp_(averages, weights, 1 - decay)
        else:
            torch._foreach_copy_(averages, weights)
        for own, buffer in zip(self.module.buffers(), module.buffers(), strict=True):
            own.copy_(buffer)
        self.count += 1

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}n_averaged"] = torch.tensor(self.count)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        self.count = int(state_dict.pop(f"{prefix}n_averaged"))
        super()._load_from_state_dict(state_dict, prefix, *rest)

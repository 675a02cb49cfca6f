"""Adam, without loading torch._dynamo."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ganlstm_fast.training.config import Settings


class Adam(torch.optim.Adam):
    """torch's Adam: the same numbers, and the same ``state_dict``.

    torch wraps these methods so that torch.compile leaves them alone. The wrappers load
    torch._dynamo at their first call, which takes nearly as long as loading torch. Nothing is
    compiled here, so the methods need no wrapper.
    """

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))

    def _accelerator_graph_capture_health_check(self) -> None:
        # torch queries the GPU even if all weights are on the CPU. That starts a working GPU for
        # nothing, and with a broken one it ends the run.
        if self.param_groups[0]["params"][0].is_cuda:
            super()._accelerator_graph_capture_health_check()


def adam(module: nn.Module, config: Settings, lr: float, **options: Any) -> Adam:
    """Adam for all weights of ``module``; the options are those of ``torch.optim.Adam``."""
    # Fabric cannot clip gradients that a fused optimiser would scale itself.
    return Adam(module.parameters(), lr, fused=config.precision != "16-mixed", **options)

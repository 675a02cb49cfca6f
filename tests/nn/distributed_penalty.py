"""One of two processes: python distributed_penalty.py ddp|ddp-sn|ddp-accelerated|fsdp RANK STORE.

Each takes half a batch through a gradient penalty; the averaged gradients must be those of one
process with the whole batch. ddp-sn has a spectral norm, whose buffers rank 0 broadcasts;
ddp-accelerated has torch's layers, converted inside DistributedDataParallel.
"""

from __future__ import annotations

import copy
import os
import sys

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from ganlstm_fast import SNLSTM, FastLSTM, accelerate, gradient_penalty

LAYERS = {"ddp-sn": SNLSTM, "ddp-accelerated": nn.LSTM}


class Critic(nn.Module):
    def __init__(self, lstm: type[nn.LSTM]) -> None:
        super().__init__()
        self.lstm = lstm(3, 8, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0]).mean((1, 2))


def loss(critic: nn.Module, x: Tensor) -> Tensor:
    return gradient_penalty(critic, x, kind="r1", lambda_=10.0) + critic(x).mean()


def main(wrapper: str, rank: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    critic = Critic(LAYERS.get(wrapper, FastLSTM))
    if wrapper == "ddp-accelerated":
        spectral_norm(critic.head)
    single, whole = copy.deepcopy(critic), torch.randn(8, 5, 3)
    accelerate(single)
    loss(single, whole).backward()
    expected = [p.grad for p in single.parameters()]

    half = whole[4 * rank : 4 * rank + 4]
    if wrapper == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        wrapped = fully_shard(
            critic, mesh=init_device_mesh("cpu", (2,)), reshard_after_forward=False
        )
    else:
        wrapped = nn.parallel.DistributedDataParallel(critic)
        if wrapper == "ddp-accelerated":
            report = accelerate(wrapped)
            assert [c.module for c in report.changed] == ["module.lstm", "module.head"], report
        if rank == 1:
            for buffer in critic.buffers():
                buffer.fill_(1.0)  # the forward broadcasts those of rank 0
    loss(wrapped, half).backward()
    for (name, parameter), truth in zip(critic.named_parameters(), expected, strict=True):
        grad = parameter.grad
        if wrapper == "fsdp":
            grad = grad.full_tensor()
        torch.testing.assert_close(grad, truth, msg=lambda m, name=name: f"{name}: {m}")
    dist.barrier()
    # Skips the interpreter's shutdown, in which gloo's threads sometimes abort the process, even
    # after training only a torch.nn.Linear.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])

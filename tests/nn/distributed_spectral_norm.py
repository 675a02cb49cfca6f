"""One of two processes: python distributed_spectral_norm.py RANK STORE.

A discriminator under DistributedDataParallel, whose buffers are broadcast at each call, takes GAN
steps on half a batch each; weights and buffers must be those of one process with whole batches.
"""

from __future__ import annotations

import contextlib
import os
import sys

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ganlstm_fast import SNConv2d, SNLinear, spectral_norm_step


def discriminator() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        SNConv2d(2, 4, 3), nn.Tanh(), SNConv2d(4, 3, 3), nn.Flatten(), SNLinear(12, 1)
    ).double()


def train(model: nn.Module, real: Tensor, fake: Tensor, shared: bool, apart: bool) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(3):
        optimizer.zero_grad()
        with spectral_norm_step(model) if shared else contextlib.nullcontext():
            if apart:  # two backwards
                (-model(real[step]).tanh().mean()).backward()
                model(fake[step]).tanh().mean().backward()
            else:
                (model(fake[step]).tanh().mean() - model(real[step]).tanh().mean()).backward()
        optimizer.step()


def main(rank: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for shared in (False, True):
        for apart in (False, True):
            expected, model = discriminator(), discriminator()
            real, fake = torch.randn(2, 3, 8, 2, 6, 6, dtype=torch.float64)
            train(expected, real, fake, shared, apart)
            if rank == 1:  # what the broadcast overwrites
                for buffer in model.buffers():
                    buffer.zero_().add_(1)
            wrapped = nn.parallel.DistributedDataParallel(model, broadcast_buffers=True)
            half = slice(4 * rank, 4 * rank + 4)
            train(wrapped, real[:, half], fake[:, half], shared, apart)
            for (name, got), truth in zip(
                model.state_dict().items(), expected.state_dict().values(), strict=True
            ):
                torch.testing.assert_close(got, truth, msg=lambda m, name=name: f"{name}: {m}")
    dist.barrier()
    # See distributed_penalty.py.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

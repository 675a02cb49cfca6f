"""Devices, processes and precision of a run, by Lightning Fabric.

Fabric rather than Hugging Face Accelerate: a thin layer over the loop that is written here, which
launches processes, knows ``torchrun``, Slurm and other clusters, scales gradients in 16 bits and
clips them; Accelerate does as much, but also wraps data loaders and schedulers, which a GAN's two
optimisers and data that lie on the device have no use for.

**Several devices of a machine**: ``ganlstm-fast train --device cuda --devices 4 ...`` starts a
process for each. **Several machines**: the same command on every one, started by the cluster or
by ``torchrun``, which tells each process its place::

    torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \\
        -m ganlstm_fast train lstm-gan --device cuda --out /shared/runs/mine

Under Slurm: ``srun --nodes 2 --ntasks-per-node 4 ganlstm-fast train ... --devices 4 --nodes 2``.
The folder of the run has to be one that all machines see if the run is to be resumed on others;
only the first process writes it. ``--batch-size`` is that of all processes together, and the
numbers of a step do not depend on how many they are, up to rounding: each draws the random numbers
of the whole batch and takes its share of the samples (:class:`Share`). Exceptions: the noise of
the Gumbel-softmax and of dropout, and batch norm on the CPU, where torch has none that is
synchronised. (And where a gradient is zero but for rounding, as that of a critic's last bias in a
loss that no shift of all scores changes, Adam makes whole steps of the rounding.)
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.distributed import is_available, is_torchelastic_launched

from ganlstm_fast.training.config import Settings
from ganlstm_fast.training.errors import InputError


def find_device(name: str) -> torch.device:
    """The device called ``name``; raises InputError if it cannot compute here."""
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here ({reason}); try cpu") from None
    return device


def make_fabric(config: Settings) -> Fabric:
    """The Fabric of a run; its processes are not started yet.

    Raises:
        InputError: a device that is not there, or a number of them, a strategy or a precision that
            cannot be used with it.
    """
    device = find_device(config.device)
    devices, nodes = config.devices, config.nodes
    if is_available() and is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    if config.precision == "16-mixed" and device.type == "cpu":
        raise InputError("--precision 16-mixed needs a GPU; on the CPU take bf16-mixed or 32-true")
    count: int | list[int] = devices
    if device.index is not None:
        if devices > 1:
            raise InputError(f"--device {config.device} is one device; leave its number out")
        count = [device.index]
    try:
        fabric = Fabric(
            accelerator=device.type,
            devices=count,
            num_nodes=nodes,
            strategy=config.strategy,
            precision=config.precision,
        )
    except (ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"--device, --devices, --strategy or --precision: {reason}") from None
    except Exception as error:
        # Lightning's own class for this is not public.
        if type(error).__name__ != "MisconfigurationException":
            raise
        raise InputError(f"--devices {devices}: {' '.join(str(error).split())}") from None
    if config.batch_size % (devices * nodes):
        raise InputError(
            f"--batch-size: expected a multiple of the {devices * nodes} processes, "
            f"got {config.batch_size}"
        )
    return fabric


def synchronised(module: nn.Module, fabric: Fabric) -> nn.Module:
    """``module`` with batch norm over all processes, where torch has it."""
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    return module


@dataclass(frozen=True)
class Share:
    """The samples of a batch that this process takes: every ``count``-th from number ``rank``.

    So a part of the batch, as a lazy penalty takes its first samples, is a like part of each share.
    """

    rank: int = 0
    count: int = 1

    def __call__(self, batch: Tensor) -> Tensor:
        """The share [n / count, ...] of ``batch`` [n, ...]."""
        return batch if self.count == 1 else batch[self.rank :: self.count].contiguous()

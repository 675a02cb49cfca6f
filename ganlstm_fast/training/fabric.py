"""Devices, processes and precision of a run, by Lightning Fabric.

Most runs have one process and full precision. They do not need Fabric, and start two seconds sooner
without it: :class:`OneProcess`.

Fabric rather than Hugging Face Accelerate: a thin layer over the loop that is written here, which
launches processes, knows ``torchrun``, Slurm and other clusters, scales gradients in 16 bits and
clips them; Accelerate does the same, but also wraps data loaders and schedulers, which a GAN with
two optimisers and its data on the device does not need.

**Several devices of a machine**: ``ganlstm-fast train --device cuda --devices 4 ...`` starts a
process for each (``--device auto`` does the same, and on a machine without a GPU starts four on the
CPU). **Several machines**: the same command on every one, started by the cluster or by
``torchrun``, which tells each process its place::

    torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \\
        -m ganlstm_fast train lstm-gan --device cuda --out /shared/runs/mine

Under Slurm: ``srun --nodes 2 --ntasks-per-node 4 ganlstm-fast train ... --devices 4 --nodes 2``.
The folder of the run has to be one that all machines see if the run is to be resumed on others;
only the first process writes it. ``--batch-size`` is that of all processes together, and the
numbers of a step do not depend on how many they are, up to rounding: each draws the random numbers
of the whole batch and takes its share of the samples (:class:`Share`). Exceptions: the noise of
the Gumbel-softmax and of dropout, and batch norm on the CPU, where torch has none that is
synchronised. (And where a gradient is zero up to rounding, Adam turns the rounding into full steps.
One such is the critic's last bias, in a loss that does not change when all scores shift.)
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed import is_available, is_torchelastic_launched
from torch.optim import Optimizer

from ganlstm_fast.training.config import Settings
from ganlstm_fast.training.devices import find_device
from ganlstm_fast.training.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Variables that Slurm, LSF and MPI set in each process that they start.
CLUSTERS = ("SLURM_NTASKS", "LSB_JOBID", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


class OneProcess:
    """The part of Fabric's interface that a run of one process in full precision needs.

    Fabric loads torch._dynamo, torch.distributed.fsdp and with them sympy, which takes as long as
    loading torch.
    """

    world_size, global_rank, is_global_zero = 1, 0, True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def launch(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def setup(self, module: nn.Module, optimiser: Optimizer) -> tuple[nn.Module, Optimizer]:
        return module, optimiser

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def clip_gradients(
        self, module: nn.Module, optimiser: Optimizer, *, max_norm: float, error_if_nonfinite: bool
    ) -> Tensor:
        return nn.utils.clip_grad_norm_(
            module.parameters(), max_norm, error_if_nonfinite=error_if_nonfinite
        )

    def autocast(self) -> AbstractContextManager[None]:
        return nullcontext()

    def all_reduce(self, numbers: Tensor, reduce_op: str) -> Tensor:
        return numbers

    def barrier(self) -> None:
        pass


def make_fabric(
    config: Settings, warn: Callable[[str], object] = lambda line: None
) -> Fabric | OneProcess:
    """The Fabric of a run, or its stand-in; its processes are not started yet.

    Args:
        warn: called with a line where ``--device auto`` cannot use the GPU that is there.

    Raises:
        InputError: a device that is not there, or a number of them, a strategy or a precision that
            cannot be used with it.
    """
    devices, nodes = config.devices, config.nodes
    elastic = is_available() and is_torchelastic_launched()
    if elastic:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    processes = devices * nodes
    device = find_device(config.device, warn, processes)
    numbered = config.device.partition(":")[2] != ""
    _check_devices(config, device, devices, numbered)
    if config.batch_size % processes:
        raise InputError(
            f"`batch_size`: expected a multiple of the {processes} processes, "
            f"got {config.batch_size}"
        )
    plain = config.precision == "32-true" and config.strategy == "auto"
    clusters = elastic or any(name in os.environ for name in CLUSTERS)
    if plain and processes == 1 and not clusters and device.type in ("cpu", "cuda"):
        return OneProcess(device)
    if devices > 1 and not clusters and "LOCAL_RANK" not in os.environ and not _is_script():
        raise InputError(
            f"`devices={devices}`: each process runs the script that trains, and there is none; "
            "write one, or start it with torchrun"
        )
    # Each process of Fabric counts from the first device, unless a device is named.
    return _launchable(config, device.type, [device.index] if numbered else devices, nodes)


def _is_script() -> bool:
    """Whether Fabric can start the program again: it cannot at a prompt or in a notebook."""
    import __main__

    started = __main__.__spec__ is not None or os.path.isfile(sys.argv[0])
    return started and not hasattr(sys, "ps1")


def _check_devices(config: Settings, device: torch.device, devices: int, numbered: bool) -> None:
    if config.precision == "16-mixed" and device.type == "cpu":
        found = ", and `device=auto` has found none here" if config.device == "auto" else ""
        raise InputError(
            f"`precision=16-mixed` needs a GPU{found}; on the CPU take bf16-mixed or 32-true"
        )
    if numbered and devices > 1:
        raise InputError(f"`device={config.device}` is one device; leave its number out")
    if device.type == "cuda" and devices > torch.cuda.device_count():
        raise InputError(
            f"`devices`: expected {torch.cuda.device_count()} or less, which are the GPUs here, "
            f"got {devices}; or `device=cpu`, whose processes share the CPU"
        )


def _launchable(config: Settings, accelerator: str, devices: int | list[int], nodes: int) -> Fabric:
    # Lightning sets the level of its messages when it is loaded; one that was asked for stays.
    log = logging.getLogger("lightning_fabric")
    level = log.level
    from lightning_fabric import Fabric

    if level:
        log.setLevel(level)
    try:
        return Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=config.strategy,
            precision=config.precision,
        )
    except (ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"`device`, `devices`, `strategy` or `precision`: {reason}") from None
    except Exception as error:
        # Lightning's own class for this is not public.
        if type(error).__name__ != "MisconfigurationException":
            raise
        raise InputError(f"`devices={devices}`: {' '.join(str(error).split())}") from None


def scaler_of(fabric: Fabric | OneProcess) -> Any:
    """What scales a loss for the small numbers of float16; None where nothing does."""
    if isinstance(fabric, OneProcess):
        return None
    return getattr(fabric.strategy.precision, "scaler", None)


def synchronised(module: nn.Module, fabric: Fabric | OneProcess) -> nn.Module:
    """``module`` with batch norm over all processes, where torch has it."""
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    return module


@dataclass(frozen=True)
class Share:
    """The samples of a batch that this process takes: every ``count``-th from number ``rank``.

    So the first part of a batch, which a lazy penalty takes, is an equal part of each share.
    """

    rank: int = 0
    count: int = 1

    def __call__(self, batch: Tensor) -> Tensor:
        """The share [n / count, ...] of ``batch`` [n, ...]."""
        return batch if self.count == 1 else batch[self.rank :: self.count].contiguous()

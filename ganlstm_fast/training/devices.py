"""The devices of this machine: which one a command uses, and what each of them is."""

from __future__ import annotations

import os
import platform
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from ganlstm_fast.ops.backends import cpu_isa
from ganlstm_fast.ops.explanation import explain
from ganlstm_fast.training.errors import InputError, Line

AUTO = "auto"
# The errors that torch raises for a device that is missing or cannot compute.
_ERRORS = (RuntimeError, AssertionError, NotImplementedError)


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=3)


def find_device(
    name: str = AUTO, warn: Callable[[str], object] = _warn, processes: int = 1
) -> torch.device:
    """The device called ``name``, after it has computed something.

    ``auto`` is a GPU, or the CPU where there is none. If there is a GPU that cannot be used, the
    CPU takes its place with a warning, but only in a run of one process: several could choose
    differently, and then wait for each other for ever.

    Args:
        warn: called with a line that says why a GPU is not used.
        processes: of the run. Of several on one machine, each tries the GPU that it will have.

    Raises:
        InputError: it cannot compute here.
    """
    if name == AUTO and not torch.cuda.is_available() and not _gpu_files():
        return torch.device("cpu")
    try:
        return _tried("cuda" if name == AUTO else name, processes)
    except _ERRORS as error:
        reason = _first_line(error)
    if name != AUTO or processes > 1:
        raise InputError(f"`device={name}` cannot be used here ({reason}); try cpu")
    warn(Line(f"the GPU cannot be used ({reason}), so the CPU is used; `device=cpu` asks for it"))
    return torch.device("cpu")


def _tried(name: str, processes: int) -> torch.device:
    """The device, with its number, after it has computed something."""
    device = torch.device(name)
    if processes > 1 and device.type == "cuda" and device.index is None:
        device = torch.device("cuda", _local_rank() % max(1, torch.cuda.device_count()))
    number = torch.ones(1, device=device)
    number.item()
    return number.device


def no_gpu() -> str | None:
    """Why torch has no GPU here, in words; None where it has one."""
    if torch.cuda.is_available():
        return None
    if not torch.backends.cuda.is_built():
        return f"torch {torch.__version__} is built without CUDA"
    try:
        torch.cuda.init()
    except _ERRORS as error:
        return _first_line(error)
    return "torch sees no CUDA device"


def _gpu_files() -> list[Path]:
    """The files by which Linux shows NVIDIA's GPUs, unless the user has hidden them from CUDA."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return []
    return list(Path("/dev").glob("nvidia[0-9]*"))


def _local_rank() -> int:
    """The number of this process among those of its machine, as torchrun, Fabric and Slurm say."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def named(device: torch.device, processes: int = 1) -> str:
    """Where a run computes, in words, such as "on the CPU"."""
    words = "the CPU" if device.type == "cpu" else str(device)
    if device.type == "cuda":
        words += f" ({torch.cuda.get_device_name(device)})"
    return f"on {words}" if processes == 1 else f"in {processes} processes, the first on {words}"


def explain_devices(name: str | None = None, dtype: torch.dtype = torch.float32) -> str:
    """What this machine computes with, and which implementation of each operator runs on it.

    Args:
        name: of one device; None: all.
        dtype: of the operators' input.

    Raises:
        InputError: a device that is not there.
    """
    gpus = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    devices = [torch.device("cpu"), *gpus] if name is None else [find_device(name)]
    # Devices with the same text are listed together.
    heads: dict[str, list[str]] = {}
    for device in devices:
        what = "\n".join(f"  {line}" for line in explain(device, dtype).splitlines())
        heads.setdefault(what, []).append(_head(device))
    parts = ["\n".join((*lines, what)) for what, lines in heads.items()]
    if name is None and not gpus:
        parts.append(f"no GPU: {no_gpu()}")
    return "\n".join(parts)


def _head(device: torch.device) -> str:
    """What ``device`` is, in a line."""
    if device.type == "cpu":
        told = [_processor(), *_cpu_memory()]
        threads = f"{torch.get_num_threads()} threads on {_cores()} cores"
        told[1:1] = [cpu_isa() or "no compiled kernels", threads]
        return f"cpu: {', '.join(told)}, torch {torch.__version__}"
    if device.type != "cuda":
        return f"{device}: torch {torch.__version__}"
    told = []
    try:
        told.append(torch.cuda.get_device_name(device))
        told.append("compute capability {}.{}".format(*torch.cuda.get_device_capability(device)))
        free, total = torch.cuda.mem_get_info(device)
        told.append(f"{_gib(total)} of memory ({_gib(free)} free)")
    except _ERRORS as error:
        told.append(f"cannot be used: {_first_line(error)}")
    told += [*_driver(), f"CUDA {torch.version.cuda}", f"torch {torch.__version__}"]
    return f"{device}: {', '.join(told)}"


def _processor() -> str:
    with suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        if found:
            return found[1]
    return platform.machine()


def _cores() -> int:
    """How many cores this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def _cpu_memory() -> list[str]:
    with suppress(OSError, KeyError):
        text = Path("/proc/meminfo").read_text()
        sizes = {
            name: int(size) * 1024 for name, size in re.findall(r"^(\w+):\s+(\d+)", text, re.M)
        }
        if {"MemTotal", "MemAvailable"} <= sizes.keys():
            total, free = sizes["MemTotal"], sizes["MemAvailable"]
            return [f"{_gib(total)} of memory ({_gib(free)} free)"]
    return []


def _driver() -> list[str]:
    with suppress(OSError):
        text = Path("/proc/driver/nvidia/version").read_text()
        found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
        if found:
            return [f"driver {found[0]}"]
    return []


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"

"""What a figure depends on, and where a run's result file goes."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import ganlstm_fast
from ganlstm_fast.ops import backends

ALLOCATOR_VARIABLES = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX")
# They hold ours, oneDNN, ATen's own code and MKL to an instruction set.
ISA_VARIABLES = (
    backends.ENV_CPU_ISA,
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_CBWR",
)


def _command(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> tuple[str, str]:
    """The processor's name and the widest instruction set that it has."""
    cpu: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            cpu.setdefault(key.strip(), value.strip())
    name = cpu.get("model name") or platform.processor() or platform.machine()
    if {"cpu family", "model"} <= cpu.keys():
        name += f" (family {cpu['cpu family']}, model {cpu['model']})"
    flags = cpu.get("flags", "").split()
    known = {"avx512f": "AVX512", "avx2": "AVX2"}
    isa = next((known[flag] for flag in known if flag in flags), None)
    return name, isa or torch.backends.cpu.get_cpu_capability()


def _set(variables: tuple[str, ...]) -> dict[str, str]:
    return {name: os.environ[name] for name in variables if name in os.environ}


def _text(variables: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in variables.items()) or "default"


@contextlib.contextmanager
def precision(tf32: bool | None, cudnn: bool = True) -> Iterator[None]:
    """TF32 for every product in float32 on a GPU, torch's and ours, or for none; cuDNN or not.

    ``torch.backends.cudnn.flags`` would do it with settings of an older kind, which do not go
    together with these. torch also refuses to name cuDNN's where convolutions have another.
    """
    parts = (torch.backends.cudnn.rnn, torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [part.fp32_precision for part in parts]
    enabled = torch.backends.cudnn.enabled
    for part in parts:
        part.fp32_precision = "tf32" if tf32 else "ieee"
    torch.backends.cudnn.enabled = cudnn
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = enabled
        for part, value in zip(parts, before, strict=True):
            part.fp32_precision = value


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpu() -> dict[str, Any]:
    """The entries of a GPU; they replace those of the processor or add to them."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    architecture = f"sm_{properties.major}{properties.minor}"
    drivers = _command("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return {
        "device": properties.name,
        "processor": _processor()[0],
        "isa": architecture,
        "isa_of_kernels": architecture if backends.is_loaded("cuda") else None,
        "isa_of_torch": " ".join(torch.cuda.get_arch_list()),
        "isa_limits": "default",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "driver": next(iter(drivers.splitlines()), None),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "triton": _installed("triton"),
    }


def _commit() -> str:
    """The commit that is measured; ``COMMIT`` names it for a copy without this git history."""
    if "COMMIT" in os.environ:
        return os.environ["COMMIT"]
    changed = _command(
        "git", "status", "--porcelain", "-uno", "--", ":/", ":(top,exclude)benchmarks/results"
    )
    name = _command("git", "rev-parse", "--short", "HEAD") or "none"
    return name + ("+changes" if changed else "")


def environment(preset: str, device: str = "cpu") -> dict[str, Any]:
    """Device, threads, versions, allocator, instruction sets, commit, preset, and the time (UTC).

    Args:
        device: "cpu" or "cuda": what was measured.
    """
    name, isa = _processor()
    allocator = _set(ALLOCATOR_VARIABLES)
    if "LD_PRELOAD" in os.environ:
        preloaded = os.environ["LD_PRELOAD"].replace(":", " ").split()
        allocator["LD_PRELOAD"] = " ".join(Path(p).name for p in preloaded)
    where = {
        "device": name,
        "isa": isa,
        "isa_of_kernels": backends.cpu_isa(),
        "isa_of_torch": torch.backends.cpu.get_cpu_capability(),
        "isa_limits": _text(_set(ISA_VARIABLES)),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "ganlstm_fast": ganlstm_fast.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "commit": _commit(),
        "allocator": _text(allocator),
        "preset": preset,
        "measured": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M"),
    }
    return where | (_gpu() if device == "cuda" else {})


def device_folder(where: dict[str, Any]) -> str:
    """A folder's name for results of this device."""
    return re.sub(r"[^a-z0-9]+", "-", f"{where['device']} {where['isa']}".lower()).strip("-")


def file_name(where: dict[str, Any]) -> str:
    """The preset, and what is not as usual about the run, so that its file is one of its own."""
    name = where["preset"]
    if where["allocator"] != "default":
        name += "-kept-memory"
    if where["isa_limits"] != "default":
        name += f"-{where['isa_of_kernels'] or 'limited'}"
    return name

"""What a figure depends on, and where a run's result file goes."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

import ganlstm_fast
from ganlstm_fast import backends

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


def environment(preset: str) -> dict[str, Any]:
    """Device, threads, versions, allocator, instruction sets, commit, preset."""
    device, isa = _processor()
    allocator = _set(ALLOCATOR_VARIABLES)
    if "LD_PRELOAD" in os.environ:
        preloaded = os.environ["LD_PRELOAD"].replace(":", " ").split()
        allocator["LD_PRELOAD"] = " ".join(Path(p).name for p in preloaded)
    changed = _command("git", "status", "--porcelain", "-uno", "--", ".", ":!benchmarks/results")
    return {
        "device": device,
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
        "commit": (_command("git", "rev-parse", "--short", "HEAD") or "none")
        + ("+changes" if changed else ""),
        "allocator": _text(allocator),
        "preset": preset,
    }


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

"""What the benchmarks could measure, and no result has: by the code that stands beside this."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import torch
from devices import HARDWARE, Device, devices
from rows import Run

from ganlstm_fast.ops import backends

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))  # for harness.py


@functools.cache
def groups() -> dict[str, list[str]]:
    """The groups of ``--full`` for "cpu" and "cuda"."""
    found: dict[str, dict[str, None]] = {kind: {} for kind in HARDWARE}
    # The same on a machine with a GPU and on one without; nothing of it runs here.
    with (
        mock.patch.object(torch.cuda, "is_available", return_value=True),
        mock.patch.object(backends, "why_not_gpu", return_value=None),
    ):
        for path in sorted(HERE.glob("bench_*.py")):
            for work in importlib.import_module(path.stem).works("full"):
                found[work.device].setdefault(work.group)
    return {kind: list(names) for kind, names in found.items()}


def without_a_run(device: Device) -> list[str]:
    """The groups that have no row of this device."""
    measured = {row["group"] for run in device.runs for row in run.rows}
    return [group for group in groups()[device.hardware] if group not in measured]


def hardware_without_a_run(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The groups for "cpu" or "cuda" where no such device has a result at all."""
    kinds = {device.hardware for device in devices(runs)}
    return {kind: names for kind, names in groups().items() if kind not in kinds and names}

"""Peak memory of contenders, each in its own process: none can reuse what another has freed.
(On a GPU the allocator counts, and one process measures all.)

``python -m benchmarks.measure.memory MODULE GROUP CASE CONTENDER`` is such a process: it prints the
peak, in MiB, of the resident memory over what was there before the call. Weights, inputs and
cotangents count as there before; outputs and gradients do not.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure.harness import Call, Contender, Effort, Result, Wanted, Work, measure


@dataclass(frozen=True, kw_only=True)
class MemoryWork(Work):
    """A work whose memory is measured.

    Attributes:
        module: the name of the module whose ``works`` has this work.
        small: the same work, with contenders of the same names, at a shape where the truth is
            affordable. It is what is checked, and what warms a process up.
    """

    module: str
    small: Work


@dataclass(frozen=True)
class DeviceMemoryWork(Work):
    """A work whose GPU memory is measured. It is checked at its own shape."""


def measure_memory(
    work: MemoryWork | DeviceMemoryWork,
    effort: Effort,
    measured: bool = True,
    wanted: Wanted | None = None,
) -> list[Result]:
    """Check all contenders, of a ``MemoryWork`` at the small shape, then measure the right ones.

    Args:
        measured: False checks only.
        wanted: as for ``measure``.
    """
    if isinstance(work, DeviceMemoryWork):
        results = measure(work, effort, timed=False, wanted=wanted)
        for result in results:
            if result.ready and measured:
                result.peaks = [result.device_mib]
        return results
    results = measure(work.small, effort, timed=False, wanted=wanted)
    for result in results:
        if result.ready and measured:
            names = (work.module, work.group, work.case, result.contender.name)
            try:
                result.peaks = [_in_a_process(*names) for _ in range(effort.processes)]
            except RuntimeError as error:
                result.unsupported = str(error)
    return results


def _in_a_process(*names: str) -> float:
    command = [sys.executable, "-m", "benchmarks.measure.memory", *names]
    path = os.pathsep.join(filter(None, sys.path))  # as this process finds its modules
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["killed"]
        raise RuntimeError(f"exit {done.returncode}: {said[-1][:80]}")
    return float(done.stdout)


def _resident_mib(field: str) -> float:
    """``VmRSS``, the resident memory, or ``VmHWM``, its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def peak_mib(call: Call) -> float:
    """The peak of the resident memory during ``call``, over what was there before."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # free memory of the past would hide new memory
    before = _resident_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts from here
    answer = call()
    peak = _resident_mib("VmHWM") - before
    del answer
    return peak


def _prepared(work: Work, name: str) -> tuple[Contender, Call]:
    contender = next(c for c in work.contenders if c.name == name)
    with contender.context():
        return contender, contender.prepare()


def main(module: str, group: str, case: str, name: str) -> None:
    works = importlib.import_module(module).works("full")
    work = next(w for w in works if (w.group, w.case) == (group, case))
    _, warm_up = _prepared(work.small, name)
    contender, call = _prepared(work, name)
    with contender.context():
        warm_up()
        print(peak_mib(call))


if __name__ == "__main__":
    main(*sys.argv[1:])

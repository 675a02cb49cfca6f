"""Seconds from a training command to its first step, and the steps of a second after it.

    python -m benchmarks.first_step cuda lstm-gan dcgan --steps 200

Each command runs twice: the first time, files are read from the disk and Triton compiles. What it
prints to a progress bar is read as a person would see it, so that imports, data, the model and the
first checkpoint are in the time. ``GANLSTM_FAST_IMPL`` chooses the kernels, as everywhere.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import product

# tqdm's: the steps done of all.
DONE = re.compile(rb"\| (\d+)/\d+ \[")


def progress(command: Sequence[str]) -> Iterator[tuple[float, int]]:
    """Seconds since the start and steps done, as the bar says them; raises where it fails."""
    # On a terminal the bar moves ten times a second, in a file four times a minute.
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    begun, said = time.monotonic(), b""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=its) as process:
        os.close(its)
        with suppress(OSError):  # what Linux says where the other end is closed
            while part := os.read(ours, 4096):
                said = (said + part)[-4096:]
                if found := DONE.findall(part):
                    yield time.monotonic() - begun, int(found[-1])
    os.close(ours)
    if process.returncode != 0:
        raise RuntimeError(said.decode(errors="replace"))


def timed(device: str, kind: str, steps: int) -> tuple[float, float]:
    """Seconds to the first step, and steps a second from there to the last."""
    with tempfile.TemporaryDirectory() as folder:
        options = ("--device", device, "--steps", str(steps), "--out", f"{folder}/run")
        command = (sys.executable, "-m", "ganlstm_fast", "train", kind, *options)
        seen = [s for s in progress((*command, "--metrics", "none")) if s[1] > 0]
    (first, before), (last, done) = seen[0], seen[-1]
    return first, (done - before) / (last - first) if done > before else float("nan")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("device", help="as train's --device")
    parser.add_argument("kinds", nargs="+", metavar="MODEL", help="as train's")
    parser.add_argument("--steps", type=int, default=200, help="of each run (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=2, help="of each model (default: %(default)s)")
    options = parser.parse_args(arguments)
    failed = False
    for kind, run in product(options.kinds, range(1, options.runs + 1)):
        try:
            first, rate = timed(options.device, kind, options.steps)
            what = f"first step after {first:.1f} s, then {rate:.1f} steps a second"
        except (RuntimeError, IndexError) as error:
            what, failed = error or "no step seen", True
        print(f"{kind}, run {run}: {what}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

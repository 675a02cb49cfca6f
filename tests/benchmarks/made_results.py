"""Result files of made-up times, for the tests of what is made of them."""

from __future__ import annotations

import json

from benchmarks.measure import harness
from benchmarks.measure.harness import Contender, Result, Work

ENVIRONMENT = {
    "device": "Some CPU",
    "isa": "AVX2",
    "isa_of_kernels": "avx2",
    "isa_of_torch": "AVX2",
    "isa_limits": "default",
    "cores": 2,
    "threads": 2,
    "torch": "2.13.0",
    "ganlstm_fast": "0.1.0",
    "python": "3.11.7",
    "commit": "abcdef0",
    "allocator": "default",
    "preset": "default",
}
GPU = {"device": "Some GPU", "isa": "sm_90", "multiprocessors": 132}
CEILING = {"multiply_adds": 100e9, "bf16_dot": 200e9, "copy": 50e9, "ping_pong": 6e-8}
CEILINGS = {"begin": CEILING, "end": {**CEILING, "multiply_adds": 90e9}}
SHAPES = {"B": 4, "T": 8, "I": 3, "H": 5, "layers": 1, "directions": 1}
NAMES = ("ours", "rival", "slow rival")


def case(times, group="LSTM forward", shape="B4", shapes=SHAPES, **options):
    """The rows of a piece of work, of times in seconds or peaks in MiB for each of ``NAMES``."""
    contenders = tuple(
        Contender(n, lambda: None, ours=n.startswith(("ours", "FastLSTM"))) for n in times
    )
    unit = options.pop("unit", "times")
    work = Work(group, shape, shapes, contenders, lambda _: (), **options)
    results = [
        Result(c, **{unit: list(values)} if isinstance(values, list | tuple) else {})
        for c, values in zip(contenders, times.values(), strict=True)
    ]
    for result, values in zip(results, times.values(), strict=True):
        result.unsupported = values if isinstance(values, str) else None
    return harness.rows(work, results)


def three(*seconds, **options):
    times = {n: [s] * 9 for n, s in zip(NAMES, seconds, strict=True)}
    return case(times, **options)


def write(path, content, **where):
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = {**ENVIRONMENT, "ceilings": CEILINGS, **where}
    text = json.dumps({"ganlstm_fast_schema": 1, "environment": environment, "rows": content})
    path.write_text(text)
    return path

"""FastLSTM on a GPU, by each of its implementations, against cuDNN and what else there is.

``python -m benchmarks.bench_lstm_gpu`` is the same without pytest-benchmark, with a short table at
the end; ``--tiny IMPL`` runs one implementation once at small shapes, for a checker of memory.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import time
import traceback
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import pytest
import torch

from benchmarks.cases import (
    LSTM_CUDA,
    LSTM_CUDA_BFLOAT16,
    LSTM_CUDA_FLOAT16,
    LSTM_CUDA_FLOAT32,
    LSTM_CUDA_MEMORY,
    LSTM_CUDA_STEPS,
)
from benchmarks.measure.harness import CANNOT_RUN, Race, Work
from benchmarks.measure.lstm_work import CUDA_IMPLS, CUDA_STEPS, cuda_work
from benchmarks.measure.memory import DeviceMemoryWork
from benchmarks.measure.session import Measurements, save
from benchmarks.report.rows import Row
from benchmarks.report.tables import markdown, seconds

# Seconds after which a piece of work, and with it the process, is given up: a kernel hangs.
PATIENCE = 120

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def works(preset: str, impls: Sequence[str] = CUDA_IMPLS) -> list[Work]:
    """The most telling come first, in case the time does not suffice."""
    first, *others = LSTM_CUDA[preset]

    def of(
        shapes: Sequence[Any], dtype: torch.dtype, tf32: bool | None = None, **options: Any
    ) -> list[Work]:
        return [
            cuda_work(group, shape, dtype, tf32, impls=impls, **options)
            for shape in shapes
            for group in CUDA_STEPS
        ]

    found = of((first,), torch.float32, True, recompute=True)
    found += [
        cuda_work(group, shape, torch.float16, impls=impls)
        for shape in LSTM_CUDA_FLOAT16
        for group in ("LSTM forward", "LSTM forward+backward")
    ]
    if preset != "quick":
        found += [
            cuda_work("LSTM forward", shape, torch.bfloat16, impls=impls)
            for shape in LSTM_CUDA_STEPS
        ]
    for group, shape in LSTM_CUDA_MEMORY[preset]:
        work = vars(cuda_work(group, shape, torch.float32, True, impls=impls, recompute=True))
        changes = {"group": f"peak memory, {work['group']}", "multiply_adds": None}
        found.append(DeviceMemoryWork(**{**work, **changes}))
    rest = of(others, torch.float32, True)
    rest += of(LSTM_CUDA_BFLOAT16[preset], torch.bfloat16)
    rest += of(LSTM_CUDA_FLOAT32[preset], torch.float32, False)
    # A critic step's rivals take most of the time.
    return found + sorted(rest, key=lambda work: "critic" in work.group)


def test_lstm_on_a_gpu(race: Race) -> None:
    race()


def tiny(impl: str, dtypes: Sequence[torch.dtype]) -> int:
    """All passes of one implementation once, in each dtype that it serves."""
    from tests.lstm_cases import Case

    cases = (
        Case(3, 5, 3, 20, D=2, lengths=[3, 1, 2, 3, 2]),
        Case(2, 17, 4, 33, bias=False),
        Case(2, 3, 4, 128),
    )
    for dtype in dtypes:
        values: list[Any] = []
        for case in cases:
            try:
                orders = case.run(impl, dtype, "cuda")
            except RuntimeError as error:
                if not CANNOT_RUN.match(str(error)):
                    raise
                print(error)
                continue
            torch.cuda.synchronize()
            values += [*orders.outputs, *orders.first, *orders.second]
        values = [value for value in values if value is not None]
        if not all(torch.isfinite(value).all() for value in values):
            print(f"{impl}, {dtype}: NaN or infinity")
            return 1
        print(f"{impl}, {dtype}: {len(values)} results")
    return 0


def short_table(rows: Sequence[Row]) -> str:
    """A line for each work: the best rival's figure, and what each of ours does beside it."""
    lines = []
    for _, of_group in groupby(rows, key=lambda row: row["group"]):
        for case, members in groupby(of_group, key=lambda row: row["case"]):
            lines.append(_short_line(case, list(members)))
    return "\n".join(lines)


def _short_line(case: str, members: Sequence[Row]) -> str:
    group, steps = members[0]["group"].replace("CUDA LSTM ", ""), members[0]["shapes"]["T"]

    def figure(row: Row) -> str:
        if row["skipped"]:
            return "wrong or failed" if row["skipped"].startswith(("wrong", "raised")) else "-"
        if "median_mib" in row:
            return f"{row['median_mib']:.0f} MiB"
        if "median_s" not in row:
            return "-"
        ratio = f"{row['ratio']:.2f}x" if row["ours"] and "ratio" in row else ""
        time = "" if ratio else seconds(row["median_s"])
        if group.startswith("forward,"):
            time += f" ({1e6 * row['median_s'] / steps:.2f} us a step)"
        return ratio + time

    rivals = {row["implementation"]: row for row in members if not row["ours"]}
    best = next((row["rival"] for row in members if "rival" in row), None)
    rival = "no rival" if best is None else f"{best} {figure(rivals[best])}"
    ours = [
        f"{row['implementation'].removeprefix('FastLSTM, ')} {figure(row)}"
        for row in members
        if row["ours"]
    ]
    return f"{group}; {case}; {rival} | {'; '.join(ours)}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    preset = parser.add_mutually_exclusive_group()
    for name, what in (
        ("quick", "few shapes, a minute"),
        ("large", "all shapes in all dtypes"),
        ("full", "these, for longer"),
    ):
        preset.add_argument(
            f"--{name}",
            dest="preset",
            action="store_const",
            const=name,
            default="default",
            help=what,
        )
    parser.add_argument("--seconds", type=float, metavar="S", help="time for each piece of work")
    parser.add_argument(
        "--limit", type=float, default=float("inf"), metavar="S", help="start no work after so long"
    )
    parser.add_argument(
        "--impls", default=",".join(CUDA_IMPLS), metavar="A,B", help="which (default: %(default)s)"
    )
    parser.add_argument(
        "--save-results",
        nargs="?",
        const="",
        metavar="NAME",
        help="write benchmarks/results/<device>/NAME.json (default: the preset)",
    )
    parser.add_argument("--tiny", metavar="IMPL", help="run one implementation once, untimed")
    parser.add_argument(
        "--dtypes",
        default="float32,float16,bfloat16,float64",
        metavar="A,B",
        help="of --tiny (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("bench_lstm_gpu: needs a CUDA device", file=sys.stderr)
        return 2
    if options.tiny:
        return tiny(options.tiny, [getattr(torch, name) for name in options.dtypes.split(",")])
    return _measure_all(options)


def _measure_all(options: argparse.Namespace) -> int:
    measurements = Measurements(options.preset, True, options.seconds)
    begun, failed, left_out = time.monotonic(), False, 0

    def saved() -> Any:
        content = measurements.content("cuda")
        if options.save_results is not None:
            print(f"saved {save(options.save_results, content)}", flush=True)
        return content["environment"]

    try:
        for work in works(options.preset, tuple(filter(None, options.impls.split(",")))):
            if time.monotonic() - begun > options.limit:
                left_out += 1
                continue
            print(f"{time.monotonic() - begun:5.0f} s  {work.group}: {work.case}", flush=True)
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
            results = measurements.measure(work)
            failed |= any(r.refused is not None for r in results if r.contender.ours)
            saved()  # the next may bring the process down
        measurements.finish()
    except Exception:  # what was measured until then is kept
        traceback.print_exc()
        failed = True
    faulthandler.cancel_dump_traceback_later()
    rows = measurements.rows.get("cuda", [])
    if rows:
        where = saved()
        print(markdown(where, rows, aligned=True))
        print(f"speed over the fastest rival, or memory\n{short_table(rows)}")
    if left_out:
        print(f"{left_out} pieces of work left out: more than {options.limit:g} s")
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())

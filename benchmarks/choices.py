"""What ``auto`` takes on a GPU, as it follows from the results: ganlstm_fast/ops/lstm/measured.py.

    python -m benchmarks.choices            write that file
    python -m benchmarks.choices --check    say whether it is what the results give
    python -m benchmarks.choices --table    what it takes in each case that was measured, and what
                                            comes of it beside nn.LSTM

At first order one of ours is taken for an H where it was faster than nn.LSTM in every result with
that H. At second order they are ordered by their time. Calls are timed as a training loop makes
them; the same calls in a CUDA graph are in the files too.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from typing import Any

from benchmarks.report.rows import RESULTS, ROOT, Row, Run, cases_of, collect, write_whole
from benchmarks.report.tables import Line, markdown_table

TABLE = ROOT / "ganlstm_fast" / "ops" / "lstm" / "measured.py"

# In a row's group, and the work that ganlstm_fast.ops.lstm.fit chooses for.
WORKS = {
    "LSTM forward": "forward",
    "LSTM forward+backward": "forward+backward",
    "LSTM WGAN-GP critic step": "second order",
}
NUMBERS = {"tf32": "tf32", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
# By group: numbers and work.
GROUPS = {f"CUDA {w}, {n}": (NUMBERS[n], WORKS[w]) for n, w in product(NUMBERS, WORKS)}
KERNELS = ("cuda", "triton", "cell")
OURS = (*KERNELS, "torch")  # the last: torch's LSTM under our Function

SOURCE = '''"""Which implementation of the LSTM was the fastest on a GPU.

Written by ``python -m benchmarks.choices`` from benchmarks/results, and not by hand.
"""

from __future__ import annotations

# H, and the implementations: at first order the fastest, at second order all, the fastest first.
Measured = list[tuple[int, tuple[str, ...]]]

# By compute capability: devices, the folders of their results, and the files there.
SOURCES: dict[tuple[int, int], tuple[tuple[str, str, tuple[str, ...]], ...]] = {sources}

# By compute capability, then by numbers and work.
FASTEST: dict[tuple[int, int], dict[tuple[str, str], Measured]] = {fastest}
'''


@dataclass(frozen=True)
class Timed:
    """A case of one file, of one layer and direction.

    Attributes:
        sm: compute capability.
        ours: the row of each of ours that was timed.
        rival: that of the fastest nn.LSTM.
    """

    run: Run
    sm: tuple[int, int]
    numbers: str
    work: str
    case: str
    hidden: int
    ours: dict[str, Row]
    rival: Row | None

    def ratio(self, kernel: str) -> float | None:
        """How many times faster than nn.LSTM; where the two were interleaved, by their rounds."""
        row = self.ours.get(kernel)
        if row is None or self.rival is None:
            return None
        interleaved = row.get("rival") == self.rival["implementation"] and "ratio" in row
        return row["ratio"] if interleaved else self.rival["median_s"] / row["median_s"]


def timed_cases(runs: Iterable[Run]) -> list[Timed]:
    """By capability, numbers, work and H."""
    found = []
    for run in runs:
        for (group, name, _), case in cases_of(run).items():
            shapes = case.rows[0]["shapes"]
            if group not in GROUPS or (shapes["layers"], shapes["directions"]) != (1, 1):
                continue
            sm = divmod(int(re.sub(r"\D", "", run.environment["isa"])), 10)
            rows = {r["implementation"]: r for r in case.rows if "median_s" in r}
            ours = {k: rows[f"FastLSTM, {k}"] for k in OURS if f"FastLSTM, {k}" in rows}
            rivals = [row for rival, row in rows.items() if rival.startswith("nn.LSTM")]
            rival = min(rivals, key=lambda row: row["median_s"], default=None)
            found.append(Timed(run, sm, *GROUPS[group], name, shapes["H"], ours, rival))
    order = list(GROUPS.values())
    return sorted(found, key=lambda t: (t.sm, order.index((t.numbers, t.work)), t.hidden, t.case))


def fastest(cases: Sequence[Timed]) -> tuple[str, ...]:
    """Of all cases of one work and H."""
    if cases[0].work == "second order":
        timed = [k for k in KERNELS if any(k in c.ours for c in cases)]
        return tuple(sorted(timed, key=lambda kernel: _slowness(kernel, cases)))
    ratios = {kernel: [c.ratio(kernel) for c in cases] for kernel in KERNELS}
    least = {kernel: min(values) for kernel, values in ratios.items() if None not in values}
    best = max(least, key=lambda kernel: least[kernel], default=None)
    return ("torch",) if best is None or least[best] < 1 else (best,)


def _slowness(kernel: str, cases: Sequence[Timed]) -> float:
    """The mean logarithm of its time over that of the fastest, where it was measured."""
    times = []
    for ours in (case.ours for case in cases if kernel in case.ours):
        least = min(row["median_s"] for other, row in ours.items() if other in KERNELS)
        times.append(math.log(ours[kernel]["median_s"] / least))
    return sum(times) / len(times)


def source(runs: Sequence[Run]) -> str:
    """The text of measured.py."""
    files: dict[Any, dict[Any, set[str]]] = {}
    chosen: dict[Any, dict[Any, list[Any]]] = {}
    cases = timed_cases(runs)
    for (sm, *of, hidden), members in groupby(cases, lambda c: (c.sm, c.numbers, c.work, c.hidden)):
        fastest_there = hidden, fastest(list(members))
        chosen.setdefault(sm, {}).setdefault(tuple(of), []).append(fastest_there)
    for case in cases:
        path = case.run.path.resolve().relative_to(ROOT)
        key = case.run.environment["device"], path.parent.as_posix()
        files.setdefault(case.sm, {}).setdefault(key, set()).add(path.name)
    sources = {
        sm: tuple((*key, tuple(sorted(names))) for key, names in sorted(of_sm.items()))
        for sm, of_sm in files.items()
    }
    return SOURCE.format(sources=literal(sources), fastest=literal(chosen))


def literal(value: Any, indent: int = 0) -> str:
    """Python source as ruff formats it: an item a line, but for tuples that fit in one."""
    line = repr(value).replace("'", '"')
    if isinstance(value, dict):
        items = [f"{literal(k)}: {literal(v, indent + 4)}" for k, v in value.items()]
    elif isinstance(value, list) or (isinstance(value, tuple) and indent + len(line) > 98):
        items = [literal(item, indent + 4) for item in value]
    else:
        return line
    inside = "".join(f"{' ' * (indent + 4)}{item},\n" for item in items)
    return f"{line[0]}\n{inside}{' ' * indent}{line[-1]}"


def taken(runs: Sequence[Run]) -> list[tuple[Timed, str]]:
    """Each case, and what ``auto`` takes of what was measured in it."""
    from ganlstm_fast.ops.lstm import fit  # here: it imports torch

    found = []
    for case in timed_cases(runs):
        known = {*case.ours, *(["torch"] if case.rival else [])}
        order = fit.order(case.sm, case.numbers, case.work, case.hidden)
        found += [(case, kernel) for kernel in order if kernel in known][:1]
    return found


def table(runs: Sequence[Run]) -> list[Line]:
    """A line a case: what ``auto`` takes, its time, nn.LSTM's, and how many times faster it is.

    The times are of ``impl=`` by that name. "-": not measured.
    """
    lines = []
    for case, kernel in taken(runs):
        line = {"numbers": case.numbers, "work": case.work, "case": case.case, "auto takes": kernel}
        for name, row in (("a call", case.ours.get(kernel)), ("nn.LSTM", case.rival)):
            line[name] = "-" if row is None else f"{1e6 * row['median_s']:.0f} us"
        ratio = case.ratio(kernel)
        line["ratio"] = "-" if ratio is None else f"{ratio:.2f}x"
        lines.append(line | {"from": case.run.path.name})
    return lines


def overview(runs: Sequence[Run]) -> list[Line]:
    """For each kind of numbers, how many times faster what ``auto`` takes is, over the cases.

    Of torch's LSTM only where it is taken.
    """
    lines = []
    for numbers, members in groupby(taken(runs), lambda item: item[0].numbers):
        works: dict[str, dict[str, list[tuple[int, float]]]] = {work: {} for work in WORKS.values()}
        for case, kernel in members:
            ratio = 1.0 if kernel == "torch" else case.ratio(kernel)
            if ratio is not None:
                works[case.work].setdefault(kernel, []).append((case.hidden, ratio))
        cells = ("; ".join(_range(*item) for item in of.items()) or "-" for of in works.values())
        lines.append({"numbers": numbers} | dict(zip(works, cells, strict=True)))
    return lines


def _range(kernel: str, cases: Sequence[tuple[int, float]]) -> str:
    where = f"{kernel} at H {', '.join(map(str, sorted({hidden for hidden, _ in cases})))}"
    if kernel == "torch":
        return where
    least, most = (f"**{of(ratio for _, ratio in cases):.1f}x**" for of in (min, max))
    return f"{where}: {least}" + (f" to {most}" if most != least else "")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="exit with 1 if the file differs")
    what.add_argument("--table", action="store_true", help="print what is taken in each case")
    options = parser.parse_args(arguments)
    runs = collect([RESULTS])
    if options.table:
        print(markdown_table(table(runs)))
        return 0
    text, name = source(runs), TABLE.relative_to(ROOT)
    if TABLE.exists() and TABLE.read_text() == text:
        return 0
    if options.check:
        print(f"{name} is not what the results give; run python -m benchmarks.choices")
        return 1
    write_whole(TABLE, text)
    print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

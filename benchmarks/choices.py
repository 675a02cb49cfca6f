"""What ``auto`` takes on a GPU, as it follows from the results: ganlstm_fast/ops/lstm/measured.py.

    python benchmarks/choices.py            write that file
    python benchmarks/choices.py --check    say whether it is what the results give
    python benchmarks/choices.py --table    what it takes in each case that was measured, and what
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
from pathlib import Path

from rows import Row, Run, cases_of, collect, write_whole

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS, TABLE = HERE / "results", ROOT / "ganlstm_fast/ops/lstm/measured.py"

# A row's group, and the work that ganlstm_fast.ops.lstm.fit chooses for.
WORKS = {
    "LSTM forward": "forward",
    "LSTM forward+backward": "forward+backward",
    "LSTM WGAN-GP critic step": "second order",
}
GROUP = re.compile(rf"CUDA ({'|'.join(map(re.escape, WORKS))}), (\w+)")
NUMBERS = {"tf32": "tf32", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
KERNELS = ("cuda", "triton", "cell")
OURS = (*KERNELS, "torch")  # the last: torch's LSTM under our Function

Capability = tuple[int, int]
Key = tuple[Capability, str, str]  # and numbers, and work

HEAD = '''"""Which implementation of the LSTM was the fastest on a GPU.

Written by ``python benchmarks/choices.py`` from benchmarks/results, and not by hand.
"""

from __future__ import annotations

# H, and the implementations: at first order the fastest, at second order all, the fastest first.
Measured = list[tuple[int, tuple[str, ...]]]

'''


@dataclass(frozen=True)
class Timed:
    """A case of one file.

    Attributes:
        ours: seconds of a call, by each of ours.
        rival: the same of the fastest nn.LSTM.
        ratios: how many times faster than that each of ours is; where the two were interleaved, the
            median over the rounds.
    """

    run: Run
    case: str
    hidden: int
    ours: dict[str, float]
    rival: float | None
    ratios: dict[str, float]


def timed_cases(runs: Iterable[Run]) -> dict[Key, list[Timed]]:
    """Those of one layer and direction; the works in their order, by H."""
    found: dict[Key, list[Timed]] = {}
    for run in runs:
        for (group, name, _), case in cases_of(run).items():
            match = GROUP.fullmatch(group)
            shapes = case.rows[0]["shapes"]
            if match is None or (shapes["layers"], shapes["directions"]) != (1, 1):
                continue
            key = capability(run), NUMBERS[match[2]], WORKS[match[1]]
            found.setdefault(key, []).append(_timed(run, name, case.rows))
    numbers, works = list(NUMBERS.values()), list(WORKS.values())
    order = sorted(found, key=lambda key: (key[0], numbers.index(key[1]), works.index(key[2])))
    return {key: sorted(found[key], key=lambda t: (t.hidden, t.case)) for key in order}


def _timed(run: Run, name: str, rows: Sequence[Row]) -> Timed:
    by_name = {row["implementation"]: row for row in rows if "median_s" in row}
    ours = {k: by_name[f"FastLSTM, {k}"] for k in OURS if f"FastLSTM, {k}" in by_name}
    rivals = [row for rival, row in by_name.items() if rival.startswith("nn.LSTM")]
    rival = min(rivals, key=lambda row: row["median_s"], default=None)
    ratios = {}
    for kernel, row in ours.items():
        if rival is not None and row.get("rival") == rival["implementation"]:
            ratios[kernel] = row["ratio"]
        elif rival is not None:
            ratios[kernel] = rival["median_s"] / row["median_s"]
    return Timed(
        run,
        name,
        rows[0]["shapes"]["H"],
        {kernel: row["median_s"] for kernel, row in ours.items()},
        None if rival is None else rival["median_s"],
        ratios,
    )


def capability(run: Run) -> Capability:
    number = int(re.sub(r"\D", "", run.environment["isa"]))
    return number // 10, number % 10


def fastest(cases: Sequence[Timed], work: str) -> tuple[str, ...]:
    """Of all cases of one H."""
    if work == "second order":
        timed = [k for k in KERNELS if any(k in c.ours for c in cases)]
        return tuple(sorted(timed, key=lambda k: _slowness(k, cases)))
    least = {
        kernel: min(c.ratios[kernel] for c in cases)
        for kernel in KERNELS
        if all(kernel in c.ratios for c in cases)
    }
    best = max(least, key=lambda kernel: least[kernel], default=None)
    return ("torch",) if best is None or least[best] < 1 else (best,)


def _slowness(kernel: str, cases: Sequence[Timed]) -> float:
    """The mean logarithm of its time over that of the fastest, where it was measured."""
    times = []
    for case in cases:
        if kernel in case.ours:
            least = min(time for other, time in case.ours.items() if other in KERNELS)
            times.append(math.log(case.ours[kernel] / least))
    return sum(times) / len(times)


def source(runs: Sequence[Run]) -> str:
    """The text of measured.py."""
    files: dict[Capability, dict[tuple[str, str], set[str]]] = {}
    tables: dict[Capability, list[str]] = {}
    for (sm, numbers, work), cases in timed_cases(runs).items():
        by_hidden: dict[int, list[Timed]] = {}
        for case in cases:
            by_hidden.setdefault(case.hidden, []).append(case)
        lines = tables.setdefault(sm, [])
        lines.append(f'        ("{numbers}", "{work}"): [')
        for hidden, of_hidden in by_hidden.items():
            lines.append(f"            ({hidden}, {_tuple(fastest(of_hidden, work))}),")
        lines.append("        ],")
        for case in cases:
            path = case.run.path.resolve().relative_to(ROOT)
            of_device = files.setdefault(sm, {})
            key = case.run.environment["device"], path.parent.as_posix()
            of_device.setdefault(key, set()).add(path.name)
    parts = ["# By compute capability: devices, the folders of their results, and the files there."]
    parts.append("SOURCES: dict[tuple[int, int], tuple[tuple[str, str, tuple[str, ...]], ...]] = {")
    for sm, of_device in files.items():
        parts.append(f"    {sm}: (")
        for (device, folder), names in sorted(of_device.items()):
            parts += ["        (", f'            "{device}",', f'            "{folder}",']
            parts += [f"            {_tuple(sorted(names))},", "        ),"]
        parts.append("    ),")
    parts.append("}\n")
    parts.append("# By compute capability, then by numbers and work.")
    parts.append("FASTEST: dict[tuple[int, int], dict[tuple[str, str], Measured]] = {")
    for sm, lines in tables.items():
        parts += [f"    {sm}: {{", *lines, "    },"]
    parts.append("}\n")
    return HEAD + "\n".join(parts)


def _tuple(names: Sequence[str]) -> str:
    return f"({', '.join(f'{chr(34)}{name}{chr(34)}' for name in names)}{',' * (len(names) == 1)})"


def table(runs: Sequence[Run]) -> list[list[str]]:
    """A line a case: what ``auto`` takes, its time, nn.LSTM's, and how many times faster it is.

    The times are of ``impl=`` by that name. "-": not measured.
    """
    sys.path.insert(0, str(ROOT))
    from ganlstm_fast.ops.lstm import fit

    lines = [["numbers", "work", "case", "auto takes", "a call", "nn.LSTM", "ratio", "from"]]
    for (sm, numbers, work), cases in timed_cases(runs).items():
        for case in cases:
            order = fit.order(sm, numbers, work, case.hidden)
            taken = next((kernel for kernel in order if _known(kernel, case)), None)
            if taken is None:
                continue
            times = [_microseconds(case.ours.get(taken)), _microseconds(case.rival)]
            ratio = f"{case.ratios[taken]:.2f}x" if taken in case.ratios else "-"
            lines.append([numbers, work, case.case, taken, *times, ratio, case.run.path.name])
    return lines


def _microseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e6 * seconds:.0f} us"


def overview(runs: Sequence[Run]) -> list[list[str]]:
    """For each kind of numbers, how many times faster what ``auto`` takes is, over the cases.

    Of torch's LSTM only where it is taken.
    """
    found: dict[tuple[str, str], dict[str, list[tuple[int, float]]]] = {}
    for numbers, work, case, taken, _, _, ratio, _ in table(runs)[1:]:
        if ratio != "-" or taken == "torch":
            hidden = int(case.rpartition("H")[2])
            by_taken = found.setdefault((numbers, work), {})
            times = 1.0 if taken == "torch" else float(ratio.rstrip("x"))
            by_taken.setdefault(taken, []).append((hidden, times))
    works = list(WORKS.values())
    lines = [["numbers", *works]]
    for numbers in dict.fromkeys(numbers for numbers, _ in found):
        cells = [found.get((numbers, work), {}) for work in works]
        lines.append([numbers, *("; ".join(map(_range, c, c.values())) or "-" for c in cells)])
    return lines


def _range(taken: str, cases: Sequence[tuple[int, float]]) -> str:
    sizes, ratios = sorted({hidden for hidden, _ in cases}), [ratio for _, ratio in cases]
    where = f"{taken} at H {', '.join(map(str, sizes))}"
    if taken == "torch":
        return where
    least, most = min(ratios), max(ratios)
    return f"{where}: **{least:.1f}x**" + (f" to **{most:.1f}x**" if most > least else "")


def _known(kernel: str, case: Timed) -> bool:
    return kernel in case.ours or (kernel == "torch" and case.rival is not None)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="1 if the file is another")
    what.add_argument("--table", action="store_true", help="print what is taken in each case")
    options = parser.parse_args(arguments)
    runs = collect([RESULTS])
    if options.table:
        from report import markdown_table

        print(markdown_table(table(runs)))
        return 0
    text = source(runs)
    if TABLE.exists() and TABLE.read_text() == text:
        return 0
    if options.check:
        print(f"{TABLE.relative_to(ROOT)} is not what the results give; run benchmarks/choices.py")
        return 1
    write_whole(TABLE, text)
    print(f"wrote {TABLE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

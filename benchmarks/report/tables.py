"""Tables of rows, of how cost grows, and of a run's environment, as Markdown."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.report.rows import Environment, Row, rate

Line = dict[str, str]  # a table's line by column

FRACTION, BESIDE = OPTIONAL = ("of the ceiling", "share of another's")
MEDIAN, RANGE, SPEED = TIMES = ("median", "20% .. 80%", "speed over the fastest rival")
PEAK, PEAKS = MEMORY = ("peak over the base", "least .. most")
# name in a result file, what it is, unit, scale
CEILINGS = (
    ("multiply_adds", "float32 multiply-adds", "G/s", 1e-9),
    ("multiply_adds_1", "of one thread", "G/s", 1e-9),
    ("bf16_dot", "bf16 dot products", "G/s", 1e-9),
    ("tf32", "TF32 multiply-adds", "G/s", 1e-9),
    ("copy", "copy, read and written", "GB/s", 1e-9),
    ("ping_pong", "thread to thread", "ns", 1e9),
    ("launch", "launch of a kernel", "us", 1e6),
    ("launch_in_graph", "in a graph", "us", 1e6),
)
# The ceilings that every run names, also where it lacks them.
ALWAYS = ("multiply_adds", "copy")
SIZES = ("T", "B", "H", "layers")  # that may grow
USUAL = (("layers", 1), ("directions", 1))  # sizes that a title does not name
LEAST_POINTS = 3  # for a slope


def markdown_table(lines: Sequence[Line], aligned: bool = False) -> str:
    """The columns of the first line, without those of ``OPTIONAL`` that no line fills.

    Args:
        aligned: pad the cells, for a terminal; a very wide one does not make the others wide.
    """
    if not lines:
        return ""
    filled = {name for line in lines for name in line if line[name] != "-"}
    columns = [name for name in lines[0] if name in filled or name not in OPTIONAL]
    cells = [columns, *([line[name] for name in columns] for line in lines)]
    if aligned:
        widths = [min(max(map(len, column)), 44) for column in zip(*cells, strict=True)]
        cells = [[*map(str.ljust, line, widths)] for line in cells]
    header, *others = (f"| {' | '.join(line)} |" for line in cells)
    return "\n".join([header, "|---" * len(columns) + "|", *others])


def seconds(value: float) -> str:
    """A time in three digits with its unit."""
    unit, scale = ("s", 1.0) if value >= 1 else ("ms", 1e3) if value * 1e3 >= 1 else ("us", 1e6)
    return f"{value * scale:.3g} {unit}"


def short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def median(row: Row) -> str:
    return f"{short(row['median_mib'])} MiB" if "median_mib" in row else seconds(row["median_s"])


def with_spread(row: Row, name: str, of: str = "") -> str:
    """A ratio, and the middle 60% of its rounds where the row has rounds."""
    low, high = row.get(f"{name}_p20"), row.get(f"{name}_p80")
    return f"{row[name]:.2f}x{of}" + ("" if low is None else f" ({low:.2f} .. {high:.2f})")


def fraction(environment: Environment, row: Row) -> str:
    """The share of the machine's multiply-adds that the row's work would need in its time."""
    available, needed = rate(environment, row), row.get("multiply_adds")
    if available is None or needed is None or "median_s" not in row:
        return "-"
    share = needed / row["median_s"] / available
    return f"{100 * share:.{0 if share >= 0.1 else 1}f}%"


def _figures(row: Row) -> Line:
    """The median, its spread, and for times the ratio to the fastest rival with its spread."""
    if "median_mib" in row:
        return {PEAK: median(row), PEAKS: f"{short(row['least_mib'])} .. {short(row['most_mib'])}"}
    line = {MEDIAN: median(row)}
    if "p20_s" in row:
        line[RANGE] = f"{seconds(row['p20_s'])} .. {seconds(row['p80_s'])}"
    if "ratio" in row:
        is_rival = row["rival"] == row["implementation"]
        fastest = f"{row['ratio']:.2f}x (fastest rival)"
        line[SPEED] = fastest if is_rival else with_spread(row, "ratio")
    return line


def contenders(environment: Environment, rows: Sequence[Row]) -> list[Line]:
    """A line for each row, of one group."""
    usual = MEMORY if any("median_mib" in row for row in rows) else TIMES
    lines, before = [], None
    for row in rows:
        case = f"{row['case']}, {row['dtype']}"
        line = dict.fromkeys(("case", "implementation", *usual, FRACTION, BESIDE), "-")
        line |= {"case": "" if case == before else case, "implementation": row["implementation"]}
        if row.get("skipped") or not {"median_s", "median_mib"} & row.keys():
            line[usual[1]] = row.get("skipped") or "not measured"
        else:
            line |= _figures(row) | {FRACTION: fraction(environment, row)}
        if row.get("beside") not in (None, row["implementation"]) and "beside_ratio" in row:
            line[BESIDE] = with_spread(row, "beside_ratio", f" of {row['beside']}")
        lines.append(line)
        before = case
    return lines


def markdown(environment: Environment, rows: Sequence[Row], aligned: bool = False) -> str:
    """A run as Markdown: its environment, then one table a group, with a row a contender."""
    parts = describe(environment)
    by_group: dict[str, list[Row]] = {}
    for row in rows:
        by_group.setdefault(row["group"], []).append(row)
    for group, members in by_group.items():
        table = markdown_table(contenders(environment, members), aligned)
        parts.append(f"**{group}**\n\n{table}")
    return "\n\n".join(parts) + "\n"


def ceilings(environment: Environment) -> str:
    """What the machine could do at the beginning and at the end of the run."""
    measured, parts = environment.get("ceilings", {}).values(), []
    for name, what, unit, scale in CEILINGS:
        values = [c.get(name) for c in measured]
        if any(values):
            texts = ("-" if v is None else short(v * scale) for v in values)
            parts.append(f"{what} {', then '.join(texts)} {unit}")
        elif name in ALWAYS:
            parts.append(f"{what} not measured")
    return "; ".join(parts)


def describe(environment: Environment) -> list[str]:
    """The environment and its ceilings, a line each."""
    e = environment
    isa = f"{e['isa']}, kernels for {e.get('isa_of_kernels')}, torch's for {e.get('isa_of_torch')}"
    limits = e.get("isa_limits", "default")
    return [
        f"{e['device']}, {e['threads']} threads on {e['cores']} cores, {isa}"
        + (f" (held by {limits})" if limits != "default" else ""),
        f"torch {e['torch']}, ganlstm_fast {e['ganlstm_fast']} ({e['commit']}), "
        f"Python {e['python']}; allocator: {e['allocator']}; shapes: {e['preset']}"
        + (f"; measured {e['measured']}" if "measured" in e else "")
        + (f"; {e['note']}" if "note" in e else ""),
        f"at the beginning of the run, then at its end: {ceilings(e)}",
    ]


def sizes_of(row: Row) -> dict[str, Any]:
    """The sizes of a row's work by name. Samples are a batch, equal weights are layers."""
    shapes = dict(row["shapes"])
    if "samples" in shapes and "critic" not in shapes:
        batch, *rest = shapes.pop("samples")
        return {"B": batch, "sample": "x".join(map(str, rest)), **shapes}
    weights = shapes.get("weights")
    if weights and all(weight == weights[0] for weight in weights):
        del shapes["weights"]
        return {"layers": len(weights), "weight": "x".join(map(str, weights[0])), **shapes}
    return {name: value for name, value in shapes.items() if isinstance(value, int | str)}


def slopes(rows: Iterable[Row]) -> list[Line]:
    """By which power of a size, its other sizes fixed, the time of an implementation grows.

    The exponent is that of the best fit: 1 where twice the size costs twice the time.
    """
    found: dict[tuple[str, str, str], dict[int, float]] = {}
    for size, row in itertools.product(SIZES, rows):
        sizes = sizes_of(row)
        if row.get("median_s") is not None and size in sizes:
            at, others = sizes.pop(size), (item for item in sizes.items() if item not in USUAL)
            words = " ".join(v if isinstance(v, str) else f"{k}{v}" for k, v in others)
            name = size, f"{row['group']}: {words}", row["implementation"]
            found.setdefault(name, {})[at] = row["median_s"]
    lines = []
    for (size, title, implementation), times in found.items():
        if len(times) >= LEAST_POINTS:
            at = sorted(times)
            slope = np.polyfit(np.log(at), np.log([times[n] for n in at]), 1)[0]
            line = {"work": title, "size": f"{size} {' '.join(map(str, at))}"}
            lines.append(line | {"implementation": implementation, "exponent": f"{slope:.2f}"})
    return lines

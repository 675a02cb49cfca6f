"""A device's results in a few lines: by shape, by piece of work, how cost grows, what is lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.report.devices import Device
from benchmarks.report.rows import Case, Key, Row, percentiles, relation
from benchmarks.report.tables import FRACTION, Line, fraction, median

SIZES = ("T", "B", "H", "layers")  # that may grow
LEAST_POINTS = 3  # for a slope

Series = dict[str, dict[str, dict[int, float]]]


def _ours(device: Device) -> Iterator[tuple[Key, Case, Row, list[float | None]]]:
    """Each of ours that was measured beside a rival, and its ratio in each kind of run."""
    for key, case in device.cases().items():
        for row in case.rows:
            if row["ours"] and relation(row) is not None:
                name = row["implementation"]
                kinds = [k[key].rows if key in k else [] for k in device.kinds.values()]
                same = [
                    [relation(r) for r in rows if r["implementation"] == name] for rows in kinds
                ]
                yield key, case, row, [next(iter(found), None) for found in same]


def by_shape(device: Device) -> dict[str, list[Line]]:
    """Tables of "times" and of "memory": a row for each of ours in each case.

    The medians are those of the first kind of run that has the case, in the file that is named; the
    ratio is that of each kind. Of times, it is how many times faster ours is; of memory, the share
    that ours takes.
    """
    ratios = [f"ratio, {kind}" for kind in device.kinds]
    times = ("work", "shape", "ours", "median", "fastest rival", FRACTION, *ratios, "file")
    memory = ("memory", "shape", "ours", "peak", "least rival", *ratios, "file")
    tables: dict[str, list[Line]] = {"times": [times], "memory": [memory]}
    for key, case, row, values in _ours(device):
        line = [*key[:2], row["implementation"], median(row)]
        line.append(f"{median(case.row(row['rival']))} ({row['rival']})")
        if "median_s" in row:
            line.append(fraction(case.run.environment, row))
        line += ["-" if v is None else f"**{v:.2f}x**" for v in values]
        line.append(case.run.path.name)
        tables["memory" if "median_mib" in row else "times"].append(line)
    return {name: lines for name, lines in tables.items() if len(lines) > 1}


def overview(device: Device) -> list[Line]:
    """A row for each of ours in each group: least, median and most ratio over the shapes."""
    found: dict[tuple[str, str], list[list[float | None]]] = {}
    for (group, *_), _, row, values in _ours(device):
        if "ratio" in row:
            found.setdefault((group, row["implementation"]), []).append(values)
    lines: list[Line] = [("work", "ours", "shapes", *device.kinds)]
    for names, ratios in found.items():
        cells = (_range([v for v in kind if v is not None]) for kind in zip(*ratios, strict=True))
        lines.append((*names, str(len(ratios)), *cells))
    return lines


def _range(ratios: list[float]) -> str:
    if len(ratios) < 2:
        return f"**{ratios[0]:.2f}x**" if ratios else "-"
    return f"{min(ratios):.2f} .. **{percentiles(ratios)[1]:.2f}x** .. {max(ratios):.2f}"


def lost(device: Device) -> list[str]:
    """The cases in which the first of ours is slower than a rival, as text."""
    firsts = [(key, case.first or {}) for key, case in device.cases().items()]
    return [
        f"{group}, {shape} ({row['implementation']}, {row['ratio']:.2f}x)"
        for (group, shape, _), row in firsts
        if row.get("ratio", 1) < 1
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


def series(rows: Iterable[Row], size: str) -> Series:
    """By piece of work (its other sizes fixed) and implementation, seconds by ``size``."""
    found: Series = {}
    for row in rows:
        sizes = sizes_of(row)
        if row.get("median_s") is None or size not in sizes:
            continue
        at, hidden = sizes.pop(size), {"layers": 1, "directions": 1}.items()
        others = [item for item in sizes.items() if item not in hidden]
        words = " ".join(v if isinstance(v, str) else f"{k}{v}" for k, v in others)
        lines = found.setdefault(f"{row['group']}: {words}", {})
        lines.setdefault(row["implementation"], {})[at] = row["median_s"]
    grown = {
        title: {name: dict(sorted(line.items())) for name, line in lines.items() if len(line) > 1}
        for title, lines in found.items()
    }
    return {title: lines for title, lines in grown.items() if lines}


def slope(line: dict[int, float]) -> float:
    """The exponent p of the power ``size ** p`` that fits best: 1 where twice costs twice."""
    return float(np.polyfit(np.log(list(line)), np.log(list(line.values())), 1)[0])


def slopes(rows: Sequence[Row]) -> list[Line]:
    """A header and a line for each implementation that was timed at several values of a size."""
    lines: list[Line] = []
    for size in SIZES:
        for title, of_title in series(rows, size).items():
            for name, line in of_title.items():
                if len(line) >= LEAST_POINTS:
                    values = f"{size} {' '.join(map(str, line))}"
                    lines.append((title, values, name, f"{slope(line):.2f}"))
    return [("work", "size", "implementation", "exponent"), *lines] if lines else []

"""How time and memory grow with a size: the rows that differ in it alone, and their slope."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from devices import Device
from report import Cell
from rows import Row

# The sizes that may grow, and how an axis calls them.
SIZES = {"T": "time steps T", "B": "batch B", "H": "hidden size H", "layers": "layers"}
LEAST_POINTS = 3  # for a slope


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
    return {name: value for name, value in shapes.items() if isinstance(value, (int, str))}


def series(
    rows: Iterable[Row], size: str, figure_of: str
) -> dict[str, dict[str, dict[int, float]]]:
    """By piece of work (its other sizes fixed) and implementation, a figure against one size.

    Args:
        size: of ``SIZES``.
        figure_of: "median_s", "median_mib" or "peak_mib".
    """
    found: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        sizes = sizes_of(row)
        if row.get(figure_of) is None or size not in sizes:
            continue
        others = {k: v for k, v in sizes.items() if k != size}
        plain = {k: v for k, v in others.items() if k not in ("layers", "directions") or v != 1}
        words = " ".join(v if isinstance(v, str) else f"{k}{v}" for k, v in plain.items())
        title = f"{row['group']}\n{words}"
        line = found.setdefault(title, {}).setdefault(row["implementation"], {})
        line[sizes[size]] = row[figure_of]
    return {
        title: kept
        for title, lines in found.items()
        if (kept := {name: dict(sorted(p.items())) for name, p in lines.items() if len(p) > 1})
    }


def slope(line: dict[int, float]) -> float:
    """The exponent p of the power ``size ** p`` that fits best: 1 where twice costs twice."""
    return float(np.polyfit(np.log(list(line)), np.log(list(line.values())), 1)[0])


def of_device(device: Device) -> list[tuple[Cell, ...]]:
    return slopes([row for case in device.cases().values() for row in case.rows])


def slopes(rows: Sequence[Row]) -> list[tuple[Cell, ...]]:
    """A header and a line for each implementation that was timed at several values of a size."""
    lines: list[tuple[Cell, ...]] = []
    for size in SIZES:
        for title, implementations in series(rows, size, "median_s").items():
            for name, line in implementations.items():
                if len(line) >= LEAST_POINTS:
                    values = " ".join(map(str, line))
                    exponent = slope(line)
                    work = title.replace("\n", ": ")
                    lines.append((work, f"{size} {values}", name, (f"{exponent:.2f}", exponent)))
    return [("work", "size", "implementation", "exponent"), *lines] if lines else []

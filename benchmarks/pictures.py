"""Pictures of a device's results: speed by shape, memory, and those of ``curves.py``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from curves import growth, roofline
from devices import Device
from growth import SIZES
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from plotting import (
    COLOURS,
    WIDTH,
    arithmetic,
    drawn,
    legend,
    log_ticks,
    number,
    short_names,
    styles,
)
from rows import Case, Row, family


def speed_ups(device: Device) -> dict[str, dict[str, list[Row]]]:
    """By family and dtype, and by shape, the first of ours in each group that has it."""
    panels: dict[str, dict[str, list[Row]]] = {}
    for (_, shape, _), case in device.cases().items():
        row = case.first
        if row is not None and "ratio" in row:
            panel = panels.setdefault(f"{family(row)}, {arithmetic(row)}", {})
            panel.setdefault(shape, []).append(row)
    return panels


def digest(device: Device) -> str:
    """Of what ``speed_up`` shows."""
    shown = {
        panel: {
            shape: [
                [row["group"], row["implementation"], row["ratio"], *_spread(row)] for row in rows
            ]
            for shape, rows in shapes.items()
        }
        for panel, shapes in speed_ups(device).items()
    }
    return hashlib.sha256(json.dumps([device.name, shown]).encode()).hexdigest()[:16]


@drawn
def speed_up(device: Device) -> Figure | None:
    """How many times faster than the fastest rival, by shape, with the middle 60% of the rounds."""
    panels = speed_ups(device)
    if not panels:
        return None
    groups = [_groups(shapes) for shapes in panels.values()]
    heights = [
        max(sum(_height(rows) for rows in shapes.values()), 0.75 * len(names), 2)
        for shapes, names in zip(panels.values(), groups, strict=True)
    ]
    figure = Figure(figsize=(WIDTH, 0.8 + 0.27 * sum(heights) + 0.5 * len(panels)))
    all_axes = figure.subplots(
        len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    figure.set_layout_engine("constrained")
    rows = [row for shapes in panels.values() for of_shape in shapes.values() for row in of_shape]
    low = min(0.8, *(0.9 * _spread(row)[0] for row in rows))
    high = max(2.0, *(1.1 * _spread(row)[1] for row in rows))
    for axes, (title, shapes), names in zip(all_axes, panels.items(), groups, strict=True):
        _speed_panel(axes, shapes, names)
        axes.set_title(title, loc="left", fontweight="bold", fontsize=9.5)
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.axvspan(low, 1, color="#f1f1f1", zorder=0)
        axes.axvline(1, color="#555555", linewidth=1)
        axes.tick_params(axis="x", labelbottom=True)
        log_ticks(axes.xaxis, low, high, "x")
    all_axes[-1].set_xlabel(
        "speed over the fastest rival (grey: slower), median and middle 60% of the rounds"
    )
    figure.suptitle(device.name, fontsize=10.5, x=0.01, ha="left")
    return figure


def _spread(row: Row) -> tuple[float, float]:
    """The middle 60% of the ratios; of a result that has its median alone, that."""
    return row.get("ratio_p20", row["ratio"]), row.get("ratio_p80", row["ratio"])


def _groups(shapes: dict[str, list[Row]]) -> list[str]:
    return list(dict.fromkeys(row["group"] for rows in shapes.values() for row in rows))


def _height(rows: Sequence[Row]) -> float:
    """Of a shape's line, where 1 is that of its text."""
    return max(1.0, 0.35 * len(rows) + 0.3)


def _speed_panel(axes: Axes, shapes: dict[str, list[Row]], groups: Sequence[str]) -> None:
    looks, names = styles(groups), short_names(groups)
    centres, top = [], 0.0
    for rows in shapes.values():
        height = _height(rows)
        centres.append(top + height / 2)
        for place, row in enumerate(rows):
            y = centres[-1] + (0.25 if height == 1 else 0.35) * (place - (len(rows) - 1) / 2)
            style, label = looks[row["group"]], names[row["group"]]
            axes.plot(_spread(row), (y, y), color=style["color"], linewidth=1.4, alpha=0.6)
            axes.plot(row["ratio"], y, linestyle="none", markersize=5, label=label, **style)
        top += height
        axes.axhline(top, color="#e4e4e4", linewidth=0.8)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_yticks(centres, list(shapes))
    axes.set_ylim(top, 0)
    unique = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    legend(axes, handles=unique.values(), labels=unique.keys(), fontsize=8)


@drawn
def memory(device: Device) -> Figure | None:
    """The peak of every contender in every piece of work whose memory was measured."""
    cases = [case for case in device.cases().values() if _measured(case)]
    if not cases:
        return None
    heights = [len(_measured(case)) for case in cases]
    figure = Figure(figsize=(WIDTH, 0.5 + 0.27 * sum(heights) + 0.55 * len(cases)))
    figure.set_layout_engine("constrained")
    ratios = {"height_ratios": heights}
    grid = figure.subplots(len(cases), 1, squeeze=False, gridspec_kw=ratios)[:, 0]
    for axes, case in zip(grid, cases, strict=True):
        rows = _measured(case)
        for y, row in enumerate(rows):
            peak, ours = row["median_mib"], row["ours"]
            look = {"color": COLOURS[0 if ours else 1], "hatch": None if ours else "///"}
            axes.barh(y, peak, height=0.7, edgecolor="white", **look)
            axes.text(peak, y, f" {number(peak)} MiB", va="center", fontsize=8)
        axes.set_yticks(range(len(rows)), [row["implementation"] for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 1.15 * max(row["median_mib"] for row in rows))
        axes.grid(axis="y", visible=False)
        title = f"{rows[0]['group'].removeprefix('peak memory, ')}, {rows[0]['case']}"
        axes.set_title(title, loc="left", fontsize=9, fontweight="bold")
    grid[-1].set_xlabel("peak over what was there before the call, MiB (hatched: rivals)")
    return figure


def _measured(case: Case) -> list[Row]:
    return [row for row in case.rows if "median_mib" in row]


def made(device: Device) -> dict[str, tuple[str, Figure]]:
    """By name of the file, what it shows and the picture; those alone that show something."""
    candidates = {"speed-up": ("Speed over the fastest rival, by shape", speed_up(device))}
    for size, long_name in SIZES.items():
        time, peak = growth(device, size, "median_s"), growth(device, size, "peak_mib")
        peak = peak or growth(device, size, "median_mib")
        candidates[f"time-by-{size}"] = (f"Time against {long_name}", time)
        candidates[f"memory-by-{size}"] = (f"Peak memory against {long_name}", peak)
    candidates["memory"] = ("Peak memory", memory(device))
    candidates["roofline"] = ("Under the machine's ceilings", roofline(device))
    return {name: shown for name, shown in candidates.items() if shown[1] is not None}

"""The picture of a device's results: how many times faster than the fastest rival, by shape.

Colours are Okabe and Ito's, which the colour-blind can tell apart; each has its own marker, too.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from PIL import Image

from benchmarks.report.devices import Device, family
from benchmarks.report.rows import write_whole

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "white",
}
# The PNG keeps a digest of what it shows, under this name.
DIGEST = "Description"


class Speed(NamedTuple):
    """How many times faster than the fastest rival: the median and the middle 60% of the rounds."""

    group: str
    implementation: str
    ratio: float
    low: float
    high: float


Shapes = dict[str, list[Speed]]


def speed_ups(device: Device) -> dict[str, Shapes]:
    """By family and dtype, and by shape, the first of ours in each group that has it."""
    panels: dict[str, Shapes] = {}
    for (group, shape, dtype), case in device.cases().items():
        row = case.first or {}
        if "ratio" in row:
            ratio = row["ratio"]
            spread = row.get("ratio_p20", ratio), row.get("ratio_p80", ratio)
            panel = f"{family(row)}, {'TF32' if row.get('tf32') else dtype}"
            speeds = panels.setdefault(panel, {}).setdefault(shape, [])
            speeds.append(Speed(group, row["implementation"], ratio, *spread))
    return panels


def digest(device: Device) -> str:
    """Of what the picture shows."""
    shown = json.dumps([device.name, speed_ups(device)])
    return hashlib.sha256(shown.encode()).hexdigest()[:16]


def digest_of(path: Path) -> str | None:
    """The digest that ``write`` put into a PNG; None if the file is missing."""
    if not path.exists():
        return None
    with Image.open(path) as image:
        return image.info.get(DIGEST)


def write(path: Path, device: Device) -> None:
    """Draw the picture in our style, whatever the user's matplotlib is set to."""
    target = io.BytesIO()
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}):
        figure = _drawn(device.name, speed_ups(device))
        figure.draw_without_rendering()  # settles the layout, which savefig then refines
        figure.savefig(target, format="png", dpi=130, metadata={DIGEST: digest(device)})
    write_whole(path, target.getvalue())


def _drawn(title: str, panels: dict[str, Shapes]) -> Figure:
    groups = [list(dict.fromkeys(s.group for s in _speeds(shapes))) for shapes in panels.values()]
    heights = [
        max(sum(map(_height, shapes.values())), 0.75 * len(names), 2)
        for shapes, names in zip(panels.values(), groups, strict=True)
    ]
    figure = Figure(figsize=(9.0, 0.8 + 0.27 * sum(heights) + 0.5 * len(panels)))
    ratios = {"height_ratios": heights}
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, gridspec_kw=ratios)[:, 0]
    figure.set_layout_engine("constrained")
    speeds = [speed for shapes in panels.values() for speed in _speeds(shapes)]
    low = min(0.8, *(0.9 * speed.low for speed in speeds))
    high = max(2.0, *(1.1 * speed.high for speed in speeds))
    for axes, (name, shapes), names in zip(grid, panels.items(), groups, strict=True):
        _panel(axes, shapes, names)
        axes.set_title(name, loc="left", fontweight="bold", fontsize=9.5)
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.axvspan(low, 1, color="#f1f1f1", zorder=0)
        axes.axvline(1, color="#555555", linewidth=1)
        axes.tick_params(axis="x", labelbottom=True)
        axes.set_xticks(_ticks(low, high))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:.3g}x")
    grid[-1].set_xlabel(
        "speed over the fastest rival (grey: slower), median and middle 60% of the rounds"
    )
    figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
    return figure


def _speeds(shapes: Shapes) -> list[Speed]:
    return [speed for of_shape in shapes.values() for speed in of_shape]


def _height(speeds: Sequence[Speed]) -> float:
    """Of a shape's line, where 1 is that of its text."""
    return max(1.0, 0.35 * len(speeds) + 0.3)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, as many as are readable."""
    for steps in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1,)):
        ticks = [m * 10.0**e for e in range(-12, 16) for m in steps if low <= m * 10.0**e <= high]
        if len(ticks) <= 8:
            break
    return ticks


def _panel(axes: Axes, shapes: Shapes, groups: Sequence[str]) -> None:
    looks = dict(zip(groups, itertools.cycle(zip(COLOURS, MARKERS, strict=True)), strict=False))
    names = short_names(groups)
    centres, top = [], 0.0
    for speeds in shapes.values():
        height = _height(speeds)
        centres.append(top + height / 2)
        for place, speed in enumerate(speeds):
            y = centres[-1] + (0.25 if height == 1 else 0.35) * (place - (len(speeds) - 1) / 2)
            colour, marker = looks[speed.group]
            axes.plot((speed.low, speed.high), (y, y), color=colour, linewidth=1.4, alpha=0.6)
            style = {"color": colour, "marker": marker, "markersize": 5, "linestyle": "none"}
            axes.plot(speed.ratio, y, label=names[speed.group], **style)
        top += height
        axes.axhline(top, color="#e4e4e4", linewidth=0.8)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_yticks(centres, list(shapes))
    axes.set_ylim(top, 0)
    unique = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    where = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.02), "borderaxespad": 0}
    axes.legend(unique.values(), unique.keys(), fontsize=8, **where)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Without the words that all of them begin with, and without the remark that all end with."""
    if len(names) < 2:
        return {name: name for name in names}
    words = zip(*(name.replace(",", " ,").split() for name in names), strict=False)
    same = itertools.takewhile(lambda word: len(set(word)) == 1, words)
    start = len(" ".join(word[0] for word in same).replace(" ,", ","))
    ends = {name.rpartition(", ")[2] for name in names}
    end = len(ends.pop()) + 2 if len(ends) == 1 else 0
    return {name: name[start : len(name) - end].lstrip(" ,") or name for name in names}

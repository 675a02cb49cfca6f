"""Pictures of growth with a size, and of what the machine's ceilings leave: the roofline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from devices import Device
from growth import SIZES, series
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from plotting import WIDTH, arithmetic, drawn, legend, log_ticks, number, short_names, styles
from rows import Case, Row, rate


@drawn
def growth(device: Device, size: str, figure_of: str) -> Figure | None:
    """A panel for each piece of work that was measured at several values of ``size``."""
    rows = [row for case in device.cases().values() for row in case.rows]
    panels = series(rows, size, figure_of)
    if not panels:
        return None
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH, 0.6 + 3.1 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    scale, unit = (1e3, "time (ms)") if figure_of == "median_s" else (1.0, "peak memory (MiB)")
    looks = styles(dict.fromkeys(name for lines in panels.values() for name in lines))
    handles: dict[str, Any] = {}
    for axes, (title, of_title) in zip(grid, panels.items(), strict=False):
        values = [scale * v for line in of_title.values() for v in line.values()]
        places = sorted({at for line in of_title.values() for at in line})
        for name, line in of_title.items():
            heights = [scale * v for v in line.values()]
            (handles[name],) = axes.plot(list(line), heights, markersize=5, **looks[name])
        axes.set(xscale="log", yscale="log", xlabel=SIZES[size], ylabel=unit)
        axes.set_xlim(places[0] / 1.15, places[-1] * 1.15)
        axes.set_ylim(min(values) / 1.4, max(values) * 1.4)
        axes.xaxis.set_major_locator(FixedLocator(places))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
        log_ticks(axes.yaxis, min(values) / 1.4, max(values) * 1.4)
        axes.set_title(title, loc="left", fontsize=9)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return figure


def least_bytes(row: Row) -> int | None:
    """What an LSTM's step must read and write at least: inputs and results, once each.

    None for rows of other shapes. The steps are those of ``lstm_work.py``.
    """
    shapes = row["shapes"]
    if not {"T", "B", "I", "H"} <= shapes.keys():
        return None
    T, B, I, H = (shapes[name] for name in "TBIH")  # noqa: E741
    layers, directions = shapes.get("layers", 1), shapes.get("directions", 1)
    steps = sum(shapes["lengths"]) if "lengths" in shapes else T * B
    widths = [I, *(directions * H for _ in range(layers - 1))]
    weights = sum(directions * 4 * H * (width + H + 2) for width in widths)
    x, y = steps * I, steps * directions * H
    if "forward+backward" in row["group"]:
        elements = 2 * x + 2 * weights + y  # x, weights and y's cotangent in, two gradients out
    elif "WGAN-GP" in row["group"]:
        elements = x + 2 * weights
    else:
        elements = x + weights + y
    size = {"float64": 8, "float32": 4}.get(row["dtype"], 2)
    return elements * size


def _on_the_roof(device: Device) -> Iterator[tuple[str, Case, Row, float]]:
    """Panel, case, row of ours, multiply-adds a byte."""
    for case in device.cases().values():
        row = case.first
        if row is None or not row.get("multiply_adds") or "median_s" not in row:
            continue
        moved, peak = least_bytes(row), rate(case.run.environment, row)
        if moved and peak:
            yield arithmetic(row), case, row, row["multiply_adds"] / moved


@drawn
def roofline(device: Device) -> Figure | None:
    """Multiply-adds a second against multiply-adds a byte, under the ceilings of the same run."""
    points = list(_on_the_roof(device))
    if not points:
        return None
    panels = list(dict.fromkeys(panel for panel, *_ in points))
    figure = Figure(figsize=(WIDTH, 0.4 + 3.6 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    intensities = [intensity for *_, intensity in points]
    for axes, panel in zip(grid, panels, strict=True):
        axes.set_xscale("log")
        axes.set_xlim(min(1.0, *intensities), 2 * max(intensities))
        log_ticks(axes.xaxis, *axes.get_xlim())
        _roof_panel(axes, [point[1:] for point in points if point[0] == panel])
        axes.set_title(panel, loc="left", fontweight="bold", fontsize=9.5)
        axes.tick_params(axis="x", labelbottom=True)
    grid[-1].set_xlabel(
        "multiply-adds for each byte that must move (inputs and results, once)\n"
        "filled: ours; hollow: the fastest rival at the same work"
    )
    return figure


def _roof_panel(axes: Axes, points: Sequence[tuple[Case, Row, float]]) -> None:
    environments = [case.run.environment for case, *_ in points]
    peak = max(rate(e, row) for e, (_, row, _) in zip(environments, points, strict=True))
    copies = [c.get("copy") for e in environments for c in e["ceilings"].values()]
    copy = max((c for c in copies if c), default=None)
    speeds = []
    groups = list(dict.fromkeys(row["group"] for _, row, _ in points))
    looks, names = styles(groups), short_names(groups)
    for case, row, intensity in points:
        style, label = looks[row["group"]], names[row["group"]]
        rival = next(r for r in case.rows if r["implementation"] == row["rival"])
        ours, theirs = (1e-9 * row["multiply_adds"] / r["median_s"] for r in (row, rival))
        speeds += [ours, theirs]
        axes.plot((intensity,) * 2, (ours, theirs), color=style["color"], linewidth=0.8, alpha=0.5)
        axes.plot(intensity, theirs, markersize=5, fillstyle="none", linestyle="none", **style)
        axes.plot(intensity, ours, markersize=6, linestyle="none", label=label, **style)
    left, right = axes.get_xlim()
    bends = [left, right]
    if copy is not None and left < peak / copy < right:
        bends.insert(1, peak / copy)
    roof = [1e-9 * min(peak, copy * at if copy else peak) for at in bends]
    axes.plot(bends, roof, color="#333333", linewidth=1.4)
    top = 1e-9 * peak
    axes.text(right, top * 1.08, f"measured: {number(top)} G/s", ha="right", fontsize=8)
    if copy is not None:
        text = f"copy: {number(1e-9 * copy)} GB/s"
        axes.text(1.15 * left, roof[0] * 0.95, text, fontsize=8, va="top")
    axes.set(yscale="log", ylabel="multiply-adds, G/s")
    bottom = min(*speeds, *roof) / 1.5
    axes.set_ylim(bottom, top * 1.6)
    log_ticks(axes.yaxis, bottom, top * 1.6)
    unique = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    legend(axes, handles=unique.values(), labels=unique.keys(), fontsize=8)

"""How our pictures look, and how they are written: by matplotlib, whole or not at all.

Colours are Okabe and Ito's, which the colour-blind can tell apart; each has its own marker, too.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from PIL import Image
from rows import Row, write_whole

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
    "svg.hashsalt": "ganlstm_fast",
}
WIDTH = 9.0
# How the digest of what a picture shows is kept in its PNG.
DIGEST = "Description"


def drawn(make: Callable[..., Figure | None]) -> Callable[..., Figure | None]:
    """``make`` in our style, whatever the user's matplotlib is set to."""

    def call(*args: Any, **options: Any) -> Figure | None:
        with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}):
            figure = make(*args, **options)
            if figure is not None:
                figure.draw_without_rendering()  # texts take their settings here
            return figure

    return call


def encoded(figure: Figure, kind: str, digest: str = "") -> bytes:
    """The bytes of a "png" or "svg" file."""
    metadata = {"Date": None} if kind == "svg" else {DIGEST: digest}
    target = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(target, format=kind, dpi=130, metadata=metadata)
    return target.getvalue()


def write(path: Path, figure: Figure, digest: str = "") -> None:
    write_whole(path, encoded(figure, path.suffix[1:], digest))


def digest_of(path: Path) -> str | None:
    """What ``write`` was given for this PNG; None where there is no such file."""
    if not path.exists():
        return None
    with Image.open(path) as image:
        return image.info.get(DIGEST)


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


def styles(names: Iterable[str]) -> dict[str, dict[str, str]]:
    looks = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False)
    return {n: {"color": c, "marker": m} for n, (c, m) in zip(names, looks, strict=False)}


def number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def log_ticks(axis: Any, low: float, high: float, unit: str = "") -> None:
    """Ticks at round numbers, as many as are readable."""
    exponents = range(-12, 16)
    for steps in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1,)):
        ticks = [m * 10.0**e for e in exponents for m in steps if low <= m * 10.0**e <= high]
        if len(ticks) <= 8:
            break
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{number(value)}{unit}"))


def legend(axes: Axes, **options: Any) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0, **options)


def arithmetic(row: Row) -> str:
    return "TF32" if row.get("tf32") else row["dtype"]

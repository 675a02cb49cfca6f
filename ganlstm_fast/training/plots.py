"""Pictures of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ganlstm_fast.training.checkpoint import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers tell apart.
REAL, FAKE = "#0072B2", "#D55E00"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "figure.constrained_layout.use": True,
}


@contextmanager
def drawing(width: float, height: float, **style: Any) -> Iterator[Figure]:
    """Yield an empty figure of a size in inches, in the project's style."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, **style}):
        yield Figure(figsize=(width, height))


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def plot_samples(
    path: Path,
    real: Tensor,
    generated: Tensor,
    columns: Sequence[str],
    units: dict[str, str] | None = None,
    shown: int = 6,
) -> None:
    """Real windows beside generated ones, a row a channel, and how the values are distributed.

    Args:
        real, generated: [n, steps, channels] in data units. Windows that are not finite are left
            out; the title says how many there are to draw from.
        shown: windows drawn of each kind, at evenly spaced ranks of their level; one colour is one
            window in all rows of a column.
    """
    import matplotlib

    real, generated = (part[part.isfinite().all((1, 2))].numpy() for part in (real, generated))
    shown = min(shown, len(real), len(generated) or len(real))
    colours = matplotlib.colormaps["viridis"](np.linspace(0.05, 0.9, shown))
    with drawing(10.5, 1.9 * len(columns) + 0.6) as figure:
        axes = figure.subplots(
            len(columns), 3, squeeze=False, gridspec_kw={"width_ratios": (3, 3, 1.6)}
        )
        spread = real.std((0, 1)) + 1e-12
        drawn = []
        for values in (real, generated):
            # From the lowest to the highest level, so that both kinds show their whole range and
            # like colours are alike.
            order = np.argsort((values.mean(1) / spread).sum(-1), kind="stable")
            ranks = (np.arange(shown) + 0.5) / shown * len(order)
            drawn.append(values[order[ranks.astype(int)]] if len(values) else values)
        for c, (name, row) in enumerate(zip(columns, axes, strict=True)):
            both = np.concatenate((real[..., c], generated[..., c]))
            low, high = both.min(), both.max()
            pad = 0.04 * (high - low) or 1.0
            kinds = ("Real", real), ("Generated", generated)
            for ax, values, (title, every) in zip(row, drawn, kinds, strict=False):
                for window, colour in zip(values[..., c], colours, strict=False):
                    ax.plot(np.arange(1, len(window) + 1), window, color=colour, lw=1.2)
                ax.set_xlim(1, values.shape[1])
                if c == 0:
                    ax.set_title(f"{title}, {len(values)} of {len(every)}", fontweight="bold")
                if c == len(columns) - 1:
                    ax.set_xlabel("step")
            bins = np.linspace(low, high, 21)
            for values, colour, label in ((real, REAL, "real"), (generated, FAKE, "generated")):
                share = np.histogram(values[..., c], bins)[0] / max(1, values[..., c].size)
                options = {"orientation": "horizontal", "color": colour}
                row[2].stairs(share, bins, fill=True, alpha=0.15, **options)
                row[2].stairs(share, bins, lw=1.3, label=label, **options)
            if np.histogram(real[..., c], bins)[0].max() > 0.4 * real[..., c].size:
                # Most values are the same, such as no rain; on a linear scale the rest would be
                # invisible.
                row[2].set_xscale("log")
                row[2].set_xlim(left=1e-4)
            row[2].xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
            unit = (units or {}).get(name)
            row[0].set_ylabel(f"{name}\n({unit})" if unit else name)
            for ax in row:
                ax.set_ylim(low - pad, high + pad)
            for ax in row[1:]:
                ax.tick_params(labelleft=False)
        axes[0][2].set_title("All values", fontweight="bold")
        axes[0][2].legend(loc="best", framealpha=0.8, edgecolor="none")
        axes[-1][2].set_xlabel("share")
        figure.align_ylabels(axes[:, 0])
        save_figure(figure, path)


def _smooth(values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over ``width`` steps and the steps at their middles."""
    means = np.convolve(values, np.ones(width) / width, mode="valid")
    return np.arange(len(means)) + 1 + (width - 1) / 2, means


def plot_losses(path: Path, history: Tensor, names: Sequence[str]) -> None:
    """Losses, the critic's gap and gradient norms over the steps, raw and smoothed.

    Args:
        history: [steps, len(names)].
    """
    curves = dict(zip(names, history.cpu().numpy().T, strict=True))
    both = ("critic", REAL), ("generator", FAKE)
    if "loss" in curves:
        panels = (
            ("Loss", (("loss", "", REAL),), "log"),
            ("Gradient norm", (("grad_norm", "", REAL),), "log"),
        )
        _plot_curves(path, curves, panels, "step")
        return
    panels = (
        ("Losses", (("loss_d", *both[0]), ("loss_g", *both[1])), "linear"),
        ("Critic gap: E[score of real] - E[score of generated]", (("gap", "", REAL),), "linear"),
        ("Gradient norm", (("grad_norm_d", *both[0]), ("grad_norm_g", *both[1])), "log"),
    )
    _plot_curves(path, curves, panels, "generator step")


def _plot_curves(
    path: Path, curves: dict[str, np.ndarray], panels: Sequence[Any], step: str
) -> None:
    width = max(1, len(next(iter(curves.values()))) // 100)
    with drawing(9, 7) as figure:
        axes = figure.subplots(len(panels), 1, sharex=True)
        for ax, (title, lines, scale) in zip(axes, panels, strict=True):
            for name, label, colour in lines:
                values = curves[name]
                ax.plot(np.arange(1, len(values) + 1), values, color=colour, lw=0.5, alpha=0.25)
                ax.plot(*_smooth(values, width), color=colour, lw=1.5, label=label)
            ax.set_title(title, loc="left", fontweight="bold")
            if scale == "log" and all((curves[n] > 0).any() for n, _, _ in lines):
                ax.set_yscale("log")
            else:
                ax.axhline(0, color="black", lw=0.6)
            if len(lines) > 1:
                ax.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
        axes[-1].set_xlabel(f"{step} (bold: mean over {width} steps)")
        save_figure(figure, path)

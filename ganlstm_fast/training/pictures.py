"""Pictures of images, forecasts, classes and anomaly scores."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganlstm_fast.training.checkpoint import atomic_write
from ganlstm_fast.training.datasets.anomalies import KINDS
from ganlstm_fast.training.plots import FAKE, REAL, drawing, save_figure


def grid(images: Tensor, columns: int, gap: int = 1) -> np.ndarray:
    """Images [n, channels, height, width] in [-1, 1] side by side: [height, width, 3] uint8."""
    count, _, height, width = images.shape
    rows = -(-count // columns)
    sheet = torch.ones(rows * columns, 3, height + gap, width + gap)
    sheet[:count, :, :height, :width] = images.clamp(-1, 1).expand(-1, 3, -1, -1) / 2 + 0.5
    sheet = sheet.view(rows, columns, 3, height + gap, width + gap).permute(0, 3, 1, 4, 2)
    sheet = sheet.reshape(rows * (height + gap), columns * (width + gap), 3)
    return (255 * sheet[: -gap or None, : -gap or None]).round().byte().numpy()


def write_image(path: Path, images: Tensor) -> None:
    """Write images as one PNG, pixel by pixel."""
    from matplotlib.image import imsave

    sheet = grid(images, max(1, round(len(images) ** 0.5)))
    with atomic_write(path) as temporary:
        imsave(temporary, sheet, format="png")


def plot_images(path: Path, real: Tensor, generated: Tensor, side: int = 8) -> None:
    """Real images beside generated ones."""
    shown = min(side * side, len(real), len(generated))
    some = torch.linspace(0, len(real) - 1, shown).long()
    with drawing(9, 4.8) as figure:
        parts = (("Real", real[some]), ("Generated", generated[:shown]))
        for ax, (title, images) in zip(figure.subplots(1, 2), parts, strict=True):
            ax.imshow(grid(images, side), interpolation="nearest")
            ax.set_title(f"{title}, {shown}", fontweight="bold")
            ax.set_axis_off()
        save_figure(figure, path)


def write_images(path: Path, images: Tensor, names: Sequence[str]) -> None:
    """Write each image as a PNG file of its name below a new folder, which comes whole or not.

    Raises:
        InputError: the folder cannot be written, or has something in it already.
    """
    from matplotlib.image import imsave

    with atomic_write(path) as temporary:
        shutil.rmtree(temporary, ignore_errors=True)
        for name, image in zip(names, images, strict=True):
            file = temporary / name
            file.parent.mkdir(parents=True, exist_ok=True)
            imsave(file, grid(image[None], 1), format="png")


def plot_translations(path: Path, kinds: Sequence[Sequence[Tensor]]) -> None:
    """Images of kinds a and b, below them their translations, and below these the way back.

    Args:
        kinds: of each kind three times [n, channels, height, width].
    """
    height = sum(0.4 + 2.1 * 12 / max(len(rows[0]), 6) for rows in kinds)
    with drawing(9, height, **{"axes.grid": False}) as figure:
        axes = figure.subplots(len(kinds), 1, squeeze=False)[:, 0]
        for k, (ax, rows) in enumerate(zip(axes, kinds, strict=True)):
            count, size = len(rows[0]), rows[0].shape[-1]
            ax.imshow(grid(torch.cat(tuple(rows)), count), interpolation="nearest")
            names = "ab"[k], f"to {'ba'[k]}", f"back to {'ab'[k]}"
            ax.set_yticks([(size + 1) * row + size / 2 for row in range(3)], names)
            ax.set_xticks([])
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
            ax.set_title(f"Held-out images of {'ab'[k]}, translated", fontweight="bold")
        save_figure(figure, path)


def plot_captions(path: Path, texts: Sequence[str], images: Tensor) -> None:
    """Texts, each beside as many of ``images`` [n, channels, height, width], in their order."""
    each = len(images) // len(texts)
    with drawing(9, 0.62 * len(texts) + 0.3) as figure:
        axes = figure.subplots(len(texts), 1, squeeze=False)[:, 0]
        for k, (ax, text) in enumerate(zip(axes, texts, strict=True)):
            row = grid(images[k * each : (k + 1) * each], each)
            ax.imshow(row, interpolation="nearest")
            ax.set_axis_off()
            ax.set_title(text, x=-0.02, y=0.5, ha="right", va="center", fontsize=9)
        save_figure(figure, path)


def plot_forecasts(
    path: Path,
    rows: Tensor,
    starts: Tensor,
    made: Tensor,
    columns: Sequence[str],
    units: dict[str, str] | None = None,
    times: np.ndarray | None = None,
) -> None:
    """The held-out rows and the forecasts of each made a step before, with their quantiles.

    Args:
        rows: [rows, channels]. starts: [n]. made: [n, horizon, channels (, quantiles)].
        times: [rows] datetime64[ns]; None: the rows are numbered.
    """
    first = made[:, 0].unsqueeze(-1) if made.dim() == 3 else made[:, 0]
    middle = first.shape[-1] // 2
    places = starts.numpy() + 1 if times is None else times[starts.numpy()]
    with drawing(10.5, 1.9 * len(columns) + 0.6) as figure:
        axes = figure.subplots(len(columns), 1, sharex=True, squeeze=False)[:, 0]
        for c, (ax, name) in enumerate(zip(axes, columns, strict=True)):
            ax.plot(places, rows[starts, c], color=REAL, lw=1, label="real")
            values = first[:, c].numpy()
            ax.plot(places, values[:, middle], color=FAKE, lw=1, label="forecast, 1 row ahead")
            if values.shape[1] > 1:
                ends = values[:, 0], values[:, -1]
                ax.fill_between(places, *ends, color=FAKE, alpha=0.15, lw=0)
            unit = (units or {}).get(name)
            ax.set_ylabel(f"{name}\n({unit})" if unit else name)
        axes[0].legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
        if times is None:
            axes[-1].set_xlabel("row")
        figure.align_ylabels(axes)
        save_figure(figure, path)


def plot_confusion(path: Path, confusion: Tensor, classes: Sequence[str]) -> None:
    """How often each class [rows] was taken for each [columns]."""
    with drawing(5.2, 4.8, **{"axes.grid": False}) as figure:
        ax = figure.subplots()
        share = (confusion / confusion.sum(1, keepdim=True).clamp(min=1)).numpy()
        ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for i, row in enumerate(confusion.tolist()):
            for j, count in enumerate(row):
                if count:
                    colour = "white" if share[i, j] > 0.5 else "black"
                    ax.text(j, i, str(count), ha="center", va="center", color=colour, fontsize=8)
        ax.set_xticks(range(len(classes)), classes)
        ax.set_yticks(range(len(classes)), classes)
        ax.set_xlabel("predicted")
        ax.set_ylabel("true")
        save_figure(figure, path)


def plot_attention(path: Path, cases: Sequence[tuple[str, str, Tensor]]) -> None:
    """Where a decoder looked for each symbol: the source, the written text, and the weights.

    Args:
        cases: the source, the target, and the weights [len(target) + 1, len(source)] of each, the
            last row before the end of the target.
    """
    heights = [len(target) + 1 for _, target, _ in cases]
    width = max(len(source) for source, _, _ in cases)
    size = (1.2 + 0.16 * width, 0.8 + sum(0.16 * height + 0.5 for height in heights))
    with drawing(*size, **{"axes.grid": False}) as figure:
        axes = figure.subplots(len(cases), 1, squeeze=False, height_ratios=heights)[:, 0]
        for ax, (source, target, weights) in zip(axes, cases, strict=True):
            ax.imshow(weights.float().numpy(), cmap="Blues", vmin=0, vmax=1, aspect="equal")
            ax.set_xticks(range(len(source)), list(source), fontfamily="monospace")
            ax.set_yticks(range(len(target) + 1), [*target, "end"], fontfamily="monospace")
            ax.tick_params(length=0, pad=2)
            ax.xaxis.tick_top()
            # One scale for all: a symbol is as wide in each.
            ax.set_xlim(-0.5, width - 0.5)
        save_figure(figure, path)


def plot_scores(
    path: Path, scores: Tensor, planted: Any, seq_len: int, threshold: float | None = None
) -> None:
    """The score of each window over the anomalies that were planted, if there are any, and the
    threshold."""
    colours = dict(zip(KINDS, ("#009E73", "#CC79A7", "#E69F00", "#56B4E9"), strict=True))
    with drawing(10.5, 3) as figure:
        ax = figure.subplots()
        for event in planted.events:
            seen = event.kind not in ax.get_legend_handles_labels()[1]
            ax.axvspan(
                event.start + 1,
                event.stop + 1,
                color=colours[event.kind],
                alpha=0.5,
                lw=0,
                label=event.kind if seen else None,
            )
        for start, stop in _runs(planted.stretches.first_rows(seq_len)):
            middle = np.arange(start, stop) + 1 + seq_len / 2
            ax.plot(middle, scores[: stop - start], color=REAL, lw=1)
            scores = scores[stop - start :]
        if threshold is not None:
            ax.axhline(threshold, color=FAKE, lw=1, ls="--", label="threshold")
        ax.set_xlabel("row (of a window: its middle)")
        ax.set_ylabel("score")
        if ax.get_legend_handles_labels()[1]:
            ax.legend(frameon=False, ncols=5, loc="lower right", bbox_to_anchor=(1, 1))
        save_figure(figure, path)


def _runs(first: Tensor) -> list[tuple[int, int]]:
    """The runs of consecutive rows in ``first`` int64: the first of each and the one after it."""
    edges = np.flatnonzero(np.diff(first.numpy()) > 1) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(first.numpy(), edges)]

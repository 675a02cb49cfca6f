"""Pictures of how generated samples lie among real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from ganlstm_fast.training.errors import UndefinedScore
from ganlstm_fast.training.metrics.series import autocorrelation
from ganlstm_fast.training.plots import FAKE, REAL, drawing
from ganlstm_fast.training.undefined import check_finite

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_overlays(real: Tensor, generated: Tensor, seed: int = 0) -> Figure:
    """Samples in two dimensions: by principal components of the real ones, and by t-SNE of both.

    van der Maaten and Hinton, Visualizing Data using t-SNE, 2008; as overlays of generated series:
    Yoon, Jarrett and van der Schaar, 2019.

    Args:
        real, generated: [n, ...] each, 8 or more together.

    Raises:
        UndefinedScore: values that are not finite, or all real samples are equal: they have no
            directions in which they differ.
    """
    for name, samples in (("real", real), ("generated", generated)):
        check_finite(name, samples)
    if (real == real[:1]).all():
        raise UndefinedScore(f"all {len(real)} real samples are equal")
    both = torch.cat((real, generated)).flatten(1).double().numpy()
    components = PCA(2, random_state=seed).fit(both[: len(real)])
    shares = components.explained_variance_ratio_
    perplexity = min(30.0, (len(both) - 1) / 3)
    near = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(both)
    panels = (
        (f"Principal components ({shares[0]:.0%} and {shares[1]:.0%})", components.transform(both)),
        ("t-SNE", near),
    )
    with drawing(9, 4.2) as figure:
        for ax, (title, points) in zip(figure.subplots(1, 2), panels, strict=True):
            for part, colour, label in (
                (points[: len(real)], REAL, "real"),
                (points[len(real) :], FAKE, "generated"),
            ):
                ax.scatter(*part.T, s=8, alpha=0.5, lw=0, color=colour, label=label)
            ax.set_title(title, fontweight="bold")
            ax.tick_params(labelleft=False, labelbottom=False)
        ax.legend(loc="best", framealpha=0.8, edgecolor="none")
    return figure


def plot_autocorrelation(real: Tensor, generated: Tensor, columns: Sequence[str]) -> Figure:
    """The autocorrelation of each channel [n, steps, channels] at all lags but the longest.

    Raises:
        UndefinedScore: values that are not finite.
    """
    most = max(1, real.shape[1] * 2 // 3)
    lags = np.arange(1, most + 1)
    with drawing(9, 2.6 * -(-len(columns) // 3)) as figure:
        axes = figure.subplots(-(-len(columns) // 3), 3, squeeze=False).flatten()
        for series, colour, label in ((real, REAL, "real"), (generated, FAKE, "generated")):
            found = autocorrelation(series, most).numpy()
            for c, (ax, name) in enumerate(zip(axes, columns, strict=False)):
                ax.plot(lags, found[:, c], color=colour, lw=1.5, marker=".", label=label)
                ax.set_title(name, fontweight="bold")
                ax.set_xlabel("lag")
        for ax in axes[len(columns) :]:
            ax.set_axis_off()
        axes[0].legend(frameon=False)
    return figure

"""How far two sets of samples are apart, and how varied one of them is.

All take float tensors on the CPU, compute in float64, and do not depend on the samples' order.
Distances are in the units of the data: scale it first, so that channels count alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.spatial.distance import cdist, pdist
from scipy.stats import wasserstein_distance
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from ganlstm_fast.training.errors import UndefinedScore
from ganlstm_fast.training.undefined import Undefined, check_finite, defined, defined_for


def mmd_squared(real: Tensor, generated: Tensor, bandwidth: float | None = None) -> float:
    """The squared maximum mean discrepancy between two sets of samples, unbiased.

    ``mean k(x, x') + mean k(y, y') - 2 mean k(x, y)``, the first two means over pairs of different
    samples, with ``k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2))``. For samples of one distribution
    its expectation is 0, and it may be below.

    Source: Gretton et al., A Kernel Two-Sample Test, JMLR 2012, eq. 3, and sec. 8 for the width.

    Args:
        real, generated: [n, ...] and [m, ...], at least 2 each. Takes ``8 n m`` bytes and more.
        bandwidth: of the kernel; None takes :func:`kernel_width` of all samples together. Give
            that of the real samples alone to compare several generators.

    Raises:
        UndefinedScore: fewer than 2 samples, values that are not finite, or all samples are equal
            and no width is given.
        ValueError: samples of different shapes, or a width that is not above 0.
    """
    x, y = _flat("real", real), _flat("generated", generated)
    _check_alike(real, generated)
    if bandwidth is None:
        bandwidth = kernel_width(torch.cat((real, generated)))
    if not bandwidth > 0:
        raise ValueError(f"bandwidth: expected more than 0, got {bandwidth}")
    within_x, within_y = pdist(x, "sqeuclidean"), pdist(y, "sqeuclidean")
    across = cdist(x, y, "sqeuclidean")

    def mean_kernel(squares: np.ndarray) -> float:
        return np.exp(squares / (-2 * bandwidth**2)).mean().item()

    return mean_kernel(within_x) + mean_kernel(within_y) - 2 * mean_kernel(across)


def kernel_width(samples: Tensor) -> float:
    """The median of the Euclidean distances between all pairs of ``samples`` that differ.

    Pairs of equal samples are left out, as in the code that Gretton et al. published with A Kernel
    Two-Sample Test (``median(dists(dists>0))``): where most samples are equal, such as windows of
    a count that is nearly always 0, the median of all distances is 0, which cannot be a width.

    Args:
        samples: [n, ...], 2 at least.

    Raises:
        UndefinedScore: fewer than 2 samples, values that are not finite, or all samples are equal.
    """
    distances = pdist(_flat("samples", samples))
    apart = distances[distances > 0]
    if not len(apart):
        raise UndefinedScore(
            f"all {len(samples)} samples are equal, and a kernel needs the distance between some "
            "as its width"
        )
    return float(np.median(apart))


def marginal_wasserstein(real: Tensor, generated: Tensor) -> float:
    """The Wasserstein-1 distance between the values at each place of a sample, averaged over these.

    A place is a channel at a step. In the units of the data; a shift of all by d gives d. It does
    not see how places depend on each other.

    Args:
        real, generated: [n, ...] and [m, ...], such as [n, steps, channels].

    Raises:
        UndefinedScore: fewer than 2 samples, or values that are not finite.
        ValueError: samples of different shapes.
    """
    x, y = _flat("real", real), _flat("generated", generated)
    _check_alike(real, generated)
    return float(np.mean([wasserstein_distance(*both) for both in zip(x.T, y.T, strict=True)]))


def diversity(real: Tensor, generated: Tensor) -> float:
    """How evenly the generated samples spread over the real ones, from 0 to 1.

    ``-sum_j p_j log p_j / log min(n, m)``, where ``p_j`` is the share of the generated samples of
    which real sample j is the nearest one. A generator that collapsed to one sample has 0, one that
    has k samples at most ``log k / log min(n, m)``, and the real set itself 1 if its samples all
    differ (equal ones count as one). New samples of the real distribution have about 0.9 (several
    have the same neighbour): compare with that of held-out real ones.

    Args:
        real, generated: [n, ...] and [m, ...], Euclidean distances between them.

    Raises:
        UndefinedScore: fewer than 2 samples, values that are not finite, or all real samples are
            equal, so that any generator would have 0.
        ValueError: samples of different shapes.
    """
    x, y = _flat("real", real), _flat("generated", generated)
    _check_alike(real, generated)
    different = np.unique(x, axis=0)
    if len(different) < 2:
        raise UndefinedScore(
            f"all {len(x)} real samples are equal: there is nothing to spread over"
        )
    search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(different)
    nearest = search.kneighbors(y, return_distance=False)[:, 0]
    share = np.bincount(nearest)[np.unique(nearest)] / len(y)
    return float(-(share * np.log(share)).sum() / math.log(min(len(x), len(y)))) + 0.0


def autocorrelation(series: Tensor, max_lag: int) -> Tensor:
    """The autocorrelation of each channel over a set of series, at lags 1 to ``max_lag``.

    ``mean d_t d_{t+k} / mean d_t^2``, where d are the deviations from the channel's mean over all
    series and steps, and the means are over all series and all steps for which both are there.
    Subtracting each series' own mean would bias it by ``1 / steps``. A constant channel has 0.

    Args:
        series: [n, steps, channels].

    Returns:
        [max_lag, channels] float64.

    Raises:
        UndefinedScore: fewer than 2 series, or values that are not finite.
        ValueError: another shape, or ``max_lag`` not from 1 to ``steps - 1``.
    """
    _flat("series", series)
    if series.ndim != 3:
        raise ValueError(f"series: expected [n, steps, channels], got {tuple(series.shape)}")
    steps = series.shape[1]
    if not 1 <= max_lag < steps:
        raise ValueError(f"max_lag: expected 1 to {steps - 1}, got {max_lag}")
    x = series.double()
    # Rounding of the mean would leave something to divide by.
    varies = x.amax((0, 1)) > x.amin((0, 1))
    d = (x - x.mean((0, 1))) * varies
    variance = torch.where(varies, d.square().mean((0, 1)), 1.0)
    lags = range(1, max_lag + 1)
    return torch.stack([(d[:, :-k] * d[:, k:]).mean((0, 1)) / variance for k in lags])


def autocorrelation_error(real: Tensor, generated: Tensor, max_lag: int | None = None) -> float:
    """The mean absolute difference of the :func:`autocorrelation`, over lags and channels.

    Channels in which all real values are equal are left out: they have no autocorrelation to be
    compared with. A generated channel that is constant where the real one is not counts as 0.

    Args:
        real, generated: [n, steps, channels] and [m, steps, channels].
        max_lag: the last lag compared; None takes half of the steps, at least 1.

    Raises:
        UndefinedScore: as :func:`autocorrelation`, or no real channel varies.
        ValueError: as :func:`autocorrelation`, or series of different shapes.
    """
    _check_alike(real, generated)
    for name, series in (("real", real), ("generated", generated)):
        check_finite(name, series)
    if max_lag is None:
        max_lag = max(1, real.shape[1] // 2)
    difference = autocorrelation(real, max_lag) - autocorrelation(generated, max_lag)
    varies = real.amax((0, 1)) > real.amin((0, 1))
    if not varies.any():
        raise UndefinedScore(
            "every channel of the real series is constant, which has no autocorrelation"
        )
    return difference[:, varies].abs().mean().item()


SCORES = ("mmd_squared", "marginal_wasserstein", "diversity", "autocorrelation_error")


def compare_series(
    real: Tensor,
    generated: Tensor,
    *,
    max_lag: int | None = None,
    most: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, float | Undefined]]:
    """The measures above for generated series, beside the same for real ones and for noise.

    All are against one random half of the real series; *real* is the other half, and *noise* is
    uniform over each channel's range. All have the same number of series, so that their errors of
    sampling are alike. The kernel's width is that of the first half. Where the real series are
    overlapping windows of one series, the two halves are closer to each other than a perfect
    generator's output would be.

    Args:
        real, generated: [n, steps, channels] and [m, steps, channels], scaled.
        max_lag: as for :func:`autocorrelation_error`.
        most: series of each kind that are used.

    Returns:
        Of each measure the number for ``generated``, ``real`` and ``noise``, or why there is none;
        :func:`~ganlstm_fast.training.undefined.for_json` writes it.

    Raises:
        UndefinedScore: fewer than 4 real or 2 generated series; none of ``SCORES`` has a value.
        ValueError: series of different shapes, or as :func:`autocorrelation_error`.
    """
    _check_alike(real, generated)
    generator = torch.Generator().manual_seed(seed)
    count = min(most, len(real) // 2, len(generated))
    if count < 2:
        raise UndefinedScore(
            f"{len(real)} real and {len(generated)} generated series are too few: two halves of "
            "the real ones and the generated ones are compared, with 2 in each"
        )
    mixed = real[torch.randperm(len(real), generator=generator)[: 2 * count]]
    reference, other = mixed[:count], mixed[count:]
    low, high = real.amin((0, 1)), real.amax((0, 1))
    uniform = torch.rand(other.shape, generator=generator, dtype=real.dtype)
    kinds = {
        "generated": generated[torch.randperm(len(generated), generator=generator)[:count]],
        "real": other,
        "noise": low + (high - low) * uniform,
    }
    width = defined(lambda: kernel_width(reference))

    def discrepancy(kind: Tensor) -> float:
        if isinstance(width, Undefined):
            raise UndefinedScore(width.reason)
        return mmd_squared(reference, kind, width)

    measures: tuple[Callable[[Tensor], float], ...] = (
        discrepancy,
        lambda kind: marginal_wasserstein(reference, kind),
        lambda kind: diversity(reference, kind),
        lambda kind: autocorrelation_error(reference, kind, max_lag),
    )
    found = zip(SCORES, measures, strict=True)
    return {name: defined_for(kinds, measure) for name, measure in found}


def _flat(name: str, samples: Tensor) -> np.ndarray:
    """[n, values] float64, checked."""
    if len(samples) < 2:
        raise UndefinedScore(f"{name}: expected at least 2 samples, got {len(samples)}")
    check_finite(name, samples)
    return samples.detach().flatten(1).double().numpy()


def _check_alike(real: Tensor, generated: Tensor) -> None:
    if real.shape[1:] != generated.shape[1:]:
        raise ValueError(
            f"generated: expected samples of shape {tuple(real.shape[1:])} as real has, "
            f"got {tuple(generated.shape[1:])}"
        )

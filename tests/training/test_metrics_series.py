"""Distances, diversity and autocorrelation of sets of series, at values that are known."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import rbf_kernel

from ganlstm_fast.training.datasets import sines
from ganlstm_fast.training.errors import UndefinedScore
from ganlstm_fast.training.metrics.series import (
    SCORES,
    autocorrelation,
    autocorrelation_error,
    compare_series,
    diversity,
    kernel_width,
    marginal_wasserstein,
    mmd_squared,
)
from ganlstm_fast.training.undefined import Undefined, for_json


def normal(count: int, *shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, generator=generator, dtype=torch.float64)


def test_mmd_is_the_unbiased_estimate():
    x, y = normal(7, 3, 2), normal(5, 3, 2, seed=1)
    width = kernel_width(torch.cat((x, y)))
    pairs = [(p - q).norm() for i, p in enumerate((*x, *y)) for q in (*x, *y)[:i]]
    assert width == pytest.approx(np.median(pairs))

    def kernel(a, b):
        return rbf_kernel(a.flatten(1), b.flatten(1), 0.5 / width**2)

    expected = (
        (kernel(x, x).sum() - 7) / 42 + (kernel(y, y).sum() - 5) / 20 - 2 * kernel(x, y).mean()
    )
    assert mmd_squared(x, y) == pytest.approx(expected, rel=1e-12)
    assert mmd_squared(x, y, 2 * width) != pytest.approx(expected, rel=1e-3)


def test_mmd_of_mostly_equal_samples_has_a_width():
    """The median of the distances that are above 0, though that of all of them is 0."""
    x = torch.zeros(10, 4)
    x[0, 0], x[1, 0] = 1.0, 4.0
    # 1 from the first to each of the 8 zeros, 4 from the second, and 3 between the two.
    assert np.median([1.0] * 8 + [4.0] * 8 + [3.0]) == 3.0
    assert kernel_width(x) == 3.0
    assert kernel_width(x.repeat(3, 1)) == 3.0
    assert mmd_squared(x, x.flip(0)) == mmd_squared(x, x.flip(0), 3.0)
    for all_equal in (torch.zeros(10, 4), torch.full((2, 3, 1), 0.1)):
        with pytest.raises(UndefinedScore, match="samples are equal, and a kernel needs"):
            mmd_squared(all_equal, all_equal)


def test_mmd_of_like_and_of_shifted_samples():
    # Over many draws of one distribution its mean is 0: the biased estimate's is 2 / n, 0.05.
    like = [
        mmd_squared(normal(40, 4, seed=2 * s), normal(40, 4, seed=2 * s + 1)) for s in range(50)
    ]
    assert abs(np.mean(like)) < 0.005
    assert min(like) < 0 < max(like)
    # Far apart, each kind has only its own kernel; the width is the distance between the two.
    far = mmd_squared(normal(40, 4), normal(40, 4, seed=1) + 1e4)
    assert far == pytest.approx(2 - 2 * math.exp(-0.5), abs=1e-2)
    # Of normal distributions whose means are |mu| apart there is a closed form.
    width, mu = 2.0, 1.0
    between = width**2 + 2
    expected = 2 * (width**2 / between) ** 2 * (1 - math.exp(-(mu**2) / (2 * between)))
    found = [
        mmd_squared(normal(500, 4, seed=2 * s), normal(500, 4, seed=2 * s + 1) + 0.5, width)
        for s in range(8)
    ]
    assert np.mean(found) == pytest.approx(expected, rel=0.15)


def test_wasserstein_of_a_shift():
    series = normal(50, 6, 3)
    shifted = series[torch.randperm(50)] + 0.25
    assert marginal_wasserstein(series, shifted) == pytest.approx(0.25)
    assert marginal_wasserstein(series, series.flip(0)) == 0
    # Each place counts alike: one of three channels moved by 3 is 1 on average.
    assert marginal_wasserstein(
        series, series + torch.tensor([0.0, -3.0, 0.0], dtype=torch.float64)
    ) == pytest.approx(1)
    # A set of all places together would see no difference.
    assert marginal_wasserstein(series, series.flip(1)) > 0.05


def test_diversity():
    real = normal(300, 5, 2)
    assert diversity(real, real) == pytest.approx(1)
    assert diversity(real, real[torch.randperm(300)][:100]) == pytest.approx(1)
    assert diversity(real, real[3].expand(200, -1, -1)) == 0
    few = torch.cat((real[:10],) * 30)
    assert diversity(real, few) == pytest.approx(math.log(10) / math.log(300))
    assert 0.8 < diversity(real, normal(300, 5, 2, seed=1)) < 0.95
    # Of 4 with one neighbour and 2 with another.
    two = real[torch.tensor([0, 0, 0, 0, 1, 1])]
    entropy = math.log(3) - 2 / 3 * math.log(2)
    assert diversity(real, two) == pytest.approx(entropy / math.log(6))
    # Equal real samples count as one, whichever of them is the nearest.
    half = torch.cat((real[:1].expand(3, -1, -1), real[1:4]))
    shares = torch.tensor([3.0, 1, 1, 1]) / 6
    entropy = -(shares * shares.log()).sum().item()
    assert diversity(half, half) == pytest.approx(entropy / math.log(6))
    with pytest.raises(UndefinedScore, match="all 3 real samples are equal"):
        diversity(half[:3], real)


def ar1(coefficient: float, count: int = 3000, steps: int = 12, seed: int = 0) -> torch.Tensor:
    """Stationary, of mean 5 and variance 4."""
    noise = normal(count, steps, seed=seed)
    values = [noise[:, 0]]
    for t in range(1, steps):
        values.append(coefficient * values[-1] + math.sqrt(1 - coefficient**2) * noise[:, t])
    return 5 + 2 * torch.stack(values, 1)


def test_autocorrelation_of_a_known_process():
    series = torch.stack((ar1(0.8), ar1(-0.5, seed=1), torch.full((3000, 12), 0.1).double()), 2)
    found = autocorrelation(series, 4)
    expected = torch.tensor([[0.8**k, (-0.5) ** k, 0] for k in (1, 2, 3, 4)], dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)
    assert (found[:, 2] == 0).all()
    # To the letter, on one that is known by hand: d = (-1, 0, 0, 1), variance 1/2.
    hand = torch.tensor([[[1.0], [2.0], [2.0], [3.0]]])
    both = torch.cat((hand, hand))
    torch.testing.assert_close(
        autocorrelation(both, 3)[:, 0], torch.tensor([0, 0, -2.0], dtype=torch.float64)
    )


def test_autocorrelation_error():
    a, b = ar1(0.8)[..., None], ar1(-0.5, seed=1)[..., None]
    assert autocorrelation_error(a, a.flip(0)) == pytest.approx(0, abs=1e-12)
    assert autocorrelation_error(a, ar1(0.8, seed=2)[..., None]) < 0.03
    expected = np.mean([abs(0.8**k - (-0.5) ** k) for k in range(1, 7)])
    assert autocorrelation_error(a, b) == pytest.approx(expected, abs=0.03)
    assert autocorrelation_error(a, b, 1) == pytest.approx(1.3, abs=0.03)
    constant = torch.full_like(a, 3.3)
    assert autocorrelation_error(a, constant, 1) == pytest.approx(0.8, abs=0.03)
    # A channel that is constant in the real series has no autocorrelation to compare with.
    both = torch.cat((a, constant), 2)
    assert autocorrelation_error(both, torch.cat((b, b), 2)) == pytest.approx(
        autocorrelation_error(a, b)
    )
    with pytest.raises(UndefinedScore, match="every channel of the real series is constant"):
        autocorrelation_error(constant, a)


def test_comparison_stands_between_its_bounds():
    generator = torch.Generator().manual_seed(0)
    real = sines(400, 12, 3, generator)
    found = compare_series(real, sines(400, 12, 3, generator))
    assert json.loads(json.dumps(found)) == found
    assert all(list(kinds) == ["generated", "real", "noise"] for kinds in found.values())
    for name in ("mmd_squared", "marginal_wasserstein", "autocorrelation_error"):
        assert abs(found[name]["generated"]) < 0.2 * found[name]["noise"]
        assert abs(found[name]["real"]) < 0.2 * found[name]["noise"]
    assert found["diversity"]["generated"] > 0.85
    assert found["diversity"]["real"] > 0.85
    collapsed = compare_series(real, real[:1].expand(400, -1, -1))
    assert collapsed["diversity"]["generated"] == 0
    assert collapsed["mmd_squared"]["generated"] > 20 * abs(collapsed["mmd_squared"]["real"])
    assert collapsed["mmd_squared"]["real"] == found["mmd_squared"]["real"]


def test_comparison_of_no_more_than_asked():
    real = normal(100, 4, 2)
    # With 2 series of each kind and no spread: the nearest of 2 is one of log 2.
    found = compare_series(real, real, most=2)
    assert found["diversity"]["generated"] in (0, 1)


@pytest.mark.parametrize(
    ("real", "has_none"),
    [
        (torch.zeros(20, 6, 2), {"mmd_squared", "diversity", "autocorrelation_error"}),
        (torch.full((20, 6, 2), 0.1), {"mmd_squared", "diversity", "autocorrelation_error"}),
        (torch.arange(48.0).view(4, 6, 2), set()),
    ],
    ids=["zero", "constant", "four"],
)
def test_a_measure_without_a_value_costs_no_other(real, has_none):
    found = compare_series(real, real)
    assert set(found) == set(SCORES)
    for name, kinds in found.items():
        assert list(kinds) == ["generated", "real", "noise"]
        for value in kinds.values():
            assert isinstance(value, Undefined if name in has_none else float)
    written = for_json(found)
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert {path.split(".")[0] for path in written.get("undefined", {})} == has_none


def test_a_generator_that_diverged_leaves_the_scores_of_real_data():
    real = normal(20, 6, 2)
    for bad in (math.nan, math.inf):
        found = compare_series(real, torch.full((20, 6, 2), bad))
        for kinds in found.values():
            assert kinds["generated"] == Undefined(
                "generated: expected finite values, got some that are not"
            )
            assert isinstance(kinds["real"], float)
            assert isinstance(kinds["noise"], float)


def test_too_few_series_to_compare():
    with pytest.raises(UndefinedScore, match="3 real and 9 generated series are too few"):
        compare_series(normal(3, 4, 2), normal(9, 4, 2))
    with pytest.raises(UndefinedScore, match="9 real and 1 generated series are too few"):
        compare_series(normal(9, 4, 2), normal(1, 4, 2))


@pytest.mark.parametrize("measure", [mmd_squared, marginal_wasserstein, diversity])
def test_samples_that_cannot_be_compared(measure):
    x = normal(5, 4, 2)
    with pytest.raises(
        ValueError, match=r"generated: expected samples of shape \(4, 2\).*\(4, 3\)"
    ):
        measure(x, normal(5, 4, 3))
    with pytest.raises(ValueError, match="real: expected at least 2 samples, got 1"):
        measure(x[:1], x)
    with pytest.raises(ValueError, match="generated: expected finite values"):
        measure(x, x.log())


def test_widths_and_lags_that_are_none():
    same = torch.zeros(5, 4, 2)
    with pytest.raises(ValueError, match=r"bandwidth: expected more than 0, got 0\.0"):
        mmd_squared(same, same, 0.0)
    for lag in (0, 4):
        with pytest.raises(ValueError, match=f"max_lag: expected 1 to 3, got {lag}"):
            autocorrelation(same, lag)
    with pytest.raises(ValueError, match=r"expected \[n, steps, channels\], got \(5, 4\)"):
        autocorrelation(same[..., 0], 1)

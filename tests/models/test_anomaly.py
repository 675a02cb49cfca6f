from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ganlstm_fast.models import (
    DCGAN,
    LSTMGAN,
    MLPGAN,
    AnomalyScores,
    ConditionalLSTMGAN,
    anomaly_scores,
    invert,
)

pytestmark = pytest.mark.usefixtures("one_thread")

N, T = 6, 8


@pytest.fixture
def gan() -> LSTMGAN:
    torch.manual_seed(0)
    return LSTMGAN(2, noise=4, hidden=6)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _series(gan: LSTMGAN) -> Tensor:
    """Half the samples come from the generator, the other half it cannot make."""
    usual = gan.generator.sample(N // 2, T, torch.Generator().manual_seed(2))
    unusual = torch.rand(N // 2, T, 2, generator=torch.Generator().manual_seed(3))
    return torch.cat((usual, unusual))


def test_what_the_generator_cannot_make_is_unusual(gan: LSTMGAN) -> None:
    series = _series(gan)
    scores = anomaly_scores(gan, series, weight=1.0, generator=_generator())
    assert all(part.shape == (N,) for part in scores)
    assert scores.reconstruction[: N // 2].max() < 0.5 * scores.reconstruction[N // 2 :].min()
    assert scores.total[: N // 2].max() < scores.total[N // 2 :].min()


def test_the_search_goes_down_and_says_where_it_was(gan: LSTMGAN) -> None:
    series = _series(gan)
    found = [invert(gan, series, steps=n, generator=_generator()) for n in (1, 30, 120)]
    means = [f.distance[: N // 2].mean() for f in found]
    assert means[2] < means[1] < 0.5 * means[0]
    weights = {"feature_weight": 0.0, "prior_weight": 0.0}
    distance, noise = invert(gan, series, steps=20, generator=_generator(), **weights)
    torch.testing.assert_close((gan(noise) - series).abs().mean((1, 2)), distance)
    assert torch.equal(noise[:, 0, :2], noise[:, -1, :2])  # tied as the generator's own


def test_the_distance_is_its_formula(gan: LSTMGAN) -> None:
    series = _series(gan)
    weights = {"feature_weight": 0.3, "prior_weight": 0.2}
    distance, noise = invert(gan, series, steps=1, generator=_generator(), **weights)
    torch.testing.assert_close(noise, gan.generator.noise(N, T, _generator()))
    made = gan(noise)
    features = (gan.critic.features(series) - gan.critic.features(made)).abs().mean(1)
    expected = (series - made).abs().mean((1, 2)) + 0.3 * features
    expected = expected + 0.2 * noise.square().mean((1, 2))
    torch.testing.assert_close(distance, expected)


def test_nothing_is_left_behind() -> None:
    gan = LSTMGAN(2, noise=4, hidden=6, critic="conv")  # whose spectral norm has buffers
    before = {name: value.clone() for name, value in gan.state_dict().items()}
    series = _series(gan)
    gan.generator.eval()
    anomaly_scores(gan, series, steps=3)
    assert gan.training
    assert not gan.generator.training
    assert all(torch.equal(value, before[name]) for name, value in gan.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in gan.parameters())
    with torch.no_grad():
        scores = anomaly_scores(gan, series, steps=3)
    assert not any(part.requires_grad for part in scores)


def test_the_same_generator_gives_the_same_scores(gan: LSTMGAN) -> None:
    series = _series(gan)
    first, second = (anomaly_scores(gan, series, steps=5, generator=_generator()) for _ in "ab")
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    other = anomaly_scores(gan, series, steps=5, generator=_generator().manual_seed(7))
    assert not torch.equal(first.reconstruction, other.reconstruction)
    assert torch.equal(first.critic, other.critic)


def test_samples_do_not_influence_each_other(gan: LSTMGAN) -> None:
    series = _series(gan)
    whole = invert(gan, series, steps=5, generator=_generator())
    part = invert(gan, series[:1], steps=5, generator=_generator())
    # A series has 32 numbers of noise, a multiple of 16: any batch draws the same for the first.
    torch.testing.assert_close(whole.distance[:1], part.distance)


def test_the_parts_are_standardised_and_weighted(gan: LSTMGAN) -> None:
    series = _series(gan)
    options = {"steps": 3, "generator": _generator()}
    usual = anomaly_scores(gan, gan.generator.sample(20, T), steps=3)
    for weight in (0.0, 0.3, 1.0):
        options["generator"] = _generator()
        scores = anomaly_scores(gan, series, weight=weight, reference=usual, **options)
        torch.testing.assert_close(scores.critic, -gan.critic(series).detach())
        parts = [
            (ours - theirs.mean()) / theirs.std(correction=0)
            for ours, theirs in zip(scores[1:], usual[1:], strict=True)
        ]
        torch.testing.assert_close(scores.total, (1 - weight) * parts[0] + weight * parts[1])
    total = anomaly_scores(gan, series, steps=3).total
    torch.testing.assert_close(total.mean(), torch.zeros(()), atol=1e-6, rtol=0)
    alone = anomaly_scores(gan, series[:1], steps=3)
    assert alone.total.item() == 0


def test_mahalanobis_distance(gan: LSTMGAN) -> None:
    usual = gan.critic.features(gan.generator.sample(500, T)).detach()
    series = _series(gan)
    scores = anomaly_scores(gan, series, steps=1, usual_features=usual)
    covariance = usual.double().T.cov(correction=0)
    ridge = 1e-3 * covariance.diagonal().mean() * torch.eye(6)
    centred = gan.critic.features(series).detach().double() - usual.double().mean(0)
    squared = (centred @ torch.linalg.inv(covariance + ridge) * centred).sum(1)
    torch.testing.assert_close(scores.critic.double(), squared.sqrt(), rtol=1e-4, atol=0)
    few = anomaly_scores(gan, series, steps=1, usual_features=usual[:2])
    assert torch.isfinite(few.critic).all()
    with pytest.raises(ValueError, match=r"usual_features: expected shape \(\*, 6\)"):
        anomaly_scores(gan, series, steps=1, usual_features=usual[:, :5])


def test_padding_contributes_nothing(gan: LSTMGAN) -> None:
    series, lengths = _series(gan), [8, 5, 1, 8, 3, 6]
    found = []
    for filler in (0.0, 3.0, math.nan):
        padded = series.clone()
        for b, length in enumerate(lengths):
            padded[b, length:] = filler
        found.append(
            anomaly_scores(gan, padded, steps=4, lengths=lengths, generator=_generator(), batch=4)
        )
    for other in found[1:]:
        torch.testing.assert_close(tuple(other), tuple(found[0]), rtol=0, atol=0)
    assert torch.isfinite(found[0].total).all()


def test_the_distance_of_a_padded_series_is_that_of_its_steps(gan: LSTMGAN) -> None:
    series, lengths = _series(gan), torch.tensor([8, 5, 1, 8, 3, 6])
    weights = {"steps": 1, "feature_weight": 0.0, "prior_weight": 0.0}
    distance, noise = invert(gan, series, inputs={"lengths": lengths}, **weights)
    for b, length in enumerate(lengths):
        made = gan(noise[b : b + 1, :length])[0]
        torch.testing.assert_close(distance[b], (series[b, :length] - made).abs().mean())


def test_conditions_come_with_their_rows() -> None:
    gan = ConditionalLSTMGAN(2, labels=3, features=2, projection=True)
    condition = {"labels": torch.tensor([0, 1, 2, 0, 1, 2]), "features": torch.randn(N, 2)}
    series = gan.generator.sample(N, T, **condition)
    scores = anomaly_scores(gan, series, condition=condition, steps=3, batch=4)
    torch.testing.assert_close(scores.critic, -gan.critic(series, **condition).detach())


@pytest.mark.parametrize(
    "make", [lambda: MLPGAN((1, 4, 4), 5, (8,)), lambda: DCGAN(28, 1, 5, 2)], ids=["mlp", "dc"]
)
def test_images(make) -> None:
    gan: nn.Module = make()
    images = gan.generator.sample(3)
    scores = anomaly_scores(gan, torch.cat((images, -images.flip(3))), steps=20)
    assert isinstance(scores, AnomalyScores)
    assert all(part.shape == (6,) for part in scores)
    found = [invert(gan, images, steps=n, generator=_generator()).distance for n in (1, 50)]
    assert (found[1] < found[0]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 1.5}, "weight: expected a number from 0 to 1, got 1.5"),
        ({"steps": 0}, "steps: expected 1 or more, got 0"),
        ({"batch": 0}, "batch: expected 1 or more, got 0"),
        ({"samples": [1.0]}, "samples: expected a tensor"),
        ({"lengths": [9] * N}, "lengths: expected values in 1..8, got 9"),
    ],
)
def test_errors(gan: LSTMGAN, options: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        anomaly_scores(gan, **({"samples": _series(gan)} | options))

"""Scores of images by a classifier, at values that are known and on the digits."""

import json
import math

import numpy as np
import pytest
import torch

from ganlstm_fast.training.datasets import Labelled, digit_images
from ganlstm_fast.training.errors import UndefinedScore
from ganlstm_fast.training.metrics.images import (
    SCORES,
    ImageClassifier,
    _why_not_fit,
    class_entropy,
    evaluate_images,
    frechet_distance,
    inception_score,
)
from ganlstm_fast.training.undefined import Undefined


def test_inception_score():
    certain = np.eye(10).repeat(3, 0)
    assert inception_score(certain) == pytest.approx(10)
    assert inception_score(certain[:12]) == pytest.approx(4)
    assert inception_score(np.full((5, 10), 0.1)) == pytest.approx(1)
    assert inception_score(certain[:3]) == pytest.approx(1)
    # Two images, of 0.9 and 0.1 and the other way round: log 2 less the entropy of each.
    two = np.array([[0.9, 0.1], [0.1, 0.9]])
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert inception_score(two) == pytest.approx(2 * math.exp(-entropy))


def test_class_entropy():
    certain = np.eye(10).repeat(3, 0)
    assert class_entropy(certain) == pytest.approx(1)
    assert class_entropy(certain[:3]) == 0
    assert class_entropy(certain[:6]) == pytest.approx(math.log(2) / math.log(10))
    assert class_entropy(0.5 * certain + 0.05) == pytest.approx(1)


def exactly(mean: np.ndarray, covariance: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Samples with this very mean and covariance."""
    raw = np.random.default_rng(seed).standard_normal((count, len(mean)))
    raw -= raw.mean(0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    values, vectors = np.linalg.eigh(covariance)
    return mean + white @ (vectors * np.sqrt(values.clip(0))) @ vectors.T


def test_frechet_distance():
    # Of diagonal covariances: the squared differences of means and of standard deviations.
    a = exactly(np.array([1.0, 2, 3]), np.diag([1.0, 4, 9]), 50, 0)
    b = exactly(np.array([1.0, 0, 3]), np.diag([4.0, 4, 0]), 80, 1)
    assert frechet_distance(a, b) == pytest.approx(4 + 1 + 0 + 9)
    assert frechet_distance(b, a) == pytest.approx(14)
    assert frechet_distance(a, a[::-1]) == pytest.approx(0, abs=1e-9)
    # Of others, by scipy's root of a matrix.
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(0)
    c, d = (m @ m.T for m in rng.standard_normal((2, 3, 3)))
    x, y = exactly(np.zeros(3), c, 40, 2), exactly(np.ones(3), d, 40, 3)
    expected = 3 + np.trace(c + d - 2 * sqrtm(c @ d).real)
    assert frechet_distance(x, y) == pytest.approx(expected)
    # Fewer samples than features.
    wide = rng.standard_normal((5, 20))
    assert frechet_distance(wide, wide + 1) == pytest.approx(20)
    with pytest.raises(UndefinedScore, match="at least 2 samples"):
        frechet_distance(a, b[:1])
    with pytest.raises(UndefinedScore, match="generated: expected finite values"):
        frechet_distance(a, b * np.nan)


def test_features_are_those_of_the_classifier():
    train, test = digit_images(8)
    classifier = ImageClassifier.fit(train)
    second, bias = classifier.network.coefs_[1], classifier.network.intercepts_[1]
    logits = classifier.features(test.inputs) @ second + bias
    probabilities = torch.from_numpy(logits).softmax(1).numpy()
    found = classifier.probabilities(test.inputs)
    np.testing.assert_allclose(found, probabilities, atol=1e-5)
    right = (found.argmax(1) == test.labels.numpy()).mean()
    assert classifier.accuracy(test) == pytest.approx(right)
    again = ImageClassifier.fit(train).probabilities(test.inputs)
    assert np.array_equal(found, again)
    # Large images are averaged, not cropped: 4 times as large, they are the same.
    large = test.inputs.repeat_interleave(8, 2).repeat_interleave(8, 3)
    small = test.inputs.repeat_interleave(4, 2).repeat_interleave(4, 3)
    on_32 = ImageClassifier.fit(Labelled(small, test.labels, test.classes))
    np.testing.assert_allclose(on_32.features(large), on_32.features(small), atol=1e-4)
    with pytest.raises(ValueError, match="images: expected"):
        classifier.features(test.inputs[0])


def test_scores_of_digits():
    train, test = digit_images(8)
    scores = evaluate_images(train, test, train.inputs)
    assert json.loads(json.dumps(scores)) == scores
    assert scores["reported"], scores["reason"]
    assert scores["accuracy"] > 0.95
    assert scores["count"] == len(test)
    for kind in ("generated", "real"):
        assert 8 < scores["inception_score"][kind] <= 10
        assert scores["class_entropy"][kind] > 0.98
        assert scores["frechet_distance"][kind] < 0.02 * scores["frechet_distance"]["noise"]
    assert scores["inception_score"]["noise"] < 5
    ones = train.inputs[train.labels == 1]
    collapsed = evaluate_images(train, test, ones)
    assert collapsed["count"] == len(ones)
    assert collapsed["inception_score"]["generated"] < 1.5
    assert collapsed["class_entropy"]["generated"] < 0.1
    distance = collapsed["frechet_distance"]
    assert distance["generated"] > 10 * distance["real"]
    with pytest.raises(ValueError, match=r"images of shape \(1, 8, 8\), got \(1, 9, 9\)"):
        evaluate_images(train, test, torch.zeros(5, 1, 9, 9))


def test_images_of_a_generator_that_diverged_cost_no_other_score():
    train, test = digit_images(8)
    scores = evaluate_images(train, test, torch.full((50, 1, 8, 8), torch.nan))
    assert scores["accuracy"] > 0.95
    for name in SCORES:
        assert scores[name]["generated"] == Undefined(
            "images: expected finite values, got some that are not"
        )
        assert isinstance(scores[name]["real"], float)
        assert isinstance(scores[name]["noise"], float)


def test_images_too_few_or_of_too_few_classes_to_judge_by():
    train, test = digit_images(8)
    one = train.take(train.labels == 3)
    with pytest.raises(UndefinedScore, match=r"needs images of 2 classes, .* have 1"):
        evaluate_images(one, test, test.inputs)
    for few, made in ((1, 9), (0, 9), (9, 1)):
        with pytest.raises(UndefinedScore, match=f"{few} held-out and {made} generated images"):
            evaluate_images(train, test.take(torch.arange(few)), test.inputs[:made])
    with pytest.raises(UndefinedScore, match="2 classes or more, got 1"):
        class_entropy(np.ones((5, 1)))
    for measure in (inception_score, class_entropy):
        with pytest.raises(UndefinedScore, match="1 image or more, got none"):
            measure(np.ones((0, 10)))


def test_no_score_by_a_classifier_that_is_no_judge():
    train, test = digit_images(8)
    some = train.take(torch.arange(200))
    guessed = Labelled(some.inputs, some.labels.flip(0), some.classes)
    scores = evaluate_images(guessed, test, some.inputs)
    assert not scores["reported"]
    assert "right about 0." in scores["reason"]
    for name in ("inception_score", "class_entropy", "frechet_distance"):
        assert scores[name]["generated"] is None
        assert scores[name]["real"] is not None
    assert _why_not_fit(0.9, 10.0, 1.0) is None
    assert "noise is 9.9" in _why_not_fit(0.9, 9.9, 1.0)
    assert _why_not_fit(math.nan, 10.0, 1.0) is not None

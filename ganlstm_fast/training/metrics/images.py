"""Scores of generated images by a classifier of real ones.

The classifier is scikit-learn's perceptron with one hidden layer, trained on labelled real images;
large ones are averaged down to 32 pixels first. The usual network for these scores, Inception, has
been trained on photographs and says little of digits; numbers by different classifiers do not
compare.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits
from torch import Tensor

from ganlstm_fast.training.datasets.labelled import Labelled
from ganlstm_fast.training.errors import UndefinedScore
from ganlstm_fast.training.undefined import check_finite, defined_for

SCORES = ("inception_score", "class_entropy", "frechet_distance")
SIDE = 32
HIDDEN = 64
ACCURACY_AT_LEAST = 0.9
NOISE_TO_REAL_AT_LEAST = 10.0


@dataclass(frozen=True)
class ImageClassifier:
    """A classifier of images [n, channels, height, width]."""

    network: Any

    @classmethod
    def fit(cls, images: Labelled, seed: int = 0, network: Any = None) -> ImageClassifier:
        """Train on labelled images; the same seed gives the same classifier.

        Args:
            network: an untrained classifier of scikit-learn instead of the perceptron. Then there
                are no ``features``, and ``probabilities`` only if that classifier gives them.

        Raises:
            UndefinedScore: all images are of one class, or there are none.
        """
        classes = len(images.labels.unique())
        if classes < 2:
            raise UndefinedScore(
                f"a classifier needs images of 2 classes, and the {len(images)} to train it have "
                f"{classes}"
            )
        # At the default tol it takes twice as long, and is no more accurate.
        network = network or MLPClassifier((HIDDEN,), tol=1e-3, random_state=seed)
        # Its products are too small for threads: with other work on the machine, two took 5 times
        # as long.
        with threadpool_limits(1), warnings.catch_warnings():
            # Its accuracy on other images tells whether it has learnt enough.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return cls(network.fit(_pixels(images.inputs), images.labels.numpy()))

    def features(self, images: Tensor) -> np.ndarray:
        """[n, 64] float64, what the hidden layer puts out."""
        first, bias = self.network.coefs_[0], self.network.intercepts_[0]
        return np.maximum(_pixels(images) @ first + bias, 0).astype(np.float64)

    def probabilities(self, images: Tensor) -> np.ndarray:
        """[n, classes], of the classes in the order of their numbers."""
        return self.network.predict_proba(_pixels(images))

    def accuracy(self, images: Labelled) -> float:
        """The share of ``images`` that are given their class."""
        return float(self.network.score(_pixels(images.inputs), images.labels.numpy()))


def _pixels(images: Tensor) -> np.ndarray:
    if images.ndim != 4:
        raise ValueError(
            f"images: expected [n, channels, height, width], got {tuple(images.shape)}"
        )
    side = (min(SIDE, images.shape[2]), min(SIDE, images.shape[3]))
    check_finite("images", images)
    return F.adaptive_avg_pool2d(images.detach().float(), side).flatten(1).numpy()


def inception_score(probabilities: np.ndarray) -> float:
    """``exp(mean_x KL(p(y | x) || mean_x p(y | x)))``, from 1 to the number of classes.

    High where each image clearly has one class, and all classes are equally frequent.

    Source: Salimans et al., Improved Techniques for Training GANs, 2016, sec. 4.

    Args:
        probabilities: [n, classes], each row with a sum of 1.

    Raises:
        UndefinedScore: no rows.
    """
    _check_some(probabilities)
    mean = probabilities.mean(0)
    # Where a probability is 0, so is its part.
    ratio = np.where(probabilities > 0, probabilities, 1) / np.where(mean > 0, mean, 1)
    logarithm = np.where(probabilities > 0, np.log(ratio), 0)
    return float(np.exp((probabilities * logarithm).sum(1).mean()))


def class_entropy(probabilities: np.ndarray) -> float:
    """The entropy of the shares of the most likely classes, from 0 (one class) to 1 (all alike).

    Args:
        probabilities: [n, classes].

    Raises:
        UndefinedScore: no rows, or fewer than 2 classes.
    """
    _check_some(probabilities)
    classes = probabilities.shape[1]
    if classes < 2:
        raise UndefinedScore(f"probabilities: expected 2 classes or more, got {classes}")
    share = np.bincount(probabilities.argmax(1), minlength=classes) / len(probabilities)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum() / math.log(classes)) + 0.0


def _check_some(probabilities: np.ndarray) -> None:
    if not len(probabilities):
        raise UndefinedScore("probabilities: expected those of 1 image or more, got none")


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """The Fréchet distance between the normal distributions of two sets of features.

    ``|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))`` for their means and covariances.

    Sources: Dowson and Landau, 1982; Heusel et al., GANs Trained by a Two Time-Scale Update Rule,
    2017, eq. 6. The trace of the root is the sum of the roots of the eigenvalues of
    ``C^(1/2) C' C^(1/2)``, which is symmetric: no complex numbers come from covariances without
    full rank. Fewer samples give a larger distance: compare only distances of equally many samples.

    Args:
        real, generated: [n, features] and [m, features] float64, at least 2 each.

    Raises:
        UndefinedScore: fewer than 2 samples of a kind, which have no covariance, or values that are
            not finite.
    """
    if min(len(real), len(generated)) < 2:
        raise UndefinedScore("frechet_distance: expected at least 2 samples of each kind")
    for name, features in (("real", real), ("generated", generated)):
        check_finite(name, torch.from_numpy(np.ascontiguousarray(features)))
    shift = real.mean(0) - generated.mean(0)
    c, d = (np.atleast_2d(np.cov(kind, rowvar=False)) for kind in (real, generated))
    values, vectors = np.linalg.eigh(c)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    roots = np.sqrt(np.linalg.eigvalsh(root @ d @ root).clip(0)).sum()
    return float(shift @ shift + np.trace(c) + np.trace(d) - 2 * roots)


def evaluate_images(
    train: Labelled, test: Labelled, generated: Tensor, seed: int = 0
) -> dict[str, object]:
    """The scores above for generated images, beside those of held-out real ones and of noise.

    The Fréchet distances are to the images trained on. All kinds have the same number of images.

    Args:
        train, test: real images [n, channels, size, size] in [-1, 1], with 2 classes at least.
        generated: [m, channels, size, size], in the same range.

    Returns:
        ``accuracy`` of the classifier on ``test``, ``count`` of images of each kind, and of each
        score the number for ``generated``, ``real`` and ``noise`` (uniform in [-1, 1]), or why
        there is none; :func:`~ganlstm_fast.training.undefined.for_json` writes it.
        ``reported`` tells whether the classifier is fit to judge: accurate to 0.9 at least, and
        putting noise 10 times further away than real images; if not, ``reason`` says what is
        missing, and the scores of ``generated`` are None.

    Raises:
        UndefinedScore: fewer than 2 held-out or generated images, or fewer than 2 classes to train
            on; none of ``SCORES`` has a value.
        ValueError: images of another shape.
    """
    if generated.shape[1:] != train.inputs.shape[1:]:
        raise ValueError(
            f"generated: expected images of shape {tuple(train.inputs.shape[1:])}, "
            f"got {tuple(generated.shape[1:])}"
        )
    count = min(len(test), len(generated))
    if count < 2:
        raise UndefinedScore(
            f"{len(test)} held-out and {len(generated)} generated images are too few to compare: "
            "2 of each are needed"
        )
    classifier = ImageClassifier.fit(train, seed)
    generator = torch.Generator().manual_seed(seed)

    def some(images: Tensor) -> Tensor:
        return images[torch.randperm(len(images), generator=generator)[:count]]

    kinds = {
        "generated": some(generated),
        "real": some(test.inputs),
        "noise": 2 * torch.rand((count, *generated.shape[1:]), generator=generator) - 1,
    }
    reference = classifier.features(train.inputs)
    measures: tuple[Callable[[Tensor], float], ...] = (
        lambda images: inception_score(classifier.probabilities(images)),
        lambda images: class_entropy(classifier.probabilities(images)),
        lambda images: frechet_distance(reference, classifier.features(images)),
    )
    scores: dict[str, dict[str, Any]] = {
        name: defined_for(kinds, measure) for name, measure in zip(SCORES, measures, strict=True)
    }
    accuracy = classifier.accuracy(test)
    distance = scores["frechet_distance"]
    reason = _why_not_fit(accuracy, distance["noise"], distance["real"])
    if reason is not None:
        for score in scores.values():
            score["generated"] = None
    return {
        "reported": reason is None,
        "reason": reason,
        "accuracy": accuracy,
        "count": count,
        **scores,
    }


def _why_not_fit(accuracy: float, noise: float, real: float) -> str | None:
    if not accuracy >= ACCURACY_AT_LEAST:
        return (
            f"the classifier is right about {accuracy:.3f} of the held-out real images, less than "
            f"{ACCURACY_AT_LEAST}: it cannot judge other images"
        )
    if not noise >= NOISE_TO_REAL_AT_LEAST * real:
        return (
            f"noise is {noise:.3g} from the real images and held-out real ones {real:.3g}, not "
            f"{NOISE_TO_REAL_AT_LEAST:g} times less: the features do not tell them apart"
        )
    return None

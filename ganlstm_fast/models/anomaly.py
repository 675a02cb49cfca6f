"""Anomaly scores of samples from a trained pair of generator and critic.

What the critic does not know, and what the generator cannot make, is unusual (AnoGAN: Schlegl et
al., 2017; for series MAD-GAN: Li et al., 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ganlstm_fast.models.base import eval_mode
from ganlstm_fast.models.inversion import invert
from ganlstm_fast.nn.masks import Lengths
from ganlstm_fast.ops.validation import check_counts, check_lengths, check_tensor


class AnomalyScores(NamedTuple):
    """Scores [samples]; the higher, the more unusual.

    Attributes:
        total: the two below, standardised and weighted.
        critic: what the critic says of the sample.
        reconstruction: the distance to the nearest generated sample that the search found.
    """

    total: Tensor
    critic: Tensor
    reconstruction: Tensor


def anomaly_scores(
    gan: nn.Module,
    samples: Tensor,
    *,
    weight: float = 0.5,
    usual_features: Tensor | None = None,
    reference: AnomalyScores | None = None,
    lengths: Lengths | None = None,
    condition: Mapping[str, Tensor] | None = None,
    generator: torch.Generator | None = None,
    batch: int = 256,
    **options: Any,
) -> AnomalyScores:
    """Score each sample by the critic and by how well the generator can make it.

    Args:
        gan: a pair of this package for series or images, or any with ``generator.noise``,
            ``generator``, ``critic`` and ``critic.features`` that are called as theirs.
        samples: [samples, steps, channels] or [samples, channels, height, width].
        weight: of the reconstruction in ``total``; the critic has 1 - ``weight``.
        usual_features: [any number, size], ``gan.critic.features`` of usual samples. The critic's
            part is then the Mahalanobis distance of a sample's features from these (Lee et al.,
            2018). None: it is minus the critic's score, which tells real from generated, and need
            not tell usual from unusual.
        reference: the scores of usual samples, whose mean and standard deviation standardise both
            parts. None: those of ``samples``, so that a total says how a sample compares with the
            others of the call.
        lengths: [samples] for a padded batch of series.
        condition: keyword arguments of generator and critic, with a row for each sample.
        generator: of the random numbers: the same state gives the same scores.
        batch: how many samples at a time.
        options: ``steps``, ``lr``, ``feature_weight`` and ``prior_weight`` of the search, see
            :func:`~ganlstm_fast.models.inversion.invert`.

    Raises:
        TypeError, ValueError: a wrong argument.
    """
    check_tensor("samples", samples)
    check_counts(batch=batch)
    if not 0 <= weight <= 1:
        raise ValueError(f"weight: expected a number from 0 to 1, got {weight!r}")
    inputs: dict[str, Any] = dict(condition or {})
    if lengths is not None:
        inputs["lengths"] = check_lengths(lengths, len(samples), samples.size(1))
    parts = []
    for start in range(0, len(samples), batch):
        rows = slice(start, start + batch)
        some = {name: value[rows] for name, value in inputs.items()}
        with torch.no_grad(), eval_mode(gan):
            if usual_features is None:
                critic = -gan.critic(samples[rows], **some)
            else:
                critic = _mahalanobis(gan.critic.features(samples[rows], **some), usual_features)
        found = invert(gan, samples[rows], inputs=some, generator=generator, **options)
        parts.append((critic, found.distance))
    critic, reconstruction = (torch.cat(part) for part in zip(*parts, strict=True))
    like = reference or AnomalyScores(critic, critic, reconstruction)
    total = (1 - weight) * _standardise(critic, like.critic)
    total = total + weight * _standardise(reconstruction, like.reconstruction)
    return AnomalyScores(total, critic, reconstruction)


def _mahalanobis(features: Tensor, usual: Tensor) -> Tensor:
    """The distance of each row from the mean of ``usual``, in its standard deviations."""
    check_tensor("usual_features", usual, (None, features.size(1)))
    wide = usual.double()
    covariance = torch.atleast_2d(wide.T.cov(correction=0))
    # With few rows or correlated features this keeps any direction from an infinite weight.
    covariance.diagonal().add_(1e-3 * covariance.diagonal().mean() + 1e-12)
    centred = features.double() - wide.mean(0)
    factor = torch.linalg.cholesky(covariance)
    scaled = torch.linalg.solve_triangular(factor, centred.T, upper=False)
    return scaled.norm(dim=0).to(features.dtype)


def _standardise(scores: Tensor, like: Tensor) -> Tensor:
    deviation = like.std(correction=0)
    return (scores - like.mean()) / torch.where(deviation > 0, deviation, 1)

"""GAN losses from critic scores (logits): each a critic loss and a generator loss to minimise.

Every function takes scores of any shape and of any floating dtype, averages over all of them and
returns a scalar in float32 (float64 for float64 scores); ``r`` stands for scores of real samples,
``f`` for scores of generated ones. The two sets may differ in shape. The logarithms are written
with ``softplus``, which neither overflows nor loses the tail. All are differentiable to any order.

Raises of all of them: ``TypeError`` where scores are not a floating-point tensor, ``ValueError``
where there are none.

=================  =========================================  =====================  =============
name               critic                                     generator              source
=================  =========================================  =====================  =============
``minimax``        softplus(-r) + softplus(f)                 -softplus(f)           [1], eq. 1
``non-saturating`` softplus(-r) + softplus(f)                 softplus(-f)           [1], sec. 3
``hinge``          relu(1 - r) + relu(1 + f)                  -f                     [2]
``lsgan``          ((r - 1)^2 + f^2) / 2                      (f - 1)^2 / 2          [3], eq. 9
``wgan-gp``        f - r                                      -f                     [4], [5]
=================  =========================================  =====================  =============

[1] Goodfellow et al., Generative Adversarial Networks, 2014. [2] Lim and Ye, Geometric GAN, 2017;
Miyato et al., Spectral Normalization for GANs, 2018. [3] Mao et al., Least Squares GANs, 2017.
[4] Arjovsky et al., Wasserstein GAN, 2017. [5] Gulrajani et al., Improved Training of Wasserstein
GANs, 2017: the critic then adds a gradient penalty, see :func:`ganlstm_fast.gradient_penalty`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ganlstm_fast.validation import check_tensor, describe

__all__ = [
    "LOSSES",
    "GANLoss",
    "gan_loss",
    "hinge_critic_loss",
    "hinge_generator_loss",
    "least_squares_critic_loss",
    "least_squares_generator_loss",
    "minimax_critic_loss",
    "minimax_generator_loss",
    "non_saturating_generator_loss",
    "wasserstein_critic_loss",
    "wasserstein_generator_loss",
]


def _scores(name: str, value: Tensor) -> Tensor:
    check_tensor(name, value)
    if value.numel() == 0:
        raise ValueError(f"{name}: expected at least one score, got shape {tuple(value.shape)}")
    # A mean over 16-bit scores would be rounded to 3 digits, and a square of one may overflow.
    return value if value.dtype == torch.float64 else value.float()


def minimax_critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """``E[-log sigmoid(r)] + E[-log(1 - sigmoid(f))]``."""
    real, fake = _scores("real_scores", real_scores), _scores("fake_scores", fake_scores)
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def minimax_generator_loss(fake_scores: Tensor) -> Tensor:
    """``E[log(1 - sigmoid(f))]``: the generator's side of the minimax game as it stands.

    Its gradient vanishes where the critic is sure that a sample is generated;
    :func:`non_saturating_generator_loss` does not have that flaw.
    """
    return -F.softplus(_scores("fake_scores", fake_scores)).mean()


def non_saturating_generator_loss(fake_scores: Tensor) -> Tensor:
    """``E[-log sigmoid(f)]``."""
    return F.softplus(-_scores("fake_scores", fake_scores)).mean()


def hinge_critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """``E[max(0, 1 - r)] + E[max(0, 1 + f)]``."""
    real, fake = _scores("real_scores", real_scores), _scores("fake_scores", fake_scores)
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator_loss(fake_scores: Tensor) -> Tensor:
    """``-E[f]``."""
    return -_scores("fake_scores", fake_scores).mean()


def least_squares_critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """``E[(r - 1)^2] / 2 + E[f^2] / 2``: real samples are labelled 1, generated ones 0."""
    real, fake = _scores("real_scores", real_scores), _scores("fake_scores", fake_scores)
    return 0.5 * ((real - 1).square().mean() + fake.square().mean())


def least_squares_generator_loss(fake_scores: Tensor) -> Tensor:
    """``E[(f - 1)^2] / 2``."""
    return 0.5 * (_scores("fake_scores", fake_scores) - 1).square().mean()


def wasserstein_critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """``E[f] - E[r]``: minus the critic's estimate of the distance, without the penalty."""
    real, fake = _scores("real_scores", real_scores), _scores("fake_scores", fake_scores)
    return fake.mean() - real.mean()


def wasserstein_generator_loss(fake_scores: Tensor) -> Tensor:
    """``-E[f]``."""
    return -_scores("fake_scores", fake_scores).mean()


@dataclass(frozen=True)
class GANLoss:
    """A pair of losses.

    Attributes:
        name: the name in :data:`LOSSES`.
        critic: ``critic(real_scores, fake_scores)``, a scalar to minimise over the critic.
        generator: ``generator(fake_scores)``, a scalar to minimise over the generator.
        penalty: the ``kind`` of :func:`ganlstm_fast.gradient_penalty` that belongs to the critic's
            loss, or None. It is not part of ``critic``.
    """

    name: str
    critic: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    penalty: str | None = None


LOSSES: dict[str, GANLoss] = {
    loss.name: loss
    for loss in (
        GANLoss("wgan-gp", wasserstein_critic_loss, wasserstein_generator_loss, "wgan-gp"),
        GANLoss("hinge", hinge_critic_loss, hinge_generator_loss),
        GANLoss("lsgan", least_squares_critic_loss, least_squares_generator_loss),
        GANLoss("minimax", minimax_critic_loss, minimax_generator_loss),
        GANLoss("non-saturating", minimax_critic_loss, non_saturating_generator_loss),
    )
}


def gan_loss(name: str) -> GANLoss:
    """The pair of losses called ``name``: one of the names in the table of this module.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if not isinstance(name, str) or name not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {describe(name)}")
    return LOSSES[name]

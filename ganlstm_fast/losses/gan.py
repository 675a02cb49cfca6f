"""GAN losses from critic scores (logits): each a critic loss and a generator loss to minimise.

Every function takes scores of any shape and of any floating dtype, averages over all of them and
returns a scalar in float32 (float64 for float64 scores); ``r`` stands for scores of real samples,
``f`` for scores of generated ones, ``R`` and ``F`` for the means of each. The two sets may differ
in shape, except in ``relativistic``, which pairs them. The logarithms are written with
``softplus``, which neither overflows nor loses the tail. All are differentiable to any order.

============================== ================================= ================= ================
name                           critic                            generator         source
============================== ================================= ================= ================
``minimax``                    softplus(-r) + softplus(f)        -softplus(f)      [1], eq. 1
``non-saturating``             softplus(-r) + softplus(f)        softplus(-f)      [1], sec. 3
``hinge``                      relu(1 - r) + relu(1 + f)         -f                [2]
``lsgan``                      ((r - 1)^2 + f^2) / 2             (f - 1)^2 / 2     [3], eq. 9
``wgan-gp``                    f - r                             -f                [4], [5]
``relativistic``               softplus(f - r)                   r and f exchanged [6], RSGAN; [7]
``relativistic-average``       softplus(F - r) + softplus(f - R) r and f exchanged [6], RaSGAN
``relativistic-average-hinge`` relu(1 - r + F) + relu(1 + f - R) r and f exchanged [6], RaHingeGAN
``relativistic-average-lsgan`` (r - F - 1)^2 + (f - R + 1)^2     r and f exchanged [6], RaLSGAN
============================== ================================= ================= ================

The generator's loss of a relativistic pair lowers the scores of real samples as well, and needs
them: ``generator(fake_scores, real_scores)``. All generator losses take that second argument; the
others do not look at it.

One-sided label smoothing [8] trains the critic for a label ``1 - label_smoothing`` of real samples
instead of 1. Only losses with a label for real samples take it: ``minimax``, ``non-saturating`` and
``lsgan``.

Raises of all of them: ``TypeError`` where scores are not a floating-point tensor, ``ValueError``
where there are none.

[1] Goodfellow et al., Generative Adversarial Networks, 2014. [2] Lim and Ye, Geometric GAN, 2017;
Miyato et al., Spectral Normalization for GANs, 2018. [3] Mao et al., Least Squares GANs, 2017.
[4] Arjovsky et al., Wasserstein GAN, 2017. [5] Gulrajani et al., Improved Training of Wasserstein
GANs, 2017: the critic then adds a gradient penalty, see :func:`ganlstm_fast.gradient_penalty`.
[6] Jolicoeur-Martineau, The relativistic discriminator, 2018. [7] Huang et al., The GAN is dead;
long live the GAN!, 2024 (R3GAN, which adds the penalties R1 and R2). [8] Salimans et al., Improved
Techniques for Training GANs, 2016, sec. 3.4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ganlstm_fast.ops.validation import check_tensor, describe

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
    "relativistic_average_critic_loss",
    "relativistic_average_generator_loss",
    "relativistic_average_hinge_critic_loss",
    "relativistic_average_hinge_generator_loss",
    "relativistic_average_least_squares_critic_loss",
    "relativistic_average_least_squares_generator_loss",
    "relativistic_critic_loss",
    "relativistic_generator_loss",
    "wasserstein_critic_loss",
    "wasserstein_generator_loss",
]


def _scores(name: str, value: Tensor) -> Tensor:
    check_tensor(name, value)
    if value.numel() == 0:
        raise ValueError(f"{name}: expected at least one score, got shape {tuple(value.shape)}")
    # A mean over 16-bit scores would be rounded to 3 digits, and a square of one may overflow.
    return value if value.dtype == torch.float64 else value.float()


def _both(real_scores: Tensor, fake_scores: Tensor) -> tuple[Tensor, Tensor]:
    return _scores("real_scores", real_scores), _scores("fake_scores", fake_scores)


def _compared(
    real_scores: Tensor | None, fake_scores: Tensor, paired: bool = False
) -> tuple[Tensor, Tensor]:
    """Both, for a relativistic loss; ``paired`` asks for equal shapes."""
    if real_scores is None:
        raise TypeError(
            "real_scores: expected the scores of real samples, with which a relativistic loss "
            "compares those of generated ones, got None"
        )
    real, fake = _both(real_scores, fake_scores)
    # Others would be broadcast: (N,) against (N, 1) to all N * N pairs.
    if paired and real.shape != fake.shape:
        raise ValueError(
            f"fake_scores: expected shape {tuple(real.shape)} as real_scores has, "
            f"got {tuple(fake.shape)}"
        )
    return real, fake


def _smoothing(value: float) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"label_smoothing: expected a number, got {describe(value)}")
    if not 0 <= value < 1:
        raise ValueError(
            f"label_smoothing: expected a number of at least 0 and below 1, got {value}"
        )
    return value


def _softplus(x: Tensor) -> Tensor:
    # PyTorch's threshold, 20, is where float32 sees no difference from x; float64 sees it until 37.
    # logsigmoid has none, but on the CPU uses threads for any number of scores, and waits for them.
    return F.softplus(x, threshold=40.0)


def _mean_softplus(x: Tensor) -> Tensor:
    return _softplus(x).mean()


def _mean_cross_entropy(x: Tensor, smoothing: float) -> Tensor:
    """``E[-t log sigmoid(x) - (1 - t) log(1 - sigmoid(x))]``, where ``t = 1 - smoothing``."""
    if smoothing == 0:
        return _mean_softplus(-x)
    # The same in two forms: in the one taken, the terms cancel to no less than half of them.
    if smoothing <= 0.5:
        return torch.add(_softplus(-x), x, alpha=smoothing).mean()
    return torch.add(_softplus(x), x, alpha=smoothing - 1).mean()


def _mean_square(x: Tensor, label: float) -> Tensor:
    """``E[(x - label)^2]``."""
    # (x - label).square().mean() and its backward take 1.2 to 1.5 times as long.
    return F.mse_loss(x, torch.full_like(x, label))


def minimax_critic_loss(
    real_scores: Tensor, fake_scores: Tensor, *, label_smoothing: float = 0.0
) -> Tensor:
    """``E[-t log sigmoid(r) - (1 - t) log(1 - sigmoid(r))] + E[-log(1 - sigmoid(f))]``.

    The label of real samples is ``t = 1 - label_smoothing``; the real part is smallest where
    ``sigmoid(r) = t``.

    Raises:
        TypeError: ``label_smoothing`` is not a number.
        ValueError: it is below 0, or 1 or more.
    """
    real, fake = _both(real_scores, fake_scores)
    return _mean_cross_entropy(real, _smoothing(label_smoothing)) + _mean_softplus(fake)


def minimax_generator_loss(fake_scores: Tensor, real_scores: Tensor | None = None) -> Tensor:
    """``E[log(1 - sigmoid(f))]``: the generator's side of the minimax game as it stands.

    Its gradient vanishes where the critic is sure that a sample is generated;
    :func:`non_saturating_generator_loss` does not have that flaw.
    """
    return -_mean_softplus(_scores("fake_scores", fake_scores))


def non_saturating_generator_loss(fake_scores: Tensor, real_scores: Tensor | None = None) -> Tensor:
    """``E[-log sigmoid(f)]``."""
    return _mean_softplus(-_scores("fake_scores", fake_scores))


def hinge_critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """``E[max(0, 1 - r)] + E[max(0, 1 + f)]``."""
    real, fake = _both(real_scores, fake_scores)
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator_loss(fake_scores: Tensor, real_scores: Tensor | None = None) -> Tensor:
    """``-E[f]``."""
    return -_scores("fake_scores", fake_scores).mean()


def least_squares_critic_loss(
    real_scores: Tensor, fake_scores: Tensor, *, label_smoothing: float = 0.0
) -> Tensor:
    """``E[(r - t)^2] / 2 + E[f^2] / 2``: generated samples are labelled 0.

    The label of real samples is ``t = 1 - label_smoothing``.

    Raises:
        TypeError: ``label_smoothing`` is not a number.
        ValueError: it is below 0, or 1 or more.
    """
    real, fake = _both(real_scores, fake_scores)
    return 0.5 * (_mean_square(real, 1 - _smoothing(label_smoothing)) + _mean_square(fake, 0.0))


def least_squares_generator_loss(fake_scores: Tensor, real_scores: Tensor | None = None) -> Tensor:
    """``E[(f - 1)^2] / 2``."""
    return 0.5 * _mean_square(_scores("fake_scores", fake_scores), 1.0)


def wasserstein_critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """``E[f] - E[r]``: minus the critic's estimate of the distance, without the penalty."""
    real, fake = _both(real_scores, fake_scores)
    return fake.mean() - real.mean()


def wasserstein_generator_loss(fake_scores: Tensor, real_scores: Tensor | None = None) -> Tensor:
    """``-E[f]``."""
    return -_scores("fake_scores", fake_scores).mean()


def relativistic_critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """``E[-log sigmoid(r - f)]`` over pairs of a real and a generated sample.

    Raises:
        ValueError: the two sets of scores differ in shape.
    """
    real, fake = _compared(real_scores, fake_scores, paired=True)
    return _mean_softplus(fake - real)


def relativistic_generator_loss(fake_scores: Tensor, real_scores: Tensor | None = None) -> Tensor:
    """``E[-log sigmoid(f - r)]`` over pairs of a real and a generated sample.

    Raises:
        TypeError: ``real_scores`` is missing.
        ValueError: the two sets of scores differ in shape.
    """
    real, fake = _compared(real_scores, fake_scores, paired=True)
    return _mean_softplus(real - fake)


def _average(above: Tensor, below: Tensor) -> Tensor:
    return _mean_softplus(below.mean() - above) + _mean_softplus(below - above.mean())


def relativistic_average_critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """``E[-log sigmoid(r - E[f])] + E[-log(1 - sigmoid(f - E[r]))]``."""
    real, fake = _compared(real_scores, fake_scores)
    return _average(above=real, below=fake)


def relativistic_average_generator_loss(
    fake_scores: Tensor, real_scores: Tensor | None = None
) -> Tensor:
    """``E[-log sigmoid(f - E[r])] + E[-log(1 - sigmoid(r - E[f]))]``.

    Raises:
        TypeError: ``real_scores`` is missing.
    """
    real, fake = _compared(real_scores, fake_scores)
    return _average(above=fake, below=real)


def _average_hinge(above: Tensor, below: Tensor) -> Tensor:
    return F.relu(1 + (below.mean() - above)).mean() + F.relu(1 + (below - above.mean())).mean()


def relativistic_average_hinge_critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """``E[max(0, 1 - (r - E[f]))] + E[max(0, 1 + (f - E[r]))]``."""
    real, fake = _compared(real_scores, fake_scores)
    return _average_hinge(above=real, below=fake)


def relativistic_average_hinge_generator_loss(
    fake_scores: Tensor, real_scores: Tensor | None = None
) -> Tensor:
    """``E[max(0, 1 - (f - E[r]))] + E[max(0, 1 + (r - E[f]))]``.

    Raises:
        TypeError: ``real_scores`` is missing.
    """
    real, fake = _compared(real_scores, fake_scores)
    return _average_hinge(above=fake, below=real)


def _average_least_squares(above: Tensor, below: Tensor) -> Tensor:
    return _mean_square(above - below.mean(), 1.0) + _mean_square(below - above.mean(), -1.0)


def relativistic_average_least_squares_critic_loss(
    real_scores: Tensor, fake_scores: Tensor
) -> Tensor:
    """``E[(r - E[f] - 1)^2] + E[(f - E[r] + 1)^2]``, without the halves of least squares."""
    real, fake = _compared(real_scores, fake_scores)
    return _average_least_squares(above=real, below=fake)


def relativistic_average_least_squares_generator_loss(
    fake_scores: Tensor, real_scores: Tensor | None = None
) -> Tensor:
    """``E[(f - E[r] - 1)^2] + E[(r - E[f] + 1)^2]``.

    Raises:
        TypeError: ``real_scores`` is missing.
    """
    real, fake = _compared(real_scores, fake_scores)
    return _average_least_squares(above=fake, below=real)


@dataclass(frozen=True)
class GANLoss:
    """A pair of losses.

    Attributes:
        name: the name in :data:`LOSSES`.
        critic: ``critic(real_scores, fake_scores)``, a scalar to minimise over the critic.
        generator: ``generator(fake_scores, real_scores)``, a scalar to minimise over the generator;
            ``generator(fake_scores)`` is enough unless ``generator_needs_real``.
        penalty: the ``kind`` of :func:`ganlstm_fast.gradient_penalty` that belongs to the critic's
            loss, or None. It is not part of ``critic``.
        generator_needs_real: whether ``generator`` raises ``TypeError`` without ``real_scores``.
            They may be computed under ``torch.no_grad()``, since the generator does not influence
            them.
        has_real_label: whether real samples have a label of 1 in ``critic``, which then takes
            ``label_smoothing``.
    """

    name: str
    critic: Callable[..., Tensor]
    generator: Callable[..., Tensor]
    penalty: str | None = None
    generator_needs_real: bool = False
    has_real_label: bool = False


LOSSES: dict[str, GANLoss] = {
    loss.name: loss
    for loss in (
        GANLoss("wgan-gp", wasserstein_critic_loss, wasserstein_generator_loss, "wgan-gp"),
        GANLoss("hinge", hinge_critic_loss, hinge_generator_loss),
        GANLoss(
            "lsgan", least_squares_critic_loss, least_squares_generator_loss, has_real_label=True
        ),
        GANLoss("minimax", minimax_critic_loss, minimax_generator_loss, has_real_label=True),
        GANLoss(
            "non-saturating",
            minimax_critic_loss,
            non_saturating_generator_loss,
            has_real_label=True,
        ),
        GANLoss(
            "relativistic",
            relativistic_critic_loss,
            relativistic_generator_loss,
            generator_needs_real=True,
        ),
        GANLoss(
            "relativistic-average",
            relativistic_average_critic_loss,
            relativistic_average_generator_loss,
            generator_needs_real=True,
        ),
        GANLoss(
            "relativistic-average-hinge",
            relativistic_average_hinge_critic_loss,
            relativistic_average_hinge_generator_loss,
            generator_needs_real=True,
        ),
        GANLoss(
            "relativistic-average-lsgan",
            relativistic_average_least_squares_critic_loss,
            relativistic_average_least_squares_generator_loss,
            generator_needs_real=True,
        ),
    )
}


def gan_loss(name: str, *, label_smoothing: float = 0.0) -> GANLoss:
    """The pair of losses called ``name``: one of the names in the table of this module.

    Args:
        label_smoothing: how far below 1 the critic's label for real samples is.

    Raises:
        TypeError: ``label_smoothing`` is not a number.
        ValueError: an unknown name; the message lists the known ones. Or ``label_smoothing`` is
            below 0, 1 or more, or not 0 for a loss that has no label to smooth.
    """
    if not isinstance(name, str) or name not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {describe(name)}")
    loss = LOSSES[name]
    if _smoothing(label_smoothing) == 0:
        return loss
    if not loss.has_real_label:
        having = ", ".join(other.name for other in LOSSES.values() if other.has_real_label)
        raise ValueError(
            f"label_smoothing: expected 0 for {name}, where real samples have no label of 1 "
            f"(they have one in {having}), got {label_smoothing}"
        )
    return replace(loss, critic=partial(loss.critic, label_smoothing=label_smoothing))

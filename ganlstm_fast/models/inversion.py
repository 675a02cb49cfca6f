"""The generated sample that is nearest to a given one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ganlstm_fast.models.base import eval_mode
from ganlstm_fast.nn.masks import zero_padding
from ganlstm_fast.ops.validation import check_counts


class Inversion(NamedTuple):
    """What :func:`invert` found.

    Attributes:
        distance: [samples], the least distance on the way, in the dtype of the samples.
        noise: the noise that has it, one for each sample.
    """

    distance: Tensor
    noise: Tensor


def invert(
    gan: nn.Module,
    samples: Tensor,
    *,
    steps: int = 100,
    lr: float = 0.1,
    feature_weight: float = 0.1,
    prior_weight: float = 0.1,
    inputs: Mapping[str, Any] | None = None,
    generator: torch.Generator | None = None,
) -> Inversion:
    """Search for the noise z from which the generator makes each sample x.

    ``steps`` steps of Adam, from random noise, down ``mean|x - G(z)| + feature_weight mean|f(x) -
    f(G(z))| + prior_weight mean(z^2)`` (AnoGAN: Schlegl et al., 2017), f being the critic's
    features; the last term keeps z where the generator was trained. In a padded series only the
    valid steps count. The networks run in eval mode, and neither their weights nor their mode
    change. Samples do not influence each other.

    Args:
        gan: a pair with ``generator`` and ``critic``, called as those of this package.
        samples: [samples, steps, channels] or [samples, channels, height, width].
        inputs: further arguments of generator and critic: ``lengths`` (a tensor), conditions.
        generator: of the random numbers: the same state gives the same result.

    Raises:
        TypeError, ValueError: ``steps`` is not an integer of 1 or more.
    """
    check_counts(steps=steps)
    inputs = inputs or {}
    lengths = inputs.get("lengths")
    x = samples.detach()
    numbers = x[0].numel()  # of a sample
    if lengths is not None:
        x = zero_padding(x, lengths)
        numbers = lengths.to(x.device) * x.size(2)
    # A series' noise is the same at all steps in some channels, and stays so.
    tie = getattr(gan.generator, "tie", lambda noise: noise)
    noise = gan.generator.noise(len(x), *x.shape[1:-1][: x.dim() == 3], generator=generator)
    z = noise.clone().requires_grad_()
    optimiser = torch.optim.Adam([z], lr)
    best, best_noise = x.new_full((len(x),), torch.inf), noise
    with torch.enable_grad(), eval_mode(gan):
        features = gan.critic.features(x, **inputs).detach()
        for _ in range(steps):
            tied = tie(z)
            made = gan.generator(tied, **inputs)
            distance = (x - made).abs().flatten(1).sum(1) / numbers
            found = gan.critic.features(made, **inputs)
            distance = distance + feature_weight * (features - found).abs().mean(1)
            distance = distance + prior_weight * tied.square().flatten(1).mean(1)
            better = distance.detach() < best
            best = torch.where(better, distance.detach(), best)
            rows = better.view(-1, *[1] * (noise.dim() - 1))
            best_noise = torch.where(rows, tied.detach(), best_noise)
            # Only the gradient of the noise; those of the weights are not computed.
            (z.grad,) = torch.autograd.grad(distance.sum(), z)
            optimiser.step()
    return Inversion(best, best_noise)

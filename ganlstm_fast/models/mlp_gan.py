"""A generative adversarial network of fully connected layers (Goodfellow et al., 2014)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ganlstm_fast.models.base import VectorGenerator, normalized
from ganlstm_fast.ops.validation import check_counts, check_tensor, describe


def _check_sizes(name: str, sizes: Sequence[int]) -> None:
    if not isinstance(sizes, Sequence) or not sizes:
        raise TypeError(f"{name}: expected a sequence of integers, got {describe(sizes)}")
    check_counts(**{f"{name}[{i}]": size for i, size in enumerate(sizes)})


def _layers(sizes: Sequence[int], spectral_norm: bool = False) -> nn.Sequential:
    """Linear layers from each size to the next, each with LeakyReLU 0.2."""
    layers = []
    for a, b in pairwise(sizes):
        layers += [normalized(nn.Linear(a, b), spectral_norm), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


class MLPGenerator(VectorGenerator):
    """Noise [batch, noise] -> images [batch, *image] in [-1, 1].

    Args:
        image: an image's shape, such as (channels, height, width).
        noise: how many numbers.
        hidden: sizes of the hidden layers.
    """

    def __init__(
        self, image: Sequence[int] = (1, 28, 28), noise: int = 100, hidden: Sequence[int] = (256,)
    ) -> None:
        super().__init__(noise)
        _check_sizes("image", image)
        _check_sizes("hidden", hidden)
        self.image = tuple(image)
        self.body = _layers((noise, *hidden))
        self.head = nn.Linear(hidden[-1], math.prod(image))

    def forward(self, noise: Tensor) -> Tensor:
        check_tensor("noise", noise, (None, self.noise_size))
        return self.head(self.body(noise)).tanh().unflatten(1, self.image)


class MLPCritic(nn.Module):
    """Images [batch, *image] -> scores (logits) [batch].

    Args:
        image: an image's shape.
        hidden: sizes of the hidden layers.
        spectral_norm: on all weights.
    """

    def __init__(
        self,
        image: Sequence[int] = (1, 28, 28),
        hidden: Sequence[int] = (256,),
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        _check_sizes("image", image)
        _check_sizes("hidden", hidden)
        self.image = tuple(image)
        self.body = _layers((math.prod(image), *hidden), spectral_norm)
        self.head = normalized(nn.Linear(hidden[-1], 1), spectral_norm)

    def features(self, images: Tensor) -> Tensor:
        """The last hidden layer [batch, hidden[-1]], in which the scores are linear."""
        check_tensor("images", images, (None, *self.image))
        return self.body(images.flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)).squeeze(1)


class MLPGAN(nn.Module):
    """The pair, as ``generator`` and ``critic``: by default 100-256-784 and 784-256-1.

    Args:
        image, noise, hidden: of :class:`MLPGenerator`.
        critic_hidden: of :class:`MLPCritic`; None is ``hidden`` in the reverse order.
        spectral_norm: of the critic.
    """

    def __init__(
        self,
        image: Sequence[int] = (1, 28, 28),
        noise: int = 100,
        hidden: Sequence[int] = (256,),
        *,
        critic_hidden: Sequence[int] | None = None,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.generator = MLPGenerator(image, noise, hidden)
        critic_hidden = tuple(hidden)[::-1] if critic_hidden is None else critic_hidden
        self.critic = MLPCritic(image, critic_hidden, spectral_norm)

    def forward(self, noise: Tensor) -> Tensor:
        return self.generator(noise)

"""A convolutional generative adversarial network for images (Radford et al., 2016)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from ganlstm_fast.models.base import VectorGenerator, normalized
from ganlstm_fast.ops.validation import check_choice, check_counts, check_tensor

# Pixels of an image -> those of the smallest feature map, and how often they are doubled.
SIZES = {16: (4, 2), 28: (7, 2), 32: (4, 3), 64: (4, 4), 128: (4, 5)}
NORMS = ("spectral", "layer", "batch", None)


def initialise(module: nn.Module) -> None:
    """Weights from N(0, 0.02), or N(1, 0.02) for scales of norms, and biases 0 (section 4)."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
        nn.init.normal_(module.weight, 1.0, 0.02)
    if getattr(module, "bias", None) is not None:
        nn.init.zeros_(module.bias)


class DCGenerator(VectorGenerator):
    """Noise [batch, noise] -> images [batch, channels, size, size] in [-1, 1].

    Transposed convolutions with batch norm and ReLU, each of which doubles the size.

    Args:
        size: 16, 28, 32, 64 or 128 pixels.
        channels: of an image: 1 or 3, or any other number.
        noise: how many numbers.
        width: channels of the largest feature map; each smaller one has twice as many.
    """

    def __init__(
        self, size: int = 64, channels: int = 3, noise: int = 100, width: int = 64
    ) -> None:
        super().__init__(noise)
        check_choice("size", size, SIZES)
        check_counts(channels=channels, width=width)
        start, doublings = SIZES[size]
        sizes = [width * 2**i for i in reversed(range(doublings))]
        layers: list[nn.Module] = [nn.ConvTranspose2d(noise, sizes[0], start, bias=False)]
        for a, b in pairwise(sizes):
            layers += [nn.BatchNorm2d(a), nn.ReLU(), nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(sizes[-1]), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.ConvTranspose2d(sizes[-1], channels, 4, 2, 1)
        self.apply(initialise)

    def forward(self, noise: Tensor) -> Tensor:
        check_tensor("noise", noise, (None, self.noise_size))
        return self.head(self.body(noise[:, :, None, None])).tanh()


class DCCritic(nn.Module):
    """Images [batch, channels, size, size] -> scores (logits) [batch].

    Convolutions with LeakyReLU 0.2, each of which halves the size, and one linear layer.

    Args:
        size, channels, width: as for :class:`DCGenerator`.
        norm: ``"spectral"`` on all weights (Miyato et al., 2018); or after each convolution but the
            first ``"layer"`` (over an image's channels and pixels) or ``"batch"``; or None.
            A gradient penalty allows ``"spectral"``, ``"layer"`` and None, not ``"batch"``: it
            bounds the gradient of each sample's score with respect to that sample, and under batch
            norm a score depends on the whole batch, so that this gradient is not defined (Gulrajani
            et al., 2017, section 4).
    """

    def __init__(
        self,
        size: int = 64,
        channels: int = 3,
        width: int = 64,
        norm: str | None = "spectral",
    ) -> None:
        super().__init__()
        check_choice("size", size, SIZES)
        check_choice("norm", norm, NORMS)
        check_counts(channels=channels, width=width)
        self.image = (channels, size, size)
        start, doublings = SIZES[size]
        sizes = [channels, *(width * 2**i for i in range(doublings))]
        after = {"batch": nn.BatchNorm2d, "layer": lambda size: nn.GroupNorm(1, size)}.get(norm)
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            normed = after is not None and bool(layers)
            layers.append(nn.Conv2d(a, b, 4, 2, 1, bias=not normed))
            layers += [after(b)] if normed else []
            layers.append(nn.LeakyReLU(0.2))
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(sizes[-1] * start**2, 1)
        self.apply(initialise)
        for module in list(self.modules()):
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                normalized(module, norm == "spectral")

    def features(self, images: Tensor) -> Tensor:
        """The last feature map, flat, in which the scores are linear: [batch, features]."""
        check_tensor("images", images, (None, *self.image))
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)).squeeze(1)


class DCGAN(nn.Module):
    """The pair, as ``generator`` and ``critic``; the arguments are theirs."""

    def __init__(
        self,
        size: int = 64,
        channels: int = 3,
        noise: int = 100,
        width: int = 64,
        norm: str | None = "spectral",
    ) -> None:
        super().__init__()
        self.generator = DCGenerator(size, channels, noise, width)
        self.critic = DCCritic(size, channels, width, norm)

    def forward(self, noise: Tensor) -> Tensor:
        return self.generator(noise)

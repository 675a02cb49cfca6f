"""Translation between two kinds of images, learnt without pairs (Zhu et al., 2017).

Zhu, Park, Isola and Efros, Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
Networks, 2017, arXiv 1703.10593. Two translators and two critics are trained together. Here the two
translators are one module, and so are the two critics. They work on pairs of images [batch, 2,
channels, height, width], an image of kind a and an unrelated one of kind b.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganlstm_fast.models.base import sample_in_batches
from ganlstm_fast.models.dcgan import initialise
from ganlstm_fast.nn import SNConv2d
from ganlstm_fast.ops.validation import check_choice, check_counts, check_tensor


class ResidualBlock(nn.Module):
    """``x + f(x)`` of two 3x3 convolutions with instance norm, with a ReLU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_convolution(width, width), *_convolution(width, width)[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _convolution(a: int, b: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    # Instance norm takes a bias away again.
    layer = nn.Conv2d(a, b, kernel, stride, kernel // 2, bias=False)
    return [layer, nn.InstanceNorm2d(b), nn.ReLU()]


class Translator(nn.Module):
    """Images [batch, channels, height, width] -> such images, all in [-1, 1].

    Convolutions that halve the size twice, residual blocks, and transposed convolutions as DCGAN's
    that double it twice (Zhu et al., 2017, appendix 7.2); instance norm, so that an image's
    translation does not depend on the others. Height and width are multiples of 4, from 8 on.

    Other than in the paper the image itself is added to the last convolution's outputs, before
    their tanh, so that training begins with translations that change little and keep the content.

    Args:
        channels: of an image.
        width: channels of the largest feature map; each smaller one has twice as many.
        blocks: how many residual blocks.
    """

    def __init__(self, channels: int = 3, width: int = 64, blocks: int = 6) -> None:
        super().__init__()
        check_counts(channels=channels, width=width)
        check_counts(minimum=0, blocks=blocks)
        w = width
        layers = _convolution(channels, w, 7)
        layers += [*_convolution(w, 2 * w, stride=2), *_convolution(2 * w, 4 * w, stride=2)]
        layers += [ResidualBlock(4 * w) for _ in range(blocks)]
        for a, b in ((4 * w, 2 * w), (2 * w, w)):
            double = nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False)
            layers += [double, nn.InstanceNorm2d(b), nn.ReLU()]
        last = nn.Conv2d(w, channels, 7, padding=3)
        self.body = nn.Sequential(*layers, last)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        return (2 * images + self.body(images)).tanh()


class PatchCritic(nn.Sequential):
    """Images [batch, channels, height, width] -> scores (logits) [batch, height/4, width/4].

    Each score is of a square of 26 pixels around its place (a PatchGAN: Isola et al., 2017). Four
    convolutions with spectral norm, LeakyReLU 0.2 between them; the first two halve the size.

    Args:
        channels: of an image.
        width: channels of the largest feature map.
    """

    def __init__(self, channels: int = 3, width: int = 64) -> None:
        check_counts(channels=channels, width=width)
        super().__init__(
            SNConv2d(channels, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            SNConv2d(width, 2 * width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            SNConv2d(2 * width, 4 * width, 3, 1, 1),
            nn.LeakyReLU(0.2),
            SNConv2d(4 * width, 1, 3, 1, 1),
        )
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).squeeze(1)


class Translators(nn.Module):
    """Pairs of images -> pairs: first b translated to a, then a translated to b.

    So the output has each kind in the same place as the input, and a second call translates back.
    The arguments are those of :class:`Translator`.
    """

    def __init__(self, channels: int = 3, width: int = 64, blocks: int = 6) -> None:
        super().__init__()
        self.channels = channels
        self.b_to_a = Translator(channels, width, blocks)
        self.a_to_b = Translator(channels, width, blocks)

    def forward(self, pairs: Tensor) -> Tensor:
        check_tensor("pairs", pairs, (None, 2, self.channels, None, None))
        return torch.stack((self.b_to_a(pairs[:, 1]), self.a_to_b(pairs[:, 0])), 1)

    def translate(self, images: Tensor, direction: str = "a-to-b", batch: int = 64) -> Tensor:
        """Images [n, channels, height, width] translated ``"a-to-b"`` or ``"b-to-a"``.

        They come from and go to the device that they are on, ``batch`` at a time; in eval mode,
        without a graph.
        """
        check_choice("direction", direction, ("a-to-b", "b-to-a"))
        check_tensor("images", images, (None, self.channels, None, None))
        translator = self.a_to_b if direction == "a-to-b" else self.b_to_a
        where = next(translator.parameters()).device

        def make(rows: slice) -> Tensor:
            return translator(images[rows].to(where)).to(images.device)

        return sample_in_batches(translator, len(images), batch, make)


class PairCritic(nn.Module):
    """Pairs of images -> scores [batch, 2, ...], of a and of b by a :class:`PatchCritic` each.

    The arguments are those of :class:`PatchCritic`.
    """

    def __init__(self, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        self.channels = channels
        self.a, self.b = PatchCritic(channels, width), PatchCritic(channels, width)

    def forward(self, pairs: Tensor) -> Tensor:
        check_tensor("pairs", pairs, (None, 2, self.channels, None, None))
        return torch.stack((self.a(pairs[:, 0]), self.b(pairs[:, 1])), 1)


class CycleGAN(nn.Module):
    """Both translators as ``generator`` and both critics as ``critic``::

        fake = gan(pairs)  # [batch, 2, channels, height, width]: of kind a, of kind b
        cycle = (gan(fake) - pairs).abs().mean()
        identity = (gan(pairs.flip(1)) - pairs).abs().mean()

    The arguments are those of :class:`Translator`, and the ``width`` of :class:`PatchCritic`.
    """

    def __init__(
        self, channels: int = 3, width: int = 64, blocks: int = 6, critic_width: int = 64
    ) -> None:
        super().__init__()
        self.generator = Translators(channels, width, blocks)
        self.critic = PairCritic(channels, critic_width)

    def forward(self, pairs: Tensor) -> Tensor:
        return self.generator(pairs)

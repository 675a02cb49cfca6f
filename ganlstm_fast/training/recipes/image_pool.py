"""Images that a generator made before, for its critic."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """Generated images of earlier steps, which a critic sees in the place of half of the latest.

    Shrivastava et al., Learning from Simulated and Unsupervised Images through Adversarial
    Training, 2017, section 2.3: so that the critic does not forget how it told earlier images from
    real ones. Its ``state_dict`` has all of it.

    Args:
        size: how many images are kept; 0: none, and the critic sees the latest.
        image: the shape of an image.
    """

    images: Tensor

    def __init__(self, size: int, image: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(size, *image))
        self.count = 0

    @torch.no_grad()
    def exchange(self, images: Tensor, random: torch.Generator) -> Tensor:
        """The images that the critic sees for the latest ``images`` [n, ...], some of which are
        kept.

        Until the pool is full all are kept, and seen. Then each is seen with a probability of a
        half; else one of the pool is seen, whose place it takes.

        Args:
            random: of the device of the images.
        """
        size = len(self.images)
        if size == 0:
            return images
        # At most as many at a time as there are different places.
        return torch.cat([self._exchange(part, random) for part in images.split(size)])

    def _exchange(self, images: Tensor, random: torch.Generator) -> Tensor:
        size = len(self.images)
        first, images = images.tensor_split([size - self.count])
        self.images[self.count : self.count + len(first)] = first
        self.count += len(first)
        if not len(images):
            return first
        draw = {"generator": random, "device": images.device}
        place = torch.randperm(size, **draw)[: len(images)]
        taken = torch.rand(len(images), *[1] * (images.dim() - 1), **draw) < 0.5
        old = self.images[place]
        self.images[place] = torch.where(taken, images, old)
        return torch.cat((first, torch.where(taken, old, images)))

    def get_extra_state(self) -> Any:
        return {"count": self.count}

    def set_extra_state(self, state: Any) -> None:
        self.count = state["count"]

"""Generated images: MLPGAN and DCGAN."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from ganlstm_fast.models import DCGAN, MLPGAN
from ganlstm_fast.training.configs import DCGANConfig, MLPGANConfig
from ganlstm_fast.training.datasets import Labelled, digit_images, load_image_folder
from ganlstm_fast.training.errors import InputError, UndefinedScore
from ganlstm_fast.training.outputs import trained
from ganlstm_fast.training.pictures import plot_images, write_image
from ganlstm_fast.training.recipes.classifier import digest
from ganlstm_fast.training.recipes.gan import GANRecipe
from ganlstm_fast.training.state import Run
from ganlstm_fast.training.undefined import defined_all, defined_for

# In a folder with classes one image in this many is held out for the scores.
HELD_OUT = 5
MADE = 1000


class ImageRecipe(GANRecipe):
    """Digits, or a folder of images."""

    config: MLPGANConfig | DCGANConfig

    def __init__(self, config: MLPGANConfig | DCGANConfig) -> None:
        super().__init__(config)
        self.test: Labelled | None = None
        if config.data is None:
            self.name = "digits"
            self.labelled, self.test = digit_images(config.size)
        else:
            self.name = Path(config.data).name
            found = load_image_folder(config.data, config.size, config.channels)
            self.notes = skipped_words(found.skipped)
            labels = found.labels
            if labels is None:
                labels = torch.zeros(len(found), dtype=torch.int64)
            self.labelled = Labelled(found.images, labels, found.classes)
            if len(found.classes) > 1:
                held = torch.arange(len(found)) % HELD_OUT == HELD_OUT - 1
                self.labelled, self.test = self.labelled.take(~held), self.labelled.take(held)
        self.samples, self.inputs = self.labelled.inputs, {}
        self.data = {"fingerprint": digest(self.samples)}

    def describe(self) -> str:
        c = self.config
        return f"{self.name}: {self.size} images of {c.size} pixels and {c.channels} channel(s)"

    def noise(self, generator: nn.Module, count: int, random: torch.Generator) -> Tensor:
        return generator.noise(count, random)

    def finish(self, run: Run, progress: Any) -> dict[str, Any]:
        """samples.png, and scores by a classifier of the real images where they have classes."""
        config = self.config
        random = torch.Generator(run.state.device).manual_seed(config.seed)
        made = trained(run).sample(min(MADE, max(self.size, 4)), random).cpu()
        real = self.labelled.inputs
        plot_images(run.folder / "samples.png", real, made)
        if config.metrics == "none":
            return {}
        if self.test is not None:
            from ganlstm_fast.training.metrics.images import SCORES, evaluate_images

            judged = self.labelled, self.test, made, config.seed
            return defined_all(SCORES, lambda: evaluate_images(*judged))
        return defined_all(("mmd_squared", "diversity"), lambda: compare_images(real, made))

    @staticmethod
    def generate(model: nn.Module, config: Any, data: dict[str, Any], count: int, seed: int) -> Any:
        """Images [count, channels, size, size] in [-1, 1]."""
        random = torch.Generator(next(model.parameters()).device).manual_seed(seed)
        return model.generator.sample(count, random).cpu()

    @staticmethod
    def write(path: Path | TextIO, made: Tensor, data: dict[str, Any]) -> str:
        """Write ``made`` as one picture, side by side; returns what it is, in words."""
        if not isinstance(path, Path):
            raise InputError("-o: expected a file, such as made.png: images do not go to a screen")
        write_image(path, made)
        return f"{len(made)} images of {made.shape[2]} pixels"


def skipped_words(skipped: tuple[str, ...], most: int = 5) -> list[str]:
    """A note about files that were skipped, if there are any."""
    if not skipped:
        return []
    more = f"; and {len(skipped) - most} more" if len(skipped) > most else ""
    return [f"skipped {len(skipped)} files: {'; '.join(skipped[:most])}{more}"]


def compare_images(real: Tensor, made: Tensor) -> dict[str, Any]:
    """Distance and variety beside the same of the other half of the real images.

    Raises:
        UndefinedScore: there are too few of them, or all of one half are equal.
    """
    from ganlstm_fast.training.metrics.series import diversity, kernel_width, mmd_squared

    count = min(len(real) // 2, len(made))
    if count < 2:
        raise UndefinedScore(f"{len(real)} images are too few to compare with")
    random = torch.Generator().manual_seed(0)
    mixed = real[torch.randperm(len(real), generator=random)[: 2 * count]]
    half, kinds = mixed[:count], {"generated": made[:count], "real": mixed[count:]}
    width = kernel_width(half)
    return {
        "mmd_squared": defined_for(kinds, lambda kind: mmd_squared(half, kind, width)),
        "diversity": defined_for(kinds, lambda kind: diversity(half, kind)),
    }


class MLPGANRecipe(ImageRecipe):
    @staticmethod
    def model(config: MLPGANConfig, data: dict[str, Any]) -> nn.Module:
        image = (config.channels, config.size, config.size)
        return MLPGAN(image, config.noise, config.hidden, spectral_norm=config.spectral_norm)


class DCGANRecipe(ImageRecipe):
    @staticmethod
    def model(config: DCGANConfig, data: dict[str, Any]) -> nn.Module:
        norm = None if config.norm == "none" else config.norm
        return DCGAN(config.size, config.channels, config.noise, config.width, norm)

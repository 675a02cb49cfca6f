"""Generated videos: VideoGAN."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from ganlstm_fast.models import VideoGAN
from ganlstm_fast.training.animations import plot_videos, write_animation, write_videos
from ganlstm_fast.training.configs import VideoGANConfig
from ganlstm_fast.training.datasets import load_video_folder, moving_digits
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.outputs import trained
from ganlstm_fast.training.recipes.base import QUICK
from ganlstm_fast.training.recipes.classifier import digest
from ganlstm_fast.training.recipes.gan import GANRecipe
from ganlstm_fast.training.recipes.images import HELD_OUT, skipped_words
from ganlstm_fast.training.splits import evenly
from ganlstm_fast.training.state import Run
from ganlstm_fast.training.undefined import check_finite, defined_all

# Generated videos that are scored, and those of each kind that samples.gif has.
MADE = 3000
SHOWN = 9


class VideoGANRecipe(GANRecipe):
    """Digits that move, or a folder of videos.

    Attributes:
        samples: uint8, as ``test`` is.
        test: videos that are held out to judge. Of a folder they are every fifth video, with all
            the pieces that it was cut into; where there are fewer than five, none is.
    """

    config: VideoGANConfig

    def __init__(self, config: VideoGANConfig) -> None:
        super().__init__(config)
        self.inputs = {}
        if config.data is None:
            self.name = "moving-digits"
            self.samples, self.test = moving_digits(config.frames, config.size)
        else:
            self.name = Path(config.data).name
            found = load_video_folder(config.data, config.size, config.channels, config.frames)
            self.notes = skipped_words(found.skipped)
            held = found.source % HELD_OUT == HELD_OUT - 1
            self.samples, self.test = found.videos[~held], found.videos[held]
        self.data = {"fingerprint": digest(self.samples, self.test)}

    @staticmethod
    def model(config: VideoGANConfig, data: dict[str, Any]) -> nn.Module:
        return VideoGAN(
            config.size,
            config.channels,
            config.noise,
            config.hidden,
            config.width,
            config.layers,
            norm=None if config.norm == "none" else config.norm,
        )

    def describe(self) -> str:
        c = self.config
        return (
            f"{self.name}: {self.size} videos of {c.frames} frames of {c.size} pixels and "
            f"{c.channels} channel(s); {len(self.test)} are held out"
        )

    def noise(self, generator: nn.Module, count: int, random: torch.Generator) -> Tensor:
        return generator.noise(count, self.config.frames, random)

    def real(self, samples: Tensor) -> Tensor:
        return samples.float() / 127.5 - 1

    def finish(self, run: Run, progress: Any) -> dict[str, Any]:
        """samples.gif, samples.png, and scores of the motion and by a network of its own."""
        config = self.config
        random = torch.Generator(run.state.device).manual_seed(config.seed)
        count = {"full": MADE, "quick": QUICK, "none": SHOWN}[config.metrics]
        made = trained(run).sample(count, config.frames, random).cpu()
        samples = self.samples.cpu()
        real = self.real(samples[evenly(len(samples), SHOWN)])
        plot_videos(run.folder / "samples.png", real, made)
        write_animation(run.folder / "samples.gif", [real, made[: len(real)]])
        if config.metrics == "none":
            return {}
        from ganlstm_fast.training.metrics.videos import ITERATIONS, SCORES, evaluate_videos

        iterations = ITERATIONS[config.metrics]

        def scores() -> dict[str, Any]:
            check_finite("generated", made)
            # Bytes are scored: that is what a user gets, and what real videos are.
            generated = (127.5 * (made + 1)).round().byte()
            test = self.test[evenly(len(self.test), count)]
            judged = samples, test, generated
            return evaluate_videos(*judged, iterations, config.seed, tick=bar.update)

        hidden = {} if iterations else {"disable": True}
        with progress(total=4 * iterations, unit="it", desc="metrics", **hidden) as bar:
            return defined_all(SCORES, scores)

    @staticmethod
    def generate(
        model: nn.Module, config: VideoGANConfig, data: dict[str, Any], count: int, seed: int
    ) -> Tensor:
        """Videos [count, frames, channels, size, size] in [-1, 1]."""
        random = torch.Generator(next(model.parameters()).device).manual_seed(seed)
        return model.generator.sample(count, config.frames, random).cpu()

    @staticmethod
    def write(path: Path | TextIO, made: Tensor, data: dict[str, Any]) -> str:
        """Write ``made`` as one GIF or as a sheet of frames; returns what it is, in words."""
        if not isinstance(path, Path):
            raise InputError("-o: expected a file, such as made.gif: videos do not go to a screen")
        write_videos(path, made)
        return f"{len(made)} videos of {made.shape[1]} frames of {made.shape[-1]} pixels"

"""Images translated between two kinds: CycleGAN."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

import torch
from torch import Tensor, nn

from ganlstm_fast.models import CycleGAN
from ganlstm_fast.training.configs import CycleGANConfig
from ganlstm_fast.training.datasets import (
    hold_out,
    load_image,
    load_image_folder,
    styled_digits,
    weight_and_slant,
)
from ganlstm_fast.training.datasets.image_folder import files_in
from ganlstm_fast.training.datasets.unpaired import Split
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.outputs import trained
from ganlstm_fast.training.pictures import plot_translations, write_image, write_images
from ganlstm_fast.training.recipes.classifier import digest
from ganlstm_fast.training.recipes.gan import Batch, GANRecipe
from ganlstm_fast.training.recipes.image_pool import ImagePool
from ganlstm_fast.training.recipes.images import skipped_words
from ganlstm_fast.training.splits import evenly
from ganlstm_fast.training.state import Run, State
from ganlstm_fast.training.undefined import check_finite, defined_for

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from ganlstm_fast.training.fabric import OneProcess

# The two directions of a translation.
A_TO_B, B_TO_A = "a-to-b", "b-to-a"
# Held-out images of each kind in the picture.
SHOWN = 12


class CycleGANRecipe(GANRecipe):
    """Digits in two styles, or two folders of images.

    A sample is a pair of an image of kind a and one of kind b, drawn independently. The losses are
    means over both critics and both L1 terms, so they are half of the sums in the paper (Zhu et
    al., 2017, equation 3), which is the same to Adam.

    Attributes:
        samples: [n, 2, channels, size, size], n images of the kind that has more; the images of the
            other kind are repeated.
        counts: how many images of each kind there are.
        test: held-out images of each kind.
    """

    config: CycleGANConfig
    given: ClassVar = ("images", "direction")

    def __init__(self, config: CycleGANConfig) -> None:
        super().__init__(config)
        self.inputs = {}
        splits, self.name, self.notes = load_kinds(config)
        (self.train_a, test_a), (self.train_b, test_b) = splits
        self.test = test_a, test_b
        images = self.train_a.inputs, self.train_b.inputs
        self.counts = len(images[0]), len(images[1])
        rows = torch.arange(max(self.counts))
        kinds = zip(images, self.counts, strict=True)
        self.samples = torch.stack([kind[rows % count] for kind, count in kinds], 1)
        self.data = {"fingerprint": digest(*images, test_a.inputs, test_b.inputs)}

    @staticmethod
    def model(config: CycleGANConfig, data: dict[str, Any]) -> nn.Module:
        return CycleGAN(config.channels, config.width, config.blocks, config.critic_width)

    def describe(self) -> str:
        c, (a, b), (test_a, test_b) = self.config, self.counts, self.test
        return (
            f"{self.name}: {a} and {b} images of {c.size} pixels and {c.channels} channel(s); "
            f"{len(test_a)} and {len(test_b)} are held out"
        )

    def setup(self, fabric: Fabric | OneProcess) -> None:
        super().setup(fabric)
        image = tuple(self.samples.shape[2:])
        pools = (ImagePool(self.config.pool, image).to(fabric.device) for _ in range(2))
        self.pool_a, self.pool_b = pools

    def parts(self) -> dict[str, Any]:
        return {**super().parts(), "pool_a": self.pool_a, "pool_b": self.pool_b}

    def noise(self, generator: nn.Module, count: int, random: torch.Generator) -> Tensor:
        """What the translators are given in the place of noise: pairs of images."""
        return self._pairs([self._pick(k, count, random) for k in range(2)])

    def fake(
        self,
        generator: nn.Module,
        noise: Tensor,
        inputs: dict[str, Tensor],
        random: torch.Generator | None = None,
    ) -> Tensor:
        # Only the watched images come here, many at a time.
        to_a = generator.translate(noise[:, 1], B_TO_A)
        return torch.stack((to_a, generator.translate(noise[:, 0], A_TO_B)), 1)

    def draw(self, state: State) -> Batch:
        size = self.config.batch_size
        picks = [state.share(self._pick(k, size, state.generator)) for k in range(2)]
        return Batch(self._pairs(picks), {})

    def _pick(self, kind: int, count: int, random: torch.Generator) -> Tensor:
        size = (count,)
        return torch.randint(self.counts[kind], size, generator=random, device=random.device)

    def _pairs(self, picks: list[Tensor]) -> Tensor:
        return torch.stack([self.samples[pick, kind] for kind, pick in enumerate(picks)], 1)

    def make(self, batch: Batch, state: State, generator: nn.Module | None = None) -> Tensor:
        """The batch translated; without ``generator``, as the critics see it: from their pools."""
        if generator is not None:
            return generator(batch.real)
        with torch.no_grad(), self.fabric.autocast():
            fake = self.raw.generator(batch.real).float()
        if state.share.count > 1:
            # The translations of all processes, in the order of the batch: all keep the same pools.
            fake = self.fabric.all_gather(fake).transpose(0, 1).flatten(0, 1)
        pools = zip((self.pool_a, self.pool_b), fake.unbind(1), strict=True)
        return state.share(torch.stack([p.exchange(f, state.generator) for p, f in pools], 1))

    def beside_the_scores(self, fake: Tensor, batch: Batch, state: State) -> Tensor | float:
        """The cycle and identity losses (Zhu et al., 2017, equation 2 and section 5.2)."""
        config, real = self.config, batch.real
        if config.identity == 0:
            back, same = self.generator(fake), real
        else:
            back, same = self.generator(torch.cat((fake, real.flip(1)))).chunk(2)
        cycle, identity = (back - real).abs().mean(), (same - real).abs().mean()
        return config.cycle * cycle + config.identity * identity

    def show(self, folder: Path) -> None:
        self._draw(folder, self.average.module)

    def _draw(self, folder: Path, generator: nn.Module) -> None:
        """translations.png: held-out images, their translations, and these translated back."""
        rows = []
        for k, part in enumerate(self.test):
            some = evenly(len(part), SHOWN)
            rows.append(there_and_back(generator, part.inputs[some], k))
        plot_translations(folder / "translations.png", rows)

    def finish(self, run: Run, progress: Any) -> dict[str, Any]:
        """translations.png, and scores by classifiers of real images."""
        generator = trained(run)
        self._draw(run.folder, generator)
        if self.config.metrics == "none":
            return {}
        from ganlstm_fast.training.metrics.translations import evaluate_translations

        made = [there_and_back(generator, part.inputs, k) for k, part in enumerate(self.test)]
        _, translated, back = zip(*made, strict=True)
        trained_on = self.train_a, self.train_b
        scores = evaluate_translations(trained_on, self.test, translated, back)
        if self.config.data is None:
            # A classifier sees style b by its outlines; how far digits lean is measured apart.
            a, b = (part.inputs for part in self.test)
            for way, kinds in (
                ("a_to_b", {"generated": translated[0], "untranslated": a, "real": b}),
                ("b_to_a", {"generated": translated[1], "untranslated": b, "real": a}),
            ):
                scores[f"slant_{way}"] = defined_for(kinds, mean_slant)
        return scores

    @staticmethod
    def generate(
        model: nn.Module,
        config: CycleGANConfig,
        data: dict[str, Any],
        count: int,
        seed: int,
        images: str | None = None,
        direction: str = A_TO_B,
    ) -> Tensor:
        """Translations [n, channels, size, size] in [-1, 1].

        Args:
            count, seed: without ``images``, how many held-out images (at most all), and which.
            images: a file, or a folder, whose images are all translated, in order of name.

        Raises:
            InputError: a direction that is not known, an image that cannot be read, or none there.
        """
        if direction not in (A_TO_B, B_TO_A):
            raise InputError(f"`direction`: expected {A_TO_B} or {B_TO_A}, got {direction}")
        if images is None:
            held = load_kinds(config)[0][(A_TO_B, B_TO_A).index(direction)][1].inputs
            random = torch.Generator().manual_seed(seed)
            source = held[torch.randperm(len(held), generator=random)[:count]]
        else:
            files = files_of(Path(images))
            source = torch.stack([load_image(f, config.size, config.channels) for f in files])
        return model.generator.translate(source, direction)

    @staticmethod
    def write(path: Path | TextIO, made: Tensor, data: dict[str, Any]) -> str:
        """Write ``made``: as one picture to a PNG file, else as a folder of them.

        Args:
            data: ``images``, what :meth:`generate` was given, names the files of the folder.
        """
        if not isinstance(path, Path):
            raise InputError(
                "-o: expected a folder, or a file such as made.png: images do not go to a screen"
            )
        if path.suffix.lower() == ".png":
            write_image(path, made)
        elif path.suffix:
            raise InputError(f"-o: expected a folder, or a file that ends with .png, got {path}")
        else:
            write_images(path, made, names_of(data.get("images"), len(made)))
        return f"{len(made)} translated images of {made.shape[-1]} pixels"


def load_kinds(config: CycleGANConfig) -> tuple[tuple[Split, Split], str, list[str]]:
    """Images of both kinds, the data's name, and what the user is warned of."""
    if config.data is None or config.data_b is None:
        return styled_digits(config.size), "styled-digits", []
    paths = config.data, config.data_b
    a, b = (load_image_folder(path, config.size, config.channels) for path in paths)
    name = "-".join(Path(path).name for path in paths)
    splits = hold_out(a, config.data), hold_out(b, config.data_b)
    return splits, name, skipped_words(a.skipped + b.skipped)


def there_and_back(
    generator: nn.Module, images: Tensor, kind: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Images of kind a (0) or b (1), their translations, and these translated back."""
    there, back = (A_TO_B, B_TO_A) if kind == 0 else (B_TO_A, A_TO_B)
    translated = generator.translate(images, there)
    return images, translated, generator.translate(translated, back)


def mean_slant(images: Tensor) -> float:
    """How far digits lean to the right, in columns a row; that of images that are all ground is 0.

    Raises:
        UndefinedScore: values that are not finite.
    """
    check_finite("images", images)
    return float(weight_and_slant(images)[:, 1].mean())


def files_of(path: Path) -> list[Path]:
    """The image at ``path``, or all in that folder; raises InputError where there is none."""
    if not path.is_dir():
        return [path]
    files = files_in(path)
    if not files:
        raise InputError(f"`images`: {path} has no image")
    return files


def names_of(images: str | None, count: int) -> list[str]:
    """The PNG file of each translation, below a folder: as its image, else its number."""
    if images is None:
        return [f"{k:0{len(str(count))}}.png" for k in range(1, count + 1)]
    path = Path(images)
    files = [f.relative_to(path if path.is_dir() else path.parent) for f in files_of(path)]
    names = [str(file.with_suffix(".png")) for file in files]
    # a.jpg and a.png would become the same file, so both keep their endings.
    return [f"{f}.png" if names.count(n) > 1 else n for f, n in zip(files, names, strict=True)]

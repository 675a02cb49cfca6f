"""Images generated for a text: TextToImageGAN."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ganlstm_fast.models import TextToImageGAN
from ganlstm_fast.training.configs import TextToImageConfig
from ganlstm_fast.training.datasets.captions import (
    NUMBERS,
    Captioned,
    Words,
    captioned_digits,
    describe_digit,
    load_captions,
    weight_and_slant,
)
from ganlstm_fast.training.datasets.labelled import Labelled
from ganlstm_fast.training.errors import UndefinedScore
from ganlstm_fast.training.outputs import trained
from ganlstm_fast.training.pictures import plot_captions
from ganlstm_fast.training.recipes.classifier import digest
from ganlstm_fast.training.recipes.gan import Batch, GANRecipe
from ganlstm_fast.training.recipes.images import ImageRecipe, compare_images
from ganlstm_fast.training.state import Run, State
from ganlstm_fast.training.undefined import defined_all, defined_for

# Texts in the picture, and images of each.
SHOWN, EACH = 8, 8
# The mean distance of two standard normal numbers.
NOISE_APART = 2 / math.sqrt(math.pi)


@dataclass(frozen=True)
class CaptionedBatch(Batch):
    """``wrong``: texts of other images, for the same images."""

    wrong: dict[str, Tensor]


class TextToImageRecipe(GANRecipe):
    """Digits with their measurements in words, or a folder of images with captions.

    A real image with the text of another one counts as generated, beside the generated images
    (Reed et al., 2016, algorithm 1): so the critic learns to read, too.
    """

    config: TextToImageConfig
    given: ClassVar = ("text",)

    def __init__(self, config: TextToImageConfig) -> None:
        super().__init__(config)
        self.test: Captioned | None = None
        if config.data is None:
            self.name = "digits"
            self.train, self.test = captioned_digits(config.size)
        else:
            self.name = Path(config.data).name
            self.train = load_captions(config.data, config.size, config.channels)
        self.words = Words.of(self.train.texts)
        self.samples = self.train.images
        numbers, lengths = self.words.encode(self.train.texts)
        self.inputs = {"words": numbers, "lengths": lengths}
        self.data = {
            "fingerprint": digest(self.samples, numbers, lengths),
            "words": list(self.words.words),
            "example": self.train.texts[0],
        }

    @staticmethod
    def model(config: TextToImageConfig, data: dict[str, Any]) -> nn.Module:
        return TextToImageGAN(
            len(data["words"]),
            config.size,
            config.channels,
            config.noise,
            config.width,
            embedding=config.embedding,
            hidden=config.hidden,
        )

    def describe(self) -> str:
        c = self.config
        return (
            f"{self.name}: {self.size} images of {c.size} pixels and {c.channels} channel(s), with "
            f'texts of {len(self.words)} words, such as "{self.train.texts[0]}"'
        )

    def noise(self, generator: nn.Module, count: int, random: torch.Generator) -> Tensor:
        return generator.noise(count, random)

    def draw(self, state: State) -> CaptionedBatch:
        batch = super().draw(state)
        size = (self.config.batch_size,)
        other = torch.randint(self.size, size, generator=state.generator, device=state.device)
        other = state.share(other)
        wrong = {name: value[other] for name, value in self.inputs.items()}
        return CaptionedBatch(batch.real, batch.inputs, wrong)

    def scores_of(self, real: Tensor, fake: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        assert isinstance(batch, CaptionedBatch)
        told = {
            name: torch.cat((value, value, batch.wrong[name]))
            for name, value in batch.inputs.items()
        }
        scores = self.critic(torch.cat((real, fake, real)), **told)
        right, generated, wrong = scores.split(len(real))
        return torch.cat((right, right)), torch.cat((generated, wrong))

    def beside_the_scores(self, fake: Tensor, batch: Batch, state: State) -> Tensor | float:
        """The mode seeking loss (Mao et al., 2019, equation 5): one over the mean distance of two
        images of a text, in units of that of their noise."""
        if self.config.mode_seeking == 0:
            return 0.0
        other = self.make(batch, state, self.generator)
        apart = (fake - other).abs().mean() / NOISE_APART
        return self.config.mode_seeking / (apart + 1e-5)

    def finish(self, run: Run, progress: Any) -> dict[str, Any]:
        """samples.png, and whether the images of digits are what their texts say."""
        generator, device = trained(run), run.state.device
        random = torch.Generator(device).manual_seed(self.config.seed)

        def make(texts: list[str]) -> Tensor:
            numbers, lengths = self.words.encode(texts)
            return generator.sample(numbers.to(device), lengths.to(device), random).cpu()

        texts = self._shown()
        images = make([text for text in texts for _ in range(EACH)])
        plot_captions(run.folder / "samples.png", texts, images)
        if self.config.metrics == "none":
            return {}
        if self.test is None:
            made = make(list(self.train.texts))
            names = ("mmd_squared", "diversity")
            return defined_all(names, lambda: compare_images(self.train.images, made))
        made = make(list(self.test.texts))
        scores = agreement(self.train, self.test, made, self.config.seed)
        pairs = {"generated": (made, make(list(self.test.texts))), "real": alike(self.train)}
        scores["variety"] = defined_for(pairs, lambda pair: float((pair[0] - pair[1]).abs().mean()))
        return scores

    def _shown(self) -> list[str]:
        if self.config.data is not None:
            step = max(1, len(self.train) // SHOWN)
            return list(self.train.texts[::step][:SHOWN])
        looks = [(7, 0, 2), (7, 2, 2), (7, 0, 0), (3, 1, 1), (3, 2, 1), (0, 0, 1), (0, 2, 0)]
        return [describe_digit(*look) for look in (*looks, (5, 1, 2))]

    @staticmethod
    def generate(
        model: nn.Module,
        config: TextToImageConfig,
        data: dict[str, Any],
        count: int,
        seed: int,
        text: str | None = None,
    ) -> Tensor:
        """Images [count, channels, size, size] in [-1, 1] of a text; None: one of the data's.

        Raises:
            InputError: a text without a word, or with one that was not in the data.
        """
        numbers, lengths = Words(tuple(data["words"])).encode([text or data["example"]])
        device = next(model.parameters()).device
        random = torch.Generator(device).manual_seed(seed)
        told = numbers.expand(count, -1).to(device), lengths.expand(count).to(device)
        return model.generator.sample(*told, random).cpu()

    write = staticmethod(ImageRecipe.write)


def agreement(
    train: Captioned, test: Captioned, made: Tensor, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """How far images agree with the texts of ``test``: of generated, real and shuffled ones.

    Args:
        made: [n, 1, size, size], an image of each text.

    Returns:
        Of each kind: ``digit_agreement``, the share in which a classifier of real images sees the
        digit of the text; ``slant_agreement`` and ``weight_agreement``, the correlation of the
        text's word (-1, 0 or 1) with what :func:`weight_and_slant` measures, standardised over the
        digits of the class. "shuffled" pairs generated images with other images' texts: the score
        of a generator that does not read.
    """
    from ganlstm_fast.training.metrics.images import ImageClassifier

    labels, looks = test.labels, test.looks
    assert labels is not None
    assert looks is not None
    assert train.labels is not None
    classifier = ImageClassifier.fit(Labelled(train.images, train.labels, NUMBERS), seed)
    measured = weight_and_slant(train.images)
    mean, spread = (
        torch.stack([of(measured[train.labels == c]) for c in range(len(NUMBERS))])
        for of in (lambda x: x.mean(0), lambda x: x.std(0))
    )
    order = torch.randperm(len(made), generator=torch.Generator().manual_seed(seed))
    kinds = {"generated": made, "real": test.images, "shuffled": made[order]}

    def look(images: Tensor, part: int) -> float:
        measured = weight_and_slant(images)[:, part]
        if not measured.std() > 0:
            raise UndefinedScore("all images measure the same")
        values = (measured - mean[labels, part]) / spread[labels, part]
        pair = torch.stack((looks[:, part].double() - 1, values))
        return float(torch.corrcoef(pair)[0, 1])

    scores = {
        "digit_agreement": lambda images: classifier.accuracy(Labelled(images, labels, NUMBERS)),
        "slant_agreement": lambda images: look(images, 1),
        "weight_agreement": lambda images: look(images, 0),
    }
    return {name: defined_for(kinds, score) for name, score in scores.items()}


def alike(digits: Captioned) -> tuple[Tensor, Tensor]:
    """Pairs of different images that look the same in words: each with the next of its kind."""
    assert digits.labels is not None
    assert digits.looks is not None
    kind = 9 * digits.labels + 3 * digits.looks[:, 0] + digits.looks[:, 1]
    order = kind.argsort(stable=True)
    same = kind[order][1:] == kind[order][:-1]
    return digits.images[order[1:][same]], digits.images[order[:-1][same]]

"""The models that can be trained, and the settings of each; nothing here loads what trains."""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ganlstm_fast.training.config import (
    COUNT,
    DECAY,
    LOSS_NAMES,
    NATURAL,
    RATE,
    SHARE,
    TWO,
    WEIGHT,
    GANSettings,
    Rule,
    Settings,
    SupervisedSettings,
    data_option,
    model_option,
    option,
    path_option,
    run_option,
    settings,
    table_option,
)
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.tables.given import SERIES, TableLike, is_table

# Made data, not a file.
SINES = "sines"
CRITICS = ("lstm", "bilstm", "attention", "conv")
AUDIBLE = Rule(lambda v: 1000 <= v <= 192000, "1000 to 192000")
# The highest generated note needs at least this many samples a second.
LEAST_RATE = 8000
# What can be done about missing values: see load_series.
FILLS = ("interpolate", "previous", "drop")
# Losses that are a mean over the scores of patches. (A relativistic average would mix the scores of
# two critics, and the penalty of wgan-gp needs one score for the whole image.)
PATCH_LOSSES = ("lsgan", "hinge", "minimax", "non-saturating", "relativistic")


@settings
class LSTMOptions:
    """Sizes of a model's LSTMs."""

    hidden: int = model_option(32, "units of each LSTM", COUNT)
    layers: int = model_option(1, "layers of each LSTM", COUNT)
    bidirectional: bool = model_option(False, "read or write sequences in both directions")


@settings
class TableOptions:
    """A table of numbers."""

    data: TableLike | None = table_option("column names, and numbers below them (bundled weather)")
    columns: tuple[str, ...] | None = data_option(
        None, "columns to learn (all of numbers, except those that number the rows)", metavar="A,B"
    )
    date_column: str | None = data_option(
        None,
        "column of dates, by which rows are sorted; none: they are in order (the first of dates)",
        metavar="NAME",
    )
    series_column: str | None = data_option(
        None,
        "column that says which of several series a row is of; no window runs from one into the "
        "next, and the last rows of each are held out; none: there is one series (refuse a file "
        "that looks as if it held several)",
        metavar="NAME",
    )
    gaps: str = data_option(
        "cut", "windows end before a gap in time, or cross it", choices=("cut", "cross")
    )
    fill: str | None = data_option(
        None,
        "missing values: interpolate them in time, take the previous one, or drop their rows, "
        "which no window then crosses (refuse them)",
        choices=FILLS,
    )

    def located(self) -> TableOptions:
        """With a name for the number of the series, where the data is an array of several."""
        found = super().located()
        several = is_table(self.data) and len(self.data.shape) == 3
        if self.series_column is None and several:
            found = dataclasses.replace(found, series_column=SERIES)
        return found


@settings
class SequenceGANOptions(LSTMOptions):
    """A generator and a critic of sequences."""

    noise: int = model_option(16, "noise values a step", COUNT)
    critic: str = model_option("lstm", "kind of critic", choices=CRITICS)
    spectral_norm: bool | None = model_option(
        None, "spectral norm on the critic's weights (on for conv only)"
    )


@settings
class TrainConfig(TableOptions, SequenceGANOptions, GANSettings):
    """Settings of an ``lstm-gan``; the defaults suit the bundled daily weather of Seattle."""

    data: TableLike | None = table_option(
        "column names, and numbers below them, or sines: TimeGAN's made series (bundled weather)",
    )
    seq_len: int = data_option(24, "rows in a window", TWO)
    lr_g: float = option(4e-4, "generator's learning rate", RATE)
    lr_d: float = option(2e-4, "critic's learning rate", RATE)
    score_seeds: int = run_option(1, "how often TimeGAN's scores are computed", COUNT)

    @property
    def of_sines(self) -> bool:
        """Whether the data is TimeGAN's made series."""
        return isinstance(self.data, str) and self.data == SINES

    def located(self) -> TrainConfig:
        return self if self.of_sines else super().located()


@settings
class AnomalyConfig(TrainConfig):
    """Settings of ``anomaly``: an LSTM-GAN whose critic and generator score windows."""

    held_out: int | None = data_option(
        None,
        "last rows, in which anomalies are planted to test (730, at most half of the rows)",
        COUNT,
    )
    planted: int = data_option(2, "anomalies planted of each kind", COUNT)
    search_steps: int = model_option(50, "steps of the search for a window's noise", COUNT)
    weight: float = model_option(
        0.5, "of the reconstruction in the score; the critic has the rest", WEIGHT
    )
    threshold_quantile: float = run_option(
        0.99,
        "share of the held-out windows without planted anomalies that lie below the threshold; "
        "score flags windows above it",
        SHARE,
    )


@settings
class ConditionalConfig(TrainConfig):
    """Settings of a ``conditional-lstm-gan``."""

    seq_len: int = data_option(7, "rows to generate", TWO)
    condition: str = data_option(
        "month",
        "what is given: the month, or the rows before",
        choices=("month", "history", "both"),
    )
    history: int = data_option(28, "rows before that are given", COUNT)
    held_out: int | None = data_option(
        None, "last rows that are not trained on (365, at most a quarter of the rows)", COUNT
    )
    embedding: int = model_option(16, "numbers that a condition is encoded in", COUNT)
    projection: bool = model_option(False, "the critic takes the month by projection")


@settings
class ForecasterConfig(TableOptions, LSTMOptions, SupervisedSettings):
    """Settings of an ``lstm-forecaster``."""

    history: int = data_option(100, "rows that a forecast is made from", COUNT)
    horizon: int = data_option(1, "rows that are forecast", COUNT)
    held_out: int | None = data_option(
        None,
        "last rows, to test on; half as many before them are watched (365, at most a quarter of "
        "the rows)",
        TWO,
    )
    quantiles: tuple[float, ...] = model_option(
        (0.1, 0.5, 0.9), "to forecast, with 0.5 in the middle", metavar="A,B,C"
    )
    mean: bool = model_option(False, "forecast the mean instead of quantiles")
    attention: str | None = model_option(None, "over the steps (none)", choices=("additive", "dot"))
    residual: bool = model_option(False, "forecast the difference from the last row")
    period: int | None = data_option(
        None,
        "rows that the seasonal simple forecast goes back (by the step of the dates: days 365, "
        "hours 24 and 168, months 12)",
        COUNT,
    )
    batch_size: int = option(64, "samples a step, over all processes together", COUNT)
    patience: int = option(
        8, "stop after this many checkpoints without a lower held-out loss; 0: never", NATURAL
    )
    checkpoint_every: int = run_option(100, "steps between checkpoints", COUNT)

    @property
    def levels(self) -> tuple[float, ...] | None:
        """The quantiles that are forecast; None: the mean."""
        return None if self.mean else self.quantiles

    def check(self) -> None:
        q = self.quantiles
        ok = all(0 < v < 1 for v in q) and len(q) % 2 and q[len(q) // 2] == 0.5
        self._require("quantiles", bool(ok), "numbers above 0 and below 1 with 0.5 in the middle")


@settings
class ClassifierConfig(LSTMOptions, SupervisedSettings):
    """Settings of an ``lstm-classifier``."""

    data: TableLike | None = table_option(
        "a row a step, with a column for the sequence it belongs to and one for its class (digits "
        "of scikit-learn)",
    )
    columns: tuple[str, ...] | None = data_option(
        None, "columns to read (all other columns of numbers)", metavar="A,B"
    )
    series_column: str = data_option("series", "column that names the sequence of a row")
    label_column: str = data_option("label", "column of its class")
    date_column: str | None = data_option(
        None,
        "column of dates, by which the rows of a sequence are sorted; none: they are in order (the "
        "first of dates)",
        metavar="NAME",
    )
    fill: str | None = data_option(
        None,
        "missing values: interpolate them in time, take the previous one, or drop their rows "
        "(refuse them)",
        choices=FILLS,
    )
    sequences: str = data_option(
        "rows",
        "of digits: rows of pixels, or columns without the empty ones at the sides, whose number "
        "differs",
        choices=("rows", "columns"),
    )
    hidden: int = model_option(64, "units of each LSTM", COUNT)
    bidirectional: bool = model_option(True, "read sequences in both directions")
    attention: str | None = model_option(None, "over the steps (none)", choices=("additive", "dot"))
    batch_size: int = option(64, "samples a step, over all processes together", COUNT)
    steps: int = run_option(1500, "steps to train for", COUNT)


@settings
class TextClassifierConfig(LSTMOptions, SupervisedSettings):
    """Settings of a ``text-classifier``."""

    data: TableLike | None = table_option(
        "a row a text, with a column for it and one for its class (pieces of sonnets and of Alice "
        "in Wonderland)",
    )
    text_column: str = data_option("text", "column of the texts")
    label_column: str = data_option("label", "column of their classes")
    longest: int = data_option(500, "how many symbols of a text are read, from its start", COUNT)
    embedding: int = model_option(16, "numbers that a symbol is", COUNT)
    hidden: int = model_option(64, "units of each LSTM", COUNT)
    bidirectional: bool = model_option(True, "read texts in both directions")
    attention: str = model_option("additive", "over the steps", choices=("additive", "dot", "none"))
    dropout: float = model_option(0.5, "share of the LSTM's outputs left out in training", DECAY)
    noise: float = option(
        # As the word dropout of Iyyer et al., 2015, with another symbol in the place of none.
        0.15,
        "share of a text's symbols that training replaces by others, anew in each step",
        DECAY,
    )
    weight_decay: float = option(0.05, "of AdamW", WEIGHT)
    lr: float = option(3e-3, "learning rate", RATE)
    steps: int = run_option(1000, "steps to train for", COUNT)
    checkpoint_every: int = run_option(100, "steps between checkpoints", COUNT)


@settings
class SequenceToSequenceConfig(SupervisedSettings):
    """Settings of a ``sequence-to-sequence``."""

    data: TableLike | None = table_option(
        "a row a text, with a column for it and one for its translation (dates in words and in ISO "
        "8601, made)",
    )
    source_column: str = data_option("source", "column of the texts")
    target_column: str = data_option("target", "column of their translations")
    embedding: int = model_option(32, "numbers that a symbol is", COUNT)
    hidden: int = model_option(64, "units of each LSTM", COUNT)
    layers: int = model_option(1, "layers of each LSTM", COUNT)
    attention: str = model_option(
        "additive", "over the steps of the source", choices=("additive", "dot")
    )
    beams: int = model_option(
        4,
        "beginnings of a translation that are kept; 1 takes the likeliest symbol each time",
        COUNT,
    )
    batch_size: int = option(64, "samples a step, over all processes together", COUNT)
    steps: int = run_option(600, "steps to train for", COUNT)
    checkpoint_every: int = run_option(100, "steps between checkpoints", COUNT)


@settings
class ImageOptions:
    """Images to learn."""

    augmentations: ClassVar = ("jitter", "scale", "shift", "flip")

    data: str | None = path_option(
        "folder of images, or of a folder for each class (digits of scikit-learn)",
        metavar="DIR",
    )
    size: int = data_option(28, "pixels of an image's side", COUNT)
    channels: int = data_option(1, "1: levels of grey, 3: colours", COUNT)
    noise: int = model_option(100, "noise values an image", COUNT)

    def check(self) -> None:
        super().check()
        self._require("channels", self.channels in (1, 3), "1 or 3")
        ok = self.data is not None or self.channels == 1
        self._require("channels", ok, "1 for the digits, which have no colour")


@settings
class MLPGANConfig(ImageOptions, GANSettings):
    """Settings of an ``mlp-gan``."""

    hidden: tuple[int, ...] = model_option((256,), "units of hidden layers", metavar="A,B")
    spectral_norm: bool = model_option(False, "spectral norm on the critic's weights")
    loss: str = option("non-saturating", "of critic and generator", choices=LOSS_NAMES)
    batch_size: int = option(64, "samples a step, over all processes together", COUNT)
    n_critic: int = option(1, "steps of the critic for one of the generator", COUNT)
    beta2: float = option(0.99, "of Adam", DECAY)
    lr_d: float = option(2e-4, "critic's learning rate", RATE)
    steps: int = run_option(10000, "steps of the generator", COUNT)

    def check(self) -> None:
        super().check()
        self._require("size", self.data is not None or self.size >= 8, "8 or more for the digits")
        ok = bool(self.hidden) and all(size >= 1 for size in self.hidden)
        self._require("hidden", ok, "1 or more for each layer")


@settings
class DCGANConfig(ImageOptions, GANSettings):
    """Settings of a ``dcgan``."""

    width: int = model_option(16, "channels of the largest feature map", COUNT)
    norm: str = model_option(
        "spectral", "of the critic's weights, or layers", choices=("spectral", "layer", "none")
    )
    loss: str = option("hinge", "of critic and generator", choices=LOSS_NAMES)
    penalty: float | None = option(0.0, "weight of the gradient penalty, 0 for none", WEIGHT)
    batch_size: int = option(64, "samples a step, over all processes together", COUNT)
    n_critic: int = option(1, "steps of the critic for one of the generator", COUNT)
    beta2: float = option(0.999, "of Adam", DECAY)
    lr_d: float = option(2e-4, "critic's learning rate", RATE)
    steps: int = run_option(3000, "steps of the generator", COUNT)

    def check(self) -> None:
        super().check()
        self._require("size", self.size in (28, 32, 64, 128), "one of 28, 32, 64, 128")


@settings
class TextToImageConfig(ImageOptions, GANSettings):
    """Settings of a ``text-to-image``."""

    # Not flipped: an image would no longer be what its text says.
    augmentations: ClassVar = ("jitter", "scale", "shift")

    data: str | None = path_option(
        "folder of images with captions.csv, whose columns are file and caption (digits of "
        "scikit-learn, described)",
        metavar="DIR",
    )
    noise: int = model_option(32, "noise values an image", COUNT)
    width: int = model_option(16, "channels of the largest feature map", COUNT)
    embedding: int = model_option(32, "numbers that a word is", COUNT)
    hidden: int = model_option(64, "units of the LSTMs that read the text", COUNT)
    mode_seeking: float = option(
        # Mao et al., Mode Seeking GANs for Diverse Image Synthesis, 2019.
        0.1,
        "weight of the generator's penalty for images of a text that are alike, 0 for none",
        WEIGHT,
    )
    loss: str = option("hinge", "of critic and generator", choices=LOSS_NAMES)
    penalty_every: int = option(
        8,
        "steps of the critic from one penalty to the next; each then weighs that many times as "
        "much",
        COUNT,
    )
    batch_size: int = option(64, "samples a step, over all processes together", COUNT)
    n_critic: int = option(1, "steps of the critic for one of the generator", COUNT)
    beta2: float = option(0.999, "of Adam", DECAY)
    lr_d: float = option(2e-4, "critic's learning rate", RATE)
    steps: int = run_option(4000, "steps of the generator", COUNT)

    def check(self) -> None:
        super().check()
        self._require("size", self.size in (28, 32, 64, 128), "one of 28, 32, 64, 128")


@settings
class TextGANConfig(SequenceGANOptions, GANSettings):
    """Settings of a ``text-gan``."""

    augmentations: ClassVar = ()

    data: str | None = path_option("text in UTF-8 (bundled sonnets)", metavar="FILE.txt")
    seq_len: int = data_option(32, "symbols in a sequence", TWO)
    hidden: int = model_option(128, "units of each LSTM", COUNT)
    embedding: int = model_option(32, "numbers that the critic embeds a symbol in", COUNT)
    feedback: bool = model_option(
        True, "the generator reads the symbol that it drew before, not only its noise"
    )
    pretrain: int = option(
        # Yu et al., SeqGAN, 2017, section 3.3.
        1500,
        "first steps, in which the generator learns real text by maximum likelihood, and apart "
        "from it the LSTM of an lstm or attention critic",
        NATURAL,
    )
    lr_pretrain: float = option(2e-3, "learning rate of both in those steps", RATE)
    likelihood: float = option(
        0.1, "weight of the likelihood of real text in the generator's loss after them", WEIGHT
    )
    temperature: float = option(1.0, "of the Gumbel-softmax", RATE)
    hard: bool = option(True, "one-hot symbols, with the gradient of soft ones")
    warmup_d: int = option(
        200, "steps after `pretrain` in which only the critic is trained", NATURAL
    )
    penalty: float | None = option(1.0, "weight of the gradient penalty, 0 for none", WEIGHT)
    penalty_every: int = option(
        2,
        "steps of the critic from one penalty to the next; each then weighs that many times as "
        "much",
        COUNT,
    )
    n_critic: int = option(2, "steps of the critic for one of the generator", COUNT)
    lr_g: float = option(1e-4, "generator's learning rate", RATE)
    lr_d: float = option(5e-4, "critic's learning rate", RATE)
    ema: float = option(0.99, "decay of the averaged weights that samples are drawn from", DECAY)
    steps: int = run_option(3000, "steps of the generator", COUNT)

    def check(self) -> None:
        super().check()
        reads = self.feedback
        self._require("bidirectional", not (reads and self.bidirectional), "off with `feedback`")
        self._require("pretrain", reads or self.pretrain == 0, "0 with `feedback=False`")
        self._require("likelihood", reads or self.likelihood == 0, "0 with `feedback=False`")


@settings
class VideoGANConfig(GANSettings):
    """Settings of a ``video-gan``."""

    augmentations: ClassVar = ()

    data: str | None = path_option(
        "folder of GIF files, or with a folder of frames for each video (digits that move, made)",
        metavar="DIR",
    )
    frames: int = data_option(12, "frames of a video; longer ones are cut into several", TWO)
    size: int = data_option(16, "pixels of a frame's side", COUNT)
    channels: int = data_option(1, "1: levels of grey, 3: colours", COUNT)
    noise: int = model_option(32, "noise values a frame, half of them the same at all", TWO)
    hidden: int = model_option(64, "units of each LSTM", COUNT)
    layers: int = model_option(1, "layers of each LSTM", COUNT)
    width: int = model_option(16, "channels of the largest feature map", COUNT)
    norm: str = model_option(
        "spectral",
        "of the weights of the critic's convolutions, or of layers",
        choices=("spectral", "layer", "none"),
    )
    loss: str = option("hinge", "of critic and generator", choices=LOSS_NAMES)
    penalty_every: int = option(
        4,
        "steps of the critic from one penalty to the next; each then weighs that many times as "
        "much",
        COUNT,
    )
    batch_size: int = option(32, "videos a step, over all processes together", COUNT)
    n_critic: int = option(1, "steps of the critic for one of the generator", COUNT)
    lr_g: float = option(2e-3, "generator's learning rate", RATE)
    lr_d: float = option(1e-3, "critic's learning rate", RATE)
    beta2: float = option(0.99, "of Adam", DECAY)
    ema: float = option(0.995, "decay of the averaged weights that samples are drawn from", DECAY)
    steps: int = run_option(4000, "steps of the generator", COUNT)

    def check(self) -> None:
        super().check()
        self._require("size", self.size in (16, 28, 32, 64, 128), "one of 16, 28, 32, 64, 128")
        self._require("channels", self.channels in (1, 3), "1 or 3")
        ok = self.data is not None or self.channels == 1
        self._require("channels", ok, "1 for the digits, which have no colour")


@settings
class CycleGANConfig(GANSettings):
    """Settings of a ``cyclegan``."""

    augmentations: ClassVar = ()

    data: str | None = path_option(
        "folder of images of one kind, a, or of a folder for each class (digits of scikit-learn)",
        metavar="DIR",
    )
    data_b: str | None = path_option(
        "folder of images of the other kind, b (others, slanted and outlined)",
        metavar="DIR",
    )
    size: int = data_option(28, "pixels of an image's side", COUNT)
    channels: int = data_option(1, "1: levels of grey, 3: colours", COUNT)
    width: int = model_option(8, "channels of the largest feature map", COUNT)
    blocks: int = model_option(3, "residual blocks of a translator", NATURAL)
    critic_width: int = model_option(16, "channels of a critic's largest feature map", COUNT)
    loss: str = option("lsgan", "of critics and translators", choices=PATCH_LOSSES)
    cycle: float = option(
        # Zhu et al., 2017: 10, and for identity the half of it, beside least squares that are not
        # halved as ours are.
        5.0,
        "weight of the difference of images and what comes back of them",
        WEIGHT,
    )
    identity: float = option(
        2.5, "weight of the change that translators make to images of their target's kind", WEIGHT
    )
    pool: int = option(
        50, "earlier translations of each kind that are kept for its critic, 0: none", NATURAL
    )
    penalty: float | None = option(0.0, "weight of the gradient penalty, 0 for none", WEIGHT)
    batch_size: int = option(8, "images of each kind a step, over all processes together", COUNT)
    n_critic: int = option(1, "steps of the critics for one of the translators", COUNT)
    lr_g: float = option(5e-4, "translators' learning rate", RATE)
    lr_d: float = option(5e-4, "critics' learning rate", RATE)
    beta2: float = option(0.999, "of Adam", DECAY)
    ema: float = option(0.995, "decay of the averaged weights that images are translated by", DECAY)
    steps: int = run_option(3000, "steps of the translators", COUNT)

    def check(self) -> None:
        super().check()
        ok = self.size % 4 == 0 and self.size >= 16
        self._require("size", ok, "a multiple of 4, 16 or more")
        self._require("channels", self.channels in (1, 3), "1 or 3")
        given = self.data is not None
        self._require("channels", given or self.channels == 1, "1 for the digits without colour")
        self._require("data", given or self.data_b is None, "a folder beside that of `data_b`")
        ok = self.data_b is not None or not given
        self._require("data_b", ok, "a folder of the other kind beside that of `data`")
        ok = not given or Path(self.data).resolve() != Path(self.data_b or "").resolve()
        self._require("data_b", ok, "another folder than `data`")

    def located(self) -> CycleGANConfig:
        found = super().located()
        if self.data_b is None:
            return found
        return dataclasses.replace(found, data_b=str(Path(self.data_b).absolute()))


@settings
class SoundGANConfig(SequenceGANOptions, GANSettings):
    """Settings of a ``sound-gan``."""

    augmentations: ClassVar = ()

    data: str | None = path_option(
        "folder of WAV files; long ones are cut into several, short ones end in silence (notes of "
        "a plucked string, made)",
        metavar="DIR",
    )
    rate: int = data_option(
        8000, "samples a second; files with another rate are resampled", AUDIBLE, metavar="HZ"
    )
    seconds: float = data_option(0.64, "length of a sound", RATE)
    window: int = data_option(
        512, "samples in the spectrum of a frame; frames are half as many apart", COUNT
    )
    condition: str = data_option(
        "note", "what is given: the note of the sound, or none", choices=("note", "none")
    )
    noise: int = model_option(32, "noise values a frame, half of them the same at all", COUNT)
    hidden: int = model_option(64, "units of each LSTM", COUNT)
    embedding: int = model_option(32, "numbers that a note is", COUNT)
    critic: str = model_option("conv", "kind of critic", choices=CRITICS)
    # With spectral norm the sounds of a note came out alike.
    spectral_norm: bool | None = model_option(False, "spectral norm on the critic's weights")
    loss: str = option("non-saturating", "of critic and generator", choices=LOSS_NAMES)
    penalty_every: int = option(
        4,
        "steps of the critic from one penalty to the next; each then weighs that many times as "
        "much",
        COUNT,
    )
    n_critic: int = option(1, "steps of the critic for one of the generator", COUNT)
    lr_g: float = option(2e-3, "generator's learning rate", RATE)
    lr_d: float = option(1e-3, "critic's learning rate", RATE)
    beta2: float = option(0.99, "of Adam", DECAY)
    ema: float = option(0.998, "decay of the averaged weights that samples are drawn from", DECAY)
    steps: int = run_option(5000, "steps of the generator", COUNT)

    def check(self) -> None:
        super().check()
        ok = 64 <= self.window <= 8192 and self.window % 2 == 0
        self._require("window", ok, "an even number from 64 to 8192")
        ok = self.samples >= self.window
        self._require("seconds", ok, f"{self.window / self.rate:g} or more, a window's length")
        ok = self.data is not None or self.rate >= LEAST_RATE
        self._require("rate", ok, f"{LEAST_RATE} or more for the notes that are made")

    @property
    def samples(self) -> int:
        """Of a sound: a whole number of halves of a window."""
        hop = self.window // 2
        return round(self.seconds * self.rate / hop) * hop


@dataclass(frozen=True)
class Model:
    """A model that can be trained.

    Attributes:
        kind: in its checkpoints.
        config: the class of its settings.
        recipe: where its recipe is, ``module:class`` below :mod:`ganlstm_fast.training.recipes`.
        summary: a line for ``ganlstm-fast list``.
    """

    kind: str
    config: type[Settings]
    recipe: str
    summary: str

    def load(self) -> Any:
        """The recipe's class."""
        module, name = self.recipe.split(":")
        return getattr(importlib.import_module(f"ganlstm_fast.training.recipes.{module}"), name)


MODELS: dict[str, Model] = {
    "lstm-gan": Model(
        "LSTMGAN", TrainConfig, "series:LSTMGANRecipe", "generates series (weather, any CSV)"
    ),
    "conditional-lstm-gan": Model(
        "ConditionalLSTMGAN",
        ConditionalConfig,
        "conditional:ConditionalRecipe",
        "generates series for a month, or after a history",
    ),
    "mlp-gan": Model(
        "MLPGAN", MLPGANConfig, "images:MLPGANRecipe", "generates images, by fully connected layers"
    ),
    "dcgan": Model("DCGAN", DCGANConfig, "images:DCGANRecipe", "generates images, by convolutions"),
    "text-to-image": Model(
        "TextToImageGAN",
        TextToImageConfig,
        "text_to_image:TextToImageRecipe",
        "generates images for a text, which an LSTM reads",
    ),
    "cyclegan": Model(
        "CycleGAN",
        CycleGANConfig,
        "cyclegan:CycleGANRecipe",
        "translates images between two kinds, learnt without pairs",
    ),
    "text-gan": Model("TextGAN", TextGANConfig, "text:TextGANRecipe", "generates text"),
    "video-gan": Model(
        "VideoGAN", VideoGANConfig, "video:VideoGANRecipe", "generates videos (moving digits, GIFs)"
    ),
    "sound-gan": Model(
        "SoundGAN", SoundGANConfig, "sound:SoundGANRecipe", "generates sounds (notes, WAV files)"
    ),
    "lstm-forecaster": Model(
        "LSTMForecaster",
        ForecasterConfig,
        "forecaster:ForecasterRecipe",
        "forecasts series (weather, any CSV)",
    ),
    "lstm-classifier": Model(
        "LSTMClassifier",
        ClassifierConfig,
        "classifier:ClassifierRecipe",
        "classifies sequences (digits, any CSV)",
    ),
    "text-classifier": Model(
        "TextClassifier",
        TextClassifierConfig,
        "text_classifier:TextClassifierRecipe",
        "classifies texts (sonnets and prose, any CSV)",
    ),
    "sequence-to-sequence": Model(
        "SequenceToSequence",
        SequenceToSequenceConfig,
        "seq2seq:SequenceToSequenceRecipe",
        "translates texts (dates in words, any CSV of pairs)",
    ),
    "anomaly": Model(
        "AnomalyLSTMGAN",
        AnomalyConfig,
        "anomaly:AnomalyRecipe",
        "scores how unusual windows of a series are",
    ),
}


def model_of(key: str | Settings) -> Model:
    """The model by its kind, or by settings; raises InputError for one that is not known."""
    for model in MODELS.values():
        if key == model.kind or type(key) is model.config:
            return model
    raise InputError(f"a model {key if isinstance(key, str) else type(key).__name__} is not known")

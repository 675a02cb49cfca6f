"""Generated sounds: an LSTM-GAN of short-time spectra."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, TextIO

import torch
from torch import Tensor, nn

from ganlstm_fast.models import LSTMGAN, ConditionalLSTMGAN
from ganlstm_fast.training.configs import SoundGANConfig
from ganlstm_fast.training.datasets import load_sound_folder, plucked_strings
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.notes import Notes, pitch_of, place_of
from ganlstm_fast.training.outputs import trained
from ganlstm_fast.training.recipes.base import QUICK
from ganlstm_fast.training.recipes.classifier import digest
from ganlstm_fast.training.recipes.gan import GANRecipe
from ganlstm_fast.training.recipes.images import HELD_OUT, skipped_words
from ganlstm_fast.training.sounds import plot_sounds, write_sounds, write_wav
from ganlstm_fast.training.spectrograms import Spectrogram
from ganlstm_fast.training.splits import evenly
from ganlstm_fast.training.state import Run
from ganlstm_fast.training.undefined import check_finite, defined_all

# Numbers of generated notes to train on and to test, of sounds that are scored, and of sounds of
# each kind that are shown.
TRAIN, TEST = 3000, 450
MADE = 450
SHOWN = 8
# The bias of the generator's last layer, which makes its sigmoid 0.1.
QUIET = -2.0


class SoundGANRecipe(GANRecipe):
    """Notes of a plucked string, or a folder of sounds.

    The generator makes frames of magnitudes, and the critic sees those of real sounds; the phases
    are found when a sound is written.

    Attributes:
        samples: [size, samples] float32, as ``test`` is.
        test: sounds that are held out to judge. Of a folder they are those of every fifth file;
            where there are fewer than five, none is.
        scale: the notes of ``samples``; for a folder they are detected.
    """

    config: SoundGANConfig
    given: ClassVar = ("note",)

    def __init__(self, config: SoundGANConfig) -> None:
        super().__init__(config)
        if config.data is None:
            self.name = "plucked-strings"
            train, test = (
                plucked_strings(count, config.rate, config.samples, seed)
                for seed, count in enumerate((TRAIN, TEST))
            )
            self.samples, self.test = train.waves, test.waves
            self.scale = Notes.of(pitch_of(train.notes.double().numpy()))
        else:
            from ganlstm_fast.training.metrics.pitch import pitches

            self.name = Path(config.data).name
            found = load_sound_folder(config.data, config.rate, config.samples, config.window)
            self.notes, self.found = skipped_words(found.skipped), list(found.notes)
            held = found.source % HELD_OUT == HELD_OUT - 1
            self.samples, self.test = found.waves[~held], found.waves[held]
            self.scale = Notes.of(pitches(self.samples.numpy(), config.rate))
        self.spectrogram = Spectrogram.fit(self.samples, config.window)
        self.data = {
            "fingerprint": digest(self.samples, self.test),
            "loudest": self.spectrogram.loudest,
            "rate": config.rate,
            "window": config.window,
            "scale": list(self.scale.names),
            "counts": self.scale.labels.bincount().tolist(),
        }
        self.inputs = {"labels": self.scale.labels} if told_notes(config, self.data) else {}

    @staticmethod
    def model(config: SoundGANConfig, data: dict[str, Any]) -> nn.Module:
        sizes = (config.window // 2 + 1, config.noise, config.hidden, config.layers)
        options: dict[str, Any] = {
            "bidirectional": config.bidirectional,
            "critic": config.critic,
            "spectral_norm": config.spectral_norm,
        }
        if told_notes(config, data):
            options |= {"labels": len(data["scale"]), "embedding": config.embedding}
            gan: nn.Module = ConditionalLSTMGAN(*sizes, projection=True, **options)
        else:
            gan = LSTMGAN(*sizes, **options)
        # Most of a spectrum is silent, and so is what the generator begins with.
        nn.init.constant_(gan.generator.head.bias, QUIET)
        return gan

    def describe(self) -> str:
        c, names = self.config, self.scale.names
        notes = f"{names[0]} to {names[-1]}" if len(names) > 1 else names[0]
        return (
            f"{self.name}: {self.size} sounds of {c.samples / c.rate:g} s at {c.rate} Hz in "
            f"{self.spectrogram.steps} frames of {self.spectrogram.bins} values; {len(names)} "
            f"note(s), {notes}; {len(self.test)} are held out"
        )

    def noise(self, generator: nn.Module, count: int, random: torch.Generator) -> Tensor:
        return generator.noise(count, self.spectrogram.steps, random)

    def real(self, samples: Tensor) -> Tensor:
        return self.spectrogram.frames(samples)

    def finish(self, run: Run, progress: Any) -> dict[str, Any]:
        """samples.wav, samples.png, and scores of pitch, length and spectrum."""
        config = self.config
        most = {"full": MADE, "quick": QUICK, "none": 0}[config.metrics]
        test = self.test[evenly(len(self.test), most)]
        count = max(SHOWN, len(test))
        made, labels = self._sounds(trained(run), count)
        samples = self.samples.cpu()
        apart = evenly(len(samples), SHOWN)
        write_wav(run.folder / "samples.wav", made[:SHOWN], config.rate)
        kinds = {"Real": samples[apart], "Generated": made[:SHOWN]}
        shown = {title: self.real(waves) for title, waves in kinds.items()}
        plot_sounds(run.folder / "samples.png", shown, config.samples / config.rate, config.rate)
        if config.metrics == "none":
            return {}
        from ganlstm_fast.training.metrics.sounds import SCORES, evaluate_sounds

        def scores() -> dict[str, Any]:
            check_finite("generated", made)
            untrained = self._sounds(self.untrained().to(run.state.device).generator, count)[0]
            kinds = {"generated": made, "untrained": untrained, "real": test}
            return evaluate_sounds(samples, kinds, config.rate, self.scale, labels, config.seed)

        return defined_all(SCORES, scores)

    def _sounds(self, generator: nn.Module, count: int) -> tuple[Tensor, Tensor | None]:
        seed = self.config.seed
        frames, labels = sample_frames(generator, self.config, self.data, count, seed)
        return self.spectrogram.waves(frames).cpu(), None if labels is None else labels.cpu()

    @staticmethod
    def generate(
        model: nn.Module,
        config: SoundGANConfig,
        data: dict[str, Any],
        count: int,
        seed: int,
        note: str | None = None,
    ) -> Tensor:
        """Sounds [count, samples] of a note, such as A4; None: of all notes, as often as in the
        data.

        Raises:
            InputError: a note that the data does not have, or a run without notes.
        """
        frames, _ = sample_frames(model.generator, config, data, count, seed, note)
        return spectrogram_of(config, data).waves(frames).cpu()

    @staticmethod
    def write(path: Path | TextIO, made: Tensor, data: dict[str, Any]) -> str:
        """Write ``made`` as one WAV file, as a folder of them, or as a picture; in words, what."""
        if not isinstance(path, Path):
            raise InputError("-o: expected a file, such as made.wav: sounds do not go to a screen")
        spectrogram = Spectrogram(data["window"], made.shape[1], data["loudest"])
        write_sounds(path, made, data["rate"], spectrogram.frames(made))
        return f"{len(made)} sounds of {made.shape[1] / data['rate']:g} s"


def told_notes(config: SoundGANConfig, data: dict[str, Any]) -> bool:
    """Whether the networks are conditioned on the note: the settings say so, and there are
    several."""
    return config.condition == "note" and len(data["scale"]) > 1


def spectrogram_of(config: SoundGANConfig, data: dict[str, Any]) -> Spectrogram:
    return Spectrogram(config.window, config.samples, data["loudest"])


def sample_frames(
    generator: nn.Module,
    config: SoundGANConfig,
    data: dict[str, Any],
    count: int,
    seed: int,
    note: str | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Frames [count, steps, bins], and the notes [count] given to the generator, if any."""
    where = next(generator.parameters()).device
    random = torch.Generator(where).manual_seed(seed)
    steps = spectrogram_of(config, data).steps
    if not told_notes(config, data):
        if note is not None:
            raise InputError("`note`: the run was trained without notes, or on a single one")
        return generator.sample(count, steps, random), None
    if note is None:
        often = torch.tensor(data["counts"], dtype=torch.float32, device=where)
        labels = torch.multinomial(often, count, replacement=True, generator=random)
    else:
        labels = torch.full((count,), place_of(note, data["scale"]), device=where)
    return generator.sample(count, steps, random, labels=labels), labels

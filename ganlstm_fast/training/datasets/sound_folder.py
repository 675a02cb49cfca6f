"""A folder of WAV files as a tensor."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ganlstm_fast.training.datasets.image_folder import files_in
from ganlstm_fast.training.errors import InputError

ENDINGS = (".wav", ".wave")
# A sound that is nowhere louder than this is silent: three steps of 16 bits.
SILENCE = 1e-4


@dataclass(frozen=True)
class SoundFolder:
    """The sounds of a folder.

    Attributes:
        waves: [n, samples] float32, full scale is 1.
        source: [n] int64, which of ``names`` each is of: long files are cut into several.
        names: of the files, below the folder.
        notes: what was done to the files, in a few words each.
        skipped: for each file that is left out, a line that names it and says why.
    """

    waves: Tensor
    source: Tensor
    names: tuple[str, ...]
    notes: tuple[str, ...]
    skipped: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.waves)


def load_sound(path: str | Path) -> tuple[np.ndarray, int]:
    """Read a WAV file of integers of 8, 16, 24 or 32 bits, or of floating point numbers.

    Returns:
        [samples, channels] float64, full scale is 1, and the samples a second.

    Raises:
        InputError: the file is missing, is no WAV file, is cut off, holds compressed sound, no
            sound, or numbers that are not finite; one line that names it.
    """
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            # For a file that is cut off it only warns.
            warnings.filterwarnings("error", "Reached EOF|Incomplete", wavfile.WavFileWarning)
            rate, values = wavfile.read(path)
    except Exception as error:
        # What it raises on a spoilt file is not documented, and may run over several lines.
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(f"{path} cannot be read as a WAV file: {reason}") from None
    values = values[:, None] if values.ndim == 1 else values
    if not values.size or not rate:
        raise InputError(f"{path} cannot be read as a WAV file: it holds no sound")
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise InputError(f"{path} holds values that are not finite")
        return values.astype(np.float64), rate
    middle = 128 if values.dtype == np.uint8 else 0
    # scipy.io puts 24 bits into the upper ones of 32.
    return (values.astype(np.float64) - middle) / 2 ** (8 * values.dtype.itemsize - 1), rate


def load_sound_folder(path: str | Path, rate: int, samples: int, least: int) -> SoundFolder:
    """Read all WAV files in a folder and below.

    Channels are averaged to one, and a file with another rate is resampled. A file is cut into
    pieces of ``samples`` that follow each other; the last one, and a shorter file, ends in silence,
    unless it has fewer than ``least``. Silent pieces are left out. All is held in memory, 4 bytes a
    sample.

    Args:
        path: the folder. Files whose names start with a dot are left out.
        rate: samples a second.
        samples: of a piece.
        least: samples of the shortest file that is taken.

    Raises:
        InputError: no such folder, or no sound that can be used in it.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give a folder of WAV files")
    files = files_in(folder, ENDINGS)
    pieces, names, skipped = [], [], []
    done: Counter[str] = Counter()
    for file in files:
        try:
            found = _pieces(file, rate, samples, least, lambda words: done.update([words]))
        except InputError as error:
            skipped.append(str(error))
        else:
            pieces.append(found)
            names.append(str(file.relative_to(folder)))
    if not pieces:
        reason = f"; of {len(skipped)} files none can be used: {skipped[0]}" if skipped else ""
        raise InputError(f"{folder} has no sound ({', '.join(ENDINGS)}){reason}")
    notes = (f"{count} file(s) {words}" for words, count in sorted(done.items()))
    counts = torch.tensor([len(found) for found in pieces])
    return SoundFolder(
        torch.from_numpy(np.concatenate(pieces)),
        torch.arange(len(pieces)).repeat_interleave(counts),
        tuple(names),
        tuple(notes),
        tuple(skipped),
    )


def _pieces(
    file: Path, rate: int, samples: int, least: int, tell: Callable[[str], None]
) -> np.ndarray:
    """The pieces of a file, [n, samples] float32; calls ``tell`` with what was done to the file."""
    from scipy.signal import resample_poly

    values, its_rate = load_sound(file)
    wave = values.mean(1)
    if np.abs(wave).max() < SILENCE:
        raise InputError(f"{file} is silent; take it out")
    if its_rate != rate:
        common = math.gcd(rate, its_rate)
        wave = resample_poly(wave, rate // common, its_rate // common)
    if len(wave) < least:
        raise InputError(
            f"{file} is too short: {len(values) / its_rate:.3g} s, less than the "
            f"{least / rate:.3g} s of a window; take it out, or give a smaller `window`"
        )
    whole, rest = divmod(len(wave), samples)
    if rest and rest < least and whole:
        rest = 0
    wave = wave[: whole * samples + rest]
    count = whole + bool(rest)
    pieces = np.pad(wave, (0, count * samples - len(wave))).reshape(count, samples)
    heard = np.abs(pieces).max(1) >= SILENCE
    if not heard.any():
        raise InputError(f"{file} is silent at {rate} samples a second; take it out")
    if values.shape[1] > 1:
        tell(f"of {values.shape[1]} channels mixed to one")
    if its_rate != rate:
        tell(f"resampled from {its_rate} to {rate} Hz")
    return pieces[heard].astype(np.float32)

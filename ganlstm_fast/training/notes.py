"""The notes of sounds: which of the equally tempered semitones each is nearest to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganlstm_fast.training.errors import InputError

NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
# The name of what has no pitch.
NONE = "none"
# A of the fourth octave.
A4, A4_NUMBER = 440.0, 69


@dataclass(frozen=True)
class Notes:
    """The notes that occur in a set of sounds, from low to high.

    Attributes:
        names: such as ``A4`` or ``C#5``; ``none`` is first where some sounds have no pitch.
        pitches: the median of those of its sounds in Hz, for each name but ``none``.
        labels: [n] int64, the place of each sound's note in ``names``.
    """

    names: tuple[str, ...]
    pitches: tuple[float, ...]
    labels: Tensor

    @classmethod
    def of(cls, pitches: np.ndarray) -> Notes:
        """The notes of sounds with ``pitches`` [n] in Hz, NaN for none.

        If all are detuned from 440 Hz by the same amount, the semitones shift with them.
        """
        semitones = A4_NUMBER + 12 * np.log2(pitches / A4)
        pitched = np.isfinite(semitones)
        turns = np.exp(2j * np.pi * semitones[pitched])
        tuning = float(np.angle(turns.sum()) / (2 * np.pi)) if pitched.any() else 0.0
        numbers = np.full(len(pitches), -1)
        numbers[pitched] = np.round(semitones[pitched] - tuning)
        found, labels = np.unique(numbers, return_inverse=True)
        return cls(
            tuple(note_name(number) if number >= 0 else NONE for number in found.tolist()),
            tuple(float(np.median(pitches[numbers == k])) for k in found if k >= 0),
            torch.from_numpy(labels.astype(np.int64)),
        )


def pitch_of(number: Any) -> Any:
    """The frequency of a MIDI number, or of an array of them, in equal temperament, in Hz."""
    return A4 * 2 ** ((number - A4_NUMBER) / 12)


def note_name(number: int) -> str:
    """``A4`` for the MIDI number 69."""
    return f"{NAMES[number % 12]}{number // 12 - 1}"


def place_of(note: str, names: list[str]) -> int:
    """The index of ``note`` in ``names``; raises InputError if it is not there."""
    known = [name.lower() for name in names]
    if note.strip().lower() not in known:
        raise InputError(f"`note`: expected one of {', '.join(names)}, got {note}")
    return known.index(note.strip().lower())

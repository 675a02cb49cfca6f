"""Notes of a plucked string, made.

The string is a loop of delays whose content decays and grows duller each time round (Karplus and
Strong, Digital Synthesis of Plucked-String and Drum Timbres, 1983). A first order allpass filter
makes the loop as long as the pitch asks for, to less than a sample, and a comb filter is where the
string is plucked (Jaffe and Smith, Extensions of the Karplus-Strong Plucked-String Algorithm,
1983).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ganlstm_fast.training.notes import pitch_of

# C major, from the C in the middle of the piano (261.6 Hz) on, two octaves.
SCALE = (60, 62, 64, 65, 67, 69, 71, 72, 74, 76, 77, 79, 81, 83, 84)
# The shares of a sample's length that notes are held for, and the times in seconds in which a
# string that rings on decays by 60 dB.
HELD = (0.3, 0.95)
DECAY = (0.4, 2.0)
# Seconds in which a released note decays by 60 dB.
DAMPED = 0.06
# The share of a neighbour in the average of a string of 1 Hz.
DULL = 15.0


@dataclass(frozen=True)
class Plucked:
    """Notes.

    Attributes:
        waves: [n, samples] float32, within -1 and 1.
        notes: [n] int64, MIDI numbers; 69 is the A of 440 Hz.
        held: [n] float64, seconds until a note is let go of.
    """

    waves: Tensor
    notes: Tensor
    held: Tensor

    def __len__(self) -> int:
        return len(self.waves)


def plucked_strings(
    count: int, rate: int = 8000, samples: int = 5120, seed: int = 0, scale: Sequence[int] = SCALE
) -> Plucked:
    """Notes of ``scale`` in turn, plucked at random.

    These are random: where and how softly the string is plucked, the noise of the pluck, how loud
    it is, how long the string rings, and when it is released.

    Args:
        count: of notes.
        rate: samples a second.
        samples: of each note.
        seed: of all that is random.
        scale: MIDI numbers.
    """
    random = np.random.default_rng(seed)
    notes = np.resize(np.asarray(scale), count)
    held = random.uniform(*HELD, count) * samples / rate
    waves = np.empty((count, samples), dtype=np.float32)
    for wave, note, until in zip(waves, notes, held, strict=True):
        wave[:] = _string(pitch_of(note), until, rate, samples, random)
    return Plucked(torch.from_numpy(waves), torch.from_numpy(notes), torch.from_numpy(held))


def _string(
    pitch: float, held: float, rate: int, samples: int, random: np.random.Generator
) -> np.ndarray:
    from scipy.signal import lfilter

    softness, place = random.uniform(0.0, 0.7), random.uniform(0.1, 0.4)
    decay = math.exp(random.uniform(*np.log(DECAY)))
    level = random.uniform(0.3, 1.0)
    period = rate / pitch
    pluck = np.zeros(samples)
    burst = round(period)
    # Noise alone sometimes has almost nothing at the lowest partial, which is the pitch.
    pluck[:burst] = random.uniform(-1, 1, burst) + np.sin(2 * math.pi * np.arange(burst) / period)
    pluck[:burst] -= pluck[:burst].mean()
    pluck = lfilter([1 - softness], [1, -softness], pluck)
    pluck[round(place * period) :] -= pluck[: -round(place * period)].copy()
    wave = lfilter(*loop_filter(pitch, decay, rate), pluck)
    let_go = np.arange(samples) / rate - held
    wave *= 10 ** (-3 * let_go.clip(0) / DAMPED)
    return level * wave / np.abs(wave).max()


def loop_filter(pitch: float, decay: float, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """The string as a linear filter, as :func:`scipy.signal.lfilter` takes it.

    The loop consists of a delay of whole samples, a weighted average of neighbours, which damps
    high partials more, and an allpass filter, which adds the rest of the period at the pitch. The
    higher the pitch, the less of the neighbour is in the average:
    a high string goes round more often, and would otherwise be dull at once.

    Args:
        pitch: in Hz, less than an eighth of ``rate``, so that the loop holds a few samples.
        decay: seconds in which the lowest partials decay by 60 dB.

    Returns:
        The numerator [2] and the denominator, float64.
    """
    step = 2 * math.pi * pitch / rate
    blend = min(0.5, DULL / pitch)
    average = np.array([1 - blend, blend])
    delay = -np.angle(average @ np.exp(-1j * step * np.arange(2))) / step
    rest = rate / pitch - delay
    # An allpass delay between 0.2 and 1.2 samples keeps its pole well inside of the unit circle.
    whole = math.floor(rest - 0.2)
    part = rest - whole
    a = math.sin((1 - part) * step / 2) / math.sin((1 + part) * step / 2)
    gain = 10 ** (-3 / (pitch * decay))
    # 1 - gain * z^-whole * average * (a + z^-1) / (1 + a z^-1), times that denominator.
    denominator = np.zeros(whole + 3)
    denominator[:2] = 1, a
    denominator[whole:] -= gain * np.convolve(average, (a, 1))
    return np.array([1, a]), denominator

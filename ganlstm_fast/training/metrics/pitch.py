"""The pitch of sounds, by YIN.

Source: de Cheveigne and Kawahara, YIN, a fundamental frequency estimator for speech and music,
2002, steps 2 (difference function) to 5 (parabolic interpolation), on frames of a sound.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

# Only frames at most this many dB softer than the sound's loudest one count.
SOFTEST = 20.0
# The period is the first lag where the mean-normalised difference dips below the first value.
# Without such a dip it is the deepest point, and the frame has a pitch only if that is below the
# second.
THRESHOLD = 0.15
APERIODIC = 0.3
# A sound has a pitch if this share of its frames has one.
VOICED = 0.5
# A softer sound has no pitch: this is the level of a 16-bit file's last bits.
SILENCE = 1e-4
# Lags are refined at this multiple of the sampling rate: where a period is only a few samples, a
# parabola through the difference at whole lags is off by cents.
FINER = 4


def pitches(
    waves: np.ndarray, rate: int, lowest: float = 80.0, highest: float | None = None
) -> np.ndarray:
    """The pitch of each sound in Hz: the median over its frames, NaN for none.

    A sound has none if it is silent, or if fewer than half of its frames that are within 20 dB of
    the loudest are periodic (aperiodicity below 0.3).

    Args:
        waves: [n, samples], real.
        rate: samples a second.
        lowest, highest: in Hz; None is a fifth of ``rate``.

    Returns:
        [n] float64.
    """
    return np.array([_pitch(wave, rate, lowest, highest or rate / 5) for wave in waves])


def _pitch(wave: np.ndarray, rate: int, lowest: float, highest: float) -> float:
    from scipy.signal import resample_poly

    fine = resample_poly(np.asarray(wave, dtype=np.float64), FINER, 1)
    longest, shortest = math.ceil(FINER * rate / lowest), math.floor(FINER * rate / highest)
    window = 2 * longest
    if len(fine) < window + longest + 1:
        fine = np.pad(fine, (0, window + longest + 1 - len(fine)))
    frames = sliding_window_view(fine, window + longest + 1)[::window]
    power = (frames[:, :window] ** 2).mean(1)
    loud = (power >= power.max() * 10 ** (-SOFTEST / 10)) & (power > SILENCE**2)
    if not loud.any():
        return math.nan
    lags, aperiodic = _lags(frames[loud], window, shortest, longest)
    voiced = aperiodic < APERIODIC
    if voiced.mean() < VOICED:
        return math.nan
    return float(FINER * rate / np.median(lags[voiced]))


def _lags(
    frames: np.ndarray, window: int, shortest: int, longest: int
) -> tuple[np.ndarray, np.ndarray]:
    """The period of each frame in samples, with its fraction, and its aperiodicity; both [n]."""
    # sum_j (x_j - x_{j + lag})^2 by the energies of both and their product's sum.
    size = frames.shape[1] + window
    spectrum = np.fft.rfft(frames, size) * np.fft.rfft(frames[:, :window], size).conj()
    product = np.fft.irfft(spectrum, size)[:, : longest + 2]
    energy = np.pad((frames**2).cumsum(1), ((0, 0), (1, 0)))
    energy = energy[:, window : window + longest + 2] - energy[:, : longest + 2]
    difference = np.maximum(energy[:, :1] + energy - 2 * product, 0)
    mean = difference[:, 1:].cumsum(1) / np.arange(1, longest + 2)
    normalised = np.ones_like(difference)
    normalised[:, 1:] = difference[:, 1:] / np.maximum(mean, 1e-300)
    inner = normalised[:, shortest : longest + 1]
    dip = (inner <= normalised[:, shortest - 1 : longest]) & (
        inner < normalised[:, shortest + 1 : longest + 2]
    )
    # The first dip below the threshold; where there is none, the deepest point.
    good = dip & (inner < THRESHOLD)
    at = np.where(good.any(1), good.argmax(1), inner.argmin(1)) + shortest
    row = np.arange(len(frames))
    left, middle, right = (normalised[row, (at + k).clip(0, longest + 1)] for k in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = np.where(bend > 0, (left - right) / np.where(bend > 0, 2 * bend, 1), 0).clip(-0.5, 0.5)
    return at + shift, middle


def cents(pitch: np.ndarray, reference: np.ndarray | float) -> np.ndarray:
    """How much higher ``pitch`` is than ``reference``, in hundredths of a semitone."""
    return 1200 * np.log2(pitch / reference)

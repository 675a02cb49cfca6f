"""Scores of generated sounds: their pitch, how long they last, and their spectra."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from ganlstm_fast.training.errors import UndefinedScore
from ganlstm_fast.training.metrics.images import frechet_distance
from ganlstm_fast.training.metrics.pitch import cents, pitches
from ganlstm_fast.training.notes import NONE, Notes
from ganlstm_fast.training.undefined import defined, defined_for

SCORES = ("in_tune", "notes_heard", "spectral_distance", "variety", "length_distance")
# A sound is in tune with a note if its pitch is at most this many cents away.
IN_TUNE = 20.0
# A note is heard if it has at least this share of its sounds in the data.
HEARD = 0.2
# The bands of the mel scale, and the samples of a spectrum's window.
BANDS, WINDOW = 32, 512
# Levels further below full scale, in dB, are raised to this one.
SOFTEST = 60.0
# A sound ends where it stays this many dB softer than its loudest frame.
ENDED = 40.0


def mel_bands(bands: int, window: int, rate: int) -> Tensor:
    """Triangular bands, evenly apart on the mel scale from 0 Hz to half of the rate, each as high
    as the others: [bands, window // 2 + 1] float32.

    The scale is ``2595 log10(1 + f / 700)`` (O'Shaughnessy, Speech Communication, 1987). A band is
    no narrower than a spectrum's resolution.
    """
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, bands + 2).double() / 2595) - 1)
    at = torch.arange(window // 2 + 1).double() * rate / window
    step = rate / window
    left = (edges[1:-1] - edges[:-2]).clamp_min(step)[:, None]
    right = (edges[2:] - edges[1:-1]).clamp_min(step)[:, None]
    away = at - edges[1:-1, None]
    return (1 - torch.where(away < 0, -away / left, away / right)).clamp_min(0).float()


def log_mel(waves: Tensor, rate: int) -> Tensor:
    """Power in dB of full scale: [n, samples] -> [n, BANDS, steps], -60 at least."""
    window = torch.hann_window(WINDOW)
    options = {"hop_length": WINDOW // 4, "window": window, "return_complex": True}
    padded = torch.nn.functional.pad(waves.float(), (0, max(0, WINDOW - waves.shape[1])))
    power = (torch.stft(padded, WINDOW, **options).abs() / window.sum()) ** 2
    return 10 * (mel_bands(BANDS, WINDOW, rate) @ power).clamp_min(10 ** (-SOFTEST / 10)).log10()


def spectral_features(waves: Tensor, rate: int) -> np.ndarray:
    """The mean and the standard deviation over time of each band of :func:`log_mel`: [n, 64]."""
    parts = [log_mel(part, rate) for part in waves.split(256)]
    found = [torch.cat((part.mean(2), part.std(2)), 1) for part in parts]
    return torch.cat(found).double().numpy()


def lengths(waves: Tensor, rate: int) -> np.ndarray:
    """Seconds until each sound stays 40 dB softer than its loudest frame, of 16 ms: [n] float64."""
    size = max(1, round(0.016 * rate))
    power = waves.double().unfold(1, size, size).square().mean(2)
    heard = power > power.amax(1, keepdim=True) * 10 ** (-ENDED / 10)
    last = (heard * torch.arange(1, heard.shape[1] + 1)).amax(1)
    return (last * size / rate).numpy()


def evaluate_sounds(
    train: Tensor,
    kinds: dict[str, Tensor],
    rate: int,
    scale: Notes,
    asked: Tensor | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores of ``kinds`` of sounds and of noise, white and as loud as ``train``.

    Args:
        train: [n, samples], the sounds trained on.
        kinds: [m, samples] each, among them ``generated`` and ``real``, which are held out.
        scale: the notes of ``train``.
        asked: [m] int64, the note that each generated sound was to have, as ``scale.labels``.

    Returns:
        For each kind ``in_tune``, the share of sounds whose pitch by YIN is within 20 cents of a
        note of the scale (one without a pitch is not); ``notes_heard``, the share of the scale's
        notes that have at least a fifth of the sounds in tune that they have in ``train``;
        ``spectral_distance``, the Frechet distance to ``train`` of the means and deviations of the
        mel bands in dB; ``variety``, the mean distance of those of two sounds whose pitch is
        nearest to the same note; ``length_distance`` in seconds, the Wasserstein-1 distance of how
        long sounds last. With ``asked`` also ``note_as_asked``, the share of generated sounds
        within 20 cents of their note; ``count`` are the sounds of a kind.

    Raises:
        UndefinedScore: fewer than 2 sounds of a kind.
    """
    count = min(map(len, kinds.values()))
    if count < 2:
        few = ", ".join(f"{len(kind)} {name}" for name, kind in kinds.items())
        raise UndefinedScore(f"2 sounds of each kind are needed, and there are {few}")
    random = torch.Generator().manual_seed(seed)
    kinds = {name: kind[:count] for name, kind in kinds.items()}
    loud = train.square().mean().sqrt()
    kinds["noise"] = loud * torch.randn(kinds["real"].shape, generator=random)
    heard = {name: pitches(kind.numpy(), rate) for name, kind in kinds.items()}
    features = {name: spectral_features(kind, rate) for name, kind in kinds.items()}
    reference, its_lengths = spectral_features(train, rate), lengths(train, rate)
    measures: tuple[Callable[[str], float], ...] = (
        lambda kind: float((nearest(heard[kind], scale)[1] <= IN_TUNE).mean()),
        lambda kind: notes_heard(heard[kind], scale),
        lambda kind: frechet_distance(reference, features[kind]),
        lambda kind: variety(features[kind], nearest(heard[kind], scale)[0]),
        lambda kind: float(wasserstein_distance(its_lengths, lengths(kinds[kind], rate))),
    )
    names = {name: name for name in kinds}
    scores: dict[str, Any] = {
        score: defined_for(names, measure) for score, measure in zip(SCORES, measures, strict=True)
    }
    if asked is not None:
        generated = heard["generated"]
        scores["note_as_asked"] = defined(lambda: as_asked(generated, scale, asked[:count].numpy()))
    return {"count": count, **scores}


def nearest(heard: np.ndarray, scale: Notes) -> tuple[np.ndarray, np.ndarray]:
    """For each pitch [n] in Hz the index of the nearest note in ``scale.pitches``, and how many
    cents away it is; for NaN -1 and infinity.

    Raises:
        UndefinedScore: the scale has no note.
    """
    if not scale.pitches:
        raise UndefinedScore("none of the sounds that were trained on has a pitch")
    away = np.abs(cents(heard[:, None], np.array(scale.pitches)))
    away = np.where(np.isnan(away), np.inf, away)
    return np.where(np.isnan(heard), -1, away.argmin(1)), away.min(1)


def notes_heard(heard: np.ndarray, scale: Notes) -> float:
    """The share of the scale's notes that occur among pitches [n], as :data:`HEARD` has it."""
    place, away = nearest(heard, scale)
    count = len(scale.pitches)
    found = np.bincount(place[away <= IN_TUNE], minlength=count) / len(heard)
    there = scale.labels.bincount(minlength=len(scale.names))[-count:].double().numpy()
    return float((found >= HEARD * there / len(scale.labels)).mean())


def as_asked(heard: np.ndarray, scale: Notes, asked: np.ndarray) -> float:
    """The share of pitches [n] within 20 cents of the note [n] that was asked for.

    Raises:
        UndefinedScore: no note was asked for.
    """
    place = asked - (scale.names[0] == NONE)
    if not (place >= 0).any():
        raise UndefinedScore("no sound was to have a pitch")
    pitched = place >= 0
    away = np.abs(cents(heard[pitched], np.array(scale.pitches)[place[pitched]]))
    return float((away <= IN_TUNE).mean())


def variety(features: np.ndarray, place: np.ndarray) -> float:
    """The mean absolute difference of the features of two sounds of a note, in dB.

    Raises:
        UndefinedScore: no two sounds have the same note.
    """
    order = place.argsort(kind="stable")
    same = (place[order][1:] == place[order][:-1]) & (place[order][1:] >= 0)
    if not same.any():
        raise UndefinedScore("no two sounds have the same note")
    return float(np.abs(np.diff(features[order], axis=0))[same].mean())

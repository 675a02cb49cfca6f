"""Files and pictures of sounds."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from torch import Tensor

from ganlstm_fast.training.checkpoint import atomic_write
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.plots import drawing, save_figure
from ganlstm_fast.training.spectrograms import RANGE

# Silence between sounds in one file, in seconds.
BETWEEN = 0.1


def write_wav(path: Path, waves: Tensor, rate: int) -> None:
    """Write sounds as one WAV file of 16 bits, one after the other, whole or not at all.

    Where they go beyond full scale, all are made softer alike.

    Args:
        waves: [n, samples], full scale is 1.

    Raises:
        InputError: the file cannot be written.
    """
    from scipy.io import wavfile

    values = waves.double().numpy()
    values = values / max(1.0, np.abs(values).max())
    if len(values) > 1:
        values = np.pad(values, ((0, 0), (0, round(BETWEEN * rate))))
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        wavfile.write(file, rate, (32767 * values.reshape(-1)).round().astype(np.int16))


def write_sounds(path: Path, waves: Tensor, rate: int, frames: Tensor) -> None:
    """Write sounds as one WAV file, as a picture, or each into a file of a new folder.

    Args:
        path: ends with ``.wav`` or ``.png``; without an ending it is the folder, which then holds
            a WAV file a sound and ``spectrograms.png``.
        waves: [n, samples].
        frames: [n, steps, bins] in [0, 1], for the picture.

    Raises:
        InputError: another ending, a folder that is not empty, or what cannot be written.
    """
    ending = path.suffix.lower()
    picture = {"Generated": frames}, waves.shape[1] / rate, rate
    if ending == ".wav":
        write_wav(path, waves, rate)
    elif ending == ".png":
        plot_sounds(path, *picture)
    elif ending:
        raise InputError(f"-o: expected a file of .wav or .png, or a new folder, got {path}")
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(
            f"-o: expected a new or an empty folder, and {path} is there; name another"
        )
    else:
        try:
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as beside:
                folder = Path(beside) / path.name
                folder.mkdir()
                digits = len(str(len(waves)))
                for number, wave in enumerate(waves, 1):
                    write_wav(folder / f"{number:0{digits}}.wav", wave[None], rate)
                plot_sounds(folder / "spectrograms.png", *picture)
                os.replace(folder, path)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def plot_sounds(
    path: Path, kinds: dict[str, Tensor], seconds: float, rate: int, shown: int = 8
) -> None:
    """Spectrograms, a row for each of ``kinds``.

    Args:
        kinds: by title, [n, steps, bins] in [0, 1] each.
        seconds: length of each sound.
        rate: samples a second.
        shown: the most of each kind.
    """
    columns = max(min(shown, len(frames)) for frames in kinds.values())
    with drawing(1.4 + 1.15 * columns, 0.7 + 1.9 * len(kinds), **{"axes.grid": False}) as figure:
        axes = figure.subplots(len(kinds), columns, sharex=True, sharey=True, squeeze=False)
        for row, (title, frames) in zip(axes, kinds.items(), strict=True):
            for ax in row:
                ax.set_visible(False)
            for ax, frame in zip(row, frames, strict=False):
                ax.set_visible(True)
                extent = (0, seconds, 0, rate / 2000)
                decibels = RANGE * (frame.float().cpu().numpy().T - 1)
                image = ax.imshow(
                    decibels, origin="lower", extent=extent, aspect="auto", vmin=-RANGE, vmax=0
                )
            row[0].set_ylabel(f"{title}\nkHz")
        for ax in axes[-1]:
            ax.set_xlabel("s")
        figure.colorbar(image, ax=axes, label="dB", aspect=30, pad=0.01)
        save_figure(figure, path)

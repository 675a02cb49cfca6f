"""Sounds: the notes that are made, the folder, spectra, pitch, scores, and the commands on them."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from ganlstm_fast.cli import main
from ganlstm_fast.training.datasets import load_sound, load_sound_folder, plucked_strings
from ganlstm_fast.training.datasets.plucked_strings import SCALE, loop_filter
from ganlstm_fast.training.errors import InputError, UndefinedScore
from ganlstm_fast.training.metrics.pitch import cents, pitches
from ganlstm_fast.training.metrics.sounds import (
    BANDS,
    as_asked,
    evaluate_sounds,
    lengths,
    log_mel,
    mel_bands,
    notes_heard,
)
from ganlstm_fast.training.notes import Notes, note_name, pitch_of, place_of
from ganlstm_fast.training.sounds import write_sounds, write_wav
from ganlstm_fast.training.spectrograms import Spectrogram

pytestmark = pytest.mark.usefixtures("one_thread")

RATE = 8000


def tone(pitch: float, seconds: float = 0.64, rate: int = RATE, partials: int = 1) -> np.ndarray:
    """Partials at 1/k of the loudness, with phases of their own."""
    time = np.arange(round(seconds * rate)) / rate
    parts = [np.sin(2 * np.pi * k * pitch * time + k**2) / k for k in range(1, partials + 1)]
    return 0.5 * np.sum(parts, 0) / sum(1 / k for k in range(1, partials + 1))


# Pitch.


@pytest.mark.parametrize("rate", [8000, 22050])
@pytest.mark.parametrize("partials", [1, 3])
def test_pitch_of_tones(rate, partials):
    known = np.array([82.41, 110.0, 261.63, 440.0, 777.7, 1046.5])
    waves = np.stack([tone(pitch, 0.3, rate, partials) for pitch in known])
    assert np.abs(cents(pitches(waves, rate), known)).max() < 2


def test_pitch_of_tones_in_noise_that_decay_and_lack_their_fundamental():
    known = np.array([196.0, 329.63, 523.25])
    decay = 10 ** (-3 * np.arange(5120) / RATE / 0.5)
    random = np.random.default_rng(0)
    waves = np.stack([tone(pitch, partials=4) for pitch in known]) * decay
    assert np.abs(cents(pitches(waves, RATE), known)).max() < 2
    noisy = waves + 0.004 * random.normal(size=waves.shape)
    assert np.abs(cents(pitches(noisy, RATE), known)).max() < 10
    without = np.stack([tone(pitch, partials=4) - tone(pitch) / 25 * 12 for pitch in known])
    assert np.abs(cents(pitches(without, RATE), known)).max() < 2


def test_noise_and_silence_have_no_pitch():
    random = np.random.default_rng(0)
    waves = np.stack((random.normal(size=4000), np.zeros(4000), 1e-5 * tone(440, 0.5)))
    assert np.isnan(pitches(waves, RATE)).all()


def test_pitch_of_a_sound_shorter_than_a_window():
    assert cents(pitches(tone(440, 0.03)[None], RATE), 440)[0] == pytest.approx(0, abs=20)


# Notes.


def test_names_of_notes():
    assert [note_name(number) for number in (60, 69, 70, 84)] == ["C4", "A4", "A#4", "C6"]
    assert place_of(" a#4", ["C4", "A#4"]) == 1
    with pytest.raises(InputError, match="note: expected one of C4, A4, got H2"):
        place_of("H2", ["C4", "A4"])


@pytest.mark.parametrize("tuning", [0, 45, -48])
def test_notes_of_pitches_that_are_tuned_alike(tuning):
    exact = np.array([pitch_of(n) for n in (60, 60, 60, 64, 69)]) * 2 ** (tuning / 1200)
    near = exact * 2 ** (np.array([-9, 0, 3, 0, 8]) / 1200)
    found = Notes.of(np.append(near, np.nan))
    assert found.names == ("none", "C4", "E4", "A4")
    assert found.labels.tolist() == [1, 1, 1, 2, 3, 0]
    assert found.pitches == pytest.approx([near[1], near[3], near[4]])


def test_notes_of_what_has_no_pitch():
    found = Notes.of(np.full(3, np.nan))
    assert (found.names, found.pitches, found.labels.tolist()) == (("none",), (), [0, 0, 0])


# The string.


def test_strings_are_in_tune_and_all_different():
    made = plucked_strings(60)
    assert made.waves.shape == (60, 5120)
    assert made.waves.dtype == torch.float32
    assert made.waves.abs().max() <= 1
    assert made.notes.tolist() == [*SCALE] * 4
    exact = np.array([pitch_of(note) for note in made.notes.tolist()])
    away = np.abs(cents(pitches(made.waves.numpy(), RATE), exact))
    assert np.median(away) < 2
    assert (away < 10).mean() >= 0.95
    assert torch.equal(made.waves, plucked_strings(60).waves)
    apart = torch.cdist(made.waves, plucked_strings(60, seed=1).waves)
    assert apart.min() > 1


@pytest.mark.parametrize("pitch", [65.4, 261.63, 440.0, 999.0])
def test_the_loop_resonates_at_the_pitch(pitch):
    from scipy.signal import freqz

    numerator, denominator = loop_filter(pitch, 2.0, RATE)
    assert np.abs(np.roots(denominator)).max() < 1
    near = pitch * 2 ** (np.arange(-50, 51) / 1200)
    response = np.abs(freqz(numerator, denominator, near, fs=RATE)[1])
    assert abs(response.argmax() - 50) <= 1


def test_notes_are_held_and_let_go_of():
    made = plucked_strings(300, seed=3)
    lasts = lengths(made.waves, RATE)
    assert (lasts <= made.held.numpy() + 0.08).all()
    assert np.corrcoef(lasts, made.held.numpy())[0, 1] > 0.5


# Spectra.


@pytest.mark.parametrize("window", [256, 512])
def test_spectra_and_back(window):
    waves = plucked_strings(30, seed=2).waves
    spectrogram = Spectrogram.fit(waves, window)
    frames = spectrogram.frames(waves)
    assert frames.shape == (30, spectrogram.steps, spectrogram.bins)
    assert frames.shape[1:] == (2 * 5120 // window + 1, window // 2 + 1)
    assert frames.min() == 0
    assert frames.max() == pytest.approx(1, abs=1e-6)
    magnitudes = torch.stft(
        waves, window, window // 2, window=torch.hann_window(window), return_complex=True
    ).abs()
    back = spectrogram.magnitudes(frames)
    heard = back > 0
    assert torch.allclose(back[heard], magnitudes[heard], rtol=1e-4)
    assert magnitudes[~heard].max() <= spectrogram.loudest * 1.0001e-3
    again = spectrogram.waves(frames)
    assert again.shape == waves.shape
    # In dB, over the frames and bins that are heard.
    assert 60 * (spectrogram.frames(again) - frames)[frames > 0.3].abs().mean() < 2
    away = np.abs(cents(pitches(again.numpy(), RATE), pitches(waves.numpy(), RATE)))
    assert (away < 20).mean() > 0.95
    assert torch.equal(again[3:5], spectrogram.waves(frames[3:5]))
    assert not torch.equal(again, spectrogram.waves(frames, seed=1))
    assert spectrogram.waves(torch.zeros(1, *frames.shape[1:])).abs().max() == 0


# Folders.


def save(path: Path, values: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(path, rate, values)


def save_24_bits(path: Path, values: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(3)
        file.setframerate(RATE)
        whole = np.round(values * (2**23 - 1)).astype("<i4")
        file.writeframes(b"".join(int(v).to_bytes(3, "little", signed=True) for v in whole))


@pytest.mark.parametrize(
    ("kind", "error"),
    [("u1", 1e-2), ("<i2", 1e-4), ("24", 1e-6), ("<i4", 1e-8), ("<f4", 1e-6), ("<f8", 1e-15)],
)
def test_kinds_of_numbers(tmp_path, kind, error):
    values, file = tone(440), tmp_path / "a.wav"
    if kind == "24":
        save_24_bits(file, values)
    elif kind == "u1":
        save(file, np.round(values * 127 + 128).astype("u1"))
    elif "i" in kind:
        save(file, np.round(values * np.iinfo(kind).max).astype(kind))
    else:
        save(file, values.astype(kind))
    found, rate = load_sound(file)
    assert (found.shape, found.dtype, rate) == ((5120, 1), np.float64, RATE)
    assert np.abs(found[:, 0] - values).max() < error


def test_a_folder_of_sounds(tmp_path):
    save(tmp_path / "a.wav", tone(440, 1.5).astype("f4"))
    save(tmp_path / "b" / "B.WAV", tone(440, 0.64, 44100).astype("f4"), 44100)
    both = np.stack((tone(330, 0.5), 0 * tone(330, 0.5)), 1)
    save(tmp_path / "c.wav", both.astype("f4"))
    save(tmp_path / ".hidden.wav", tone(440))
    (tmp_path / "notes.txt").write_text("no sound")
    found = load_sound_folder(tmp_path, RATE, 5120, 512)
    assert found.names == ("a.wav", "b/B.WAV", "c.wav")
    assert found.source.tolist() == [0, 0, 0, 1, 2]
    assert found.waves.shape == (5, 5120)
    assert found.waves.dtype == torch.float32
    assert found.waves[2, 1760:].abs().max() == 0
    assert torch.allclose(
        found.waves[:3].flatten()[:12000], torch.from_numpy(tone(440, 1.5)).float()
    )
    assert cents(pitches(found.waves[3:4].numpy(), RATE), 440)[0] == pytest.approx(0, abs=1)
    assert np.allclose(found.waves[4, :4000], tone(330, 0.5) / 2, atol=1e-6)
    assert found.waves[4, 4000:].abs().max() == 0
    assert found.notes == (
        "1 file(s) of 2 channels mixed to one",
        "1 file(s) resampled from 44100 to 8000 Hz",
    )
    assert found.skipped == ()


def spoilt(folder: Path) -> dict[str, str]:
    """Files that cannot be used, and the message for each."""
    folder.mkdir()
    save(folder / "silent.wav", np.zeros(8000, "<i2"))
    save(folder / "opposite.wav", np.stack((tone(440), -tone(440)), 1).astype("f4"))
    save(folder / "short.wav", tone(440, 0.05).astype("f4"))
    save(folder / "nan.wav", np.full(8000, np.nan, "f4"))
    save(folder / "empty.wav", np.zeros(0, "<i2"))
    save(folder / "whole.wav", (20000 * tone(440)).astype("<i2"))
    (folder / "cut.wav").write_bytes((folder / "whole.wav").read_bytes()[:5000])
    (folder / "whole.wav").unlink()
    (folder / "text.wav").write_text("no sound at all, but text in a file that ends with .wav")
    (folder / "nothing.wav").write_bytes(b"")
    return {
        "silent": "is silent",
        "opposite": "is silent",
        "short": "is too short: 0.05 s, less than the 0.064 s of a window",
        "nan": "values that are not finite",
        "empty": "it holds no sound",
        "cut": "cannot be read as a WAV file",
        "text": "cannot be read as a WAV file",
        "nothing": "cannot be read as a WAV file",
    }


def test_files_that_are_no_sounds_are_named(tmp_path):
    said = spoilt(tmp_path / "bad")
    with pytest.raises(
        InputError, match=r"bad has no sound .*of 8 files none can be used"
    ) as error:
        load_sound_folder(tmp_path / "bad", RATE, 5120, 512)
    assert "\n" not in str(error.value)
    save(tmp_path / "bad" / "good.wav", tone(440).astype("f4"))
    found = load_sound_folder(tmp_path / "bad", RATE, 5120, 512)
    assert found.names == ("good.wav",)
    assert len(found.skipped) == len(said)
    for name, words in said.items():
        (line,) = [line for line in found.skipped if f"{name}.wav" in line]
        assert words in line
        assert "\n" not in line


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        load_sound_folder(tmp_path / "none", RATE, 5120, 512)
    (tmp_path / "void").mkdir()
    with pytest.raises(InputError, match="void has no sound"):
        load_sound_folder(tmp_path / "void", RATE, 5120, 512)


def test_silence_within_a_file_is_no_sound(tmp_path):
    values = np.concatenate((tone(440), np.zeros(5120), tone(330), tone(220, 0.02)))
    save(tmp_path / "a.wav", values.astype("f4"))
    found = load_sound_folder(tmp_path, RATE, 5120, 512)
    assert np.abs(cents(pitches(found.waves.numpy(), RATE), np.array([440, 330]))).max() < 1


# Files that are written.


def test_a_written_file_is_of_16_bits(tmp_path):
    waves = torch.from_numpy(np.stack((tone(440), 4 * tone(330))))
    write_wav(tmp_path / "a.wav", waves, RATE)
    rate, values = wavfile.read(tmp_path / "a.wav")
    assert (rate, values.dtype, len(values)) == (RATE, np.int16, 2 * (5120 + 800))
    # Both softer alike.
    assert (
        np.abs(values[:5120] / 32767 * 2 * waves[1].abs().max().item() / 2 - waves[0].numpy()).max()
        < 1e-3
    )
    assert values.max() == 32767
    write_wav(tmp_path / "b.wav", waves[:1], RATE)
    assert np.abs(wavfile.read(tmp_path / "b.wav")[1] / 32767 - waves[0].numpy()).max() < 1e-4


@pytest.mark.usefixtures("undrawn")
def test_a_folder_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    waves, frames = torch.from_numpy(np.stack([tone(440)] * 11)), torch.zeros(11, 21, 257)
    write_sounds(tmp_path / "made", waves, RATE, frames)
    names = {file.name for file in (tmp_path / "made").iterdir()}
    assert names >= {f"{number:02}.wav" for number in range(1, 12)}
    with pytest.raises(InputError, match="-o: expected a new or an empty folder"):
        write_sounds(tmp_path / "made", waves, RATE, frames)
    with pytest.raises(InputError, match=r"-o: expected a file of \.wav or \.png, or a new"):
        write_sounds(tmp_path / "made.mp3", waves, RATE, frames)
    with pytest.raises(InputError, match="cannot write"):
        write_sounds(tmp_path / "none" / "made", waves, RATE, frames)

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scipy.io.wavfile.write", full)
    with pytest.raises(InputError, match=r"cannot write .*No space left"):
        write_sounds(tmp_path / "other", waves, RATE, frames)
    with pytest.raises(InputError, match=r"cannot write .*No space left"):
        write_sounds(tmp_path / "other.wav", waves, RATE, frames)
    assert {file.name for file in tmp_path.iterdir()} == {"made"}


# Scores.


def test_mel_bands_are_triangles_that_sum_to_one():
    bands = mel_bands(BANDS, 2048, 16000)
    assert bands.shape == (BANDS, 1025)
    middle = bands.argmax(1)
    assert (middle.diff() > 0).all()
    assert torch.allclose(bands.sum(0)[middle[0] : middle[-1]], torch.ones(()), atol=0.3)
    assert (bands.amax(1) > 0.7).all()


def test_log_mel_is_in_dB_of_full_scale():
    loud = torch.from_numpy(2 * tone(1000))[None]
    found = log_mel(torch.cat((loud, loud / 10, 0 * loud)), RATE)[..., 10:30].amax((1, 2))
    assert found[0] - found[1] == pytest.approx(20, abs=1e-3)
    assert found[0] == pytest.approx(-6, abs=3)
    assert found[2] == -60


@pytest.fixture(scope="module")
def real() -> tuple[torch.Tensor, torch.Tensor, Notes]:
    train, test = plucked_strings(150, seed=5).waves, plucked_strings(90, seed=6).waves
    return train, test, Notes.of(pitches(train.numpy(), RATE))


def test_scores_of_real_sounds_and_others(real):
    train, test, scale = real
    other = plucked_strings(90, seed=7)
    asked = torch.tensor([SCALE.index(note) for note in other.notes.tolist()])
    flat = torch.from_numpy(np.stack([tone(pitch_of(60.5))] * 90)).float()
    kinds = {"generated": other.waves, "real": test, "flat": flat}
    found = evaluate_sounds(train, kinds, RATE, scale, asked)
    assert found["count"] == 90
    assert found["in_tune"]["generated"] > 0.95
    assert found["in_tune"]["real"] > 0.95
    assert found["in_tune"]["flat"] == found["in_tune"]["noise"] == 0
    assert found["note_as_asked"] > 0.95
    assert found["notes_heard"]["generated"] == 1
    assert found["notes_heard"]["noise"] == 0
    distance = found["spectral_distance"]
    assert 5 * max(distance["real"], distance["generated"]) < min(
        distance["noise"], distance["flat"]
    )
    assert found["length_distance"]["real"] < 0.03 < found["length_distance"]["flat"]
    assert found["variety"]["flat"] < 0.01 < 1 < found["variety"]["real"]
    wrong = evaluate_sounds(train, kinds, RATE, scale, asked.roll(1))
    assert wrong["note_as_asked"] < 0.1


def test_notes_that_are_not_heard(real):
    scale = real[2]
    one = np.full(100, scale.pitches[3])
    assert notes_heard(one, scale) == pytest.approx(1 / 15)
    half = np.resize(scale.pitches[:8], 100)
    assert notes_heard(half, scale) == pytest.approx(8 / 15)
    assert as_asked(one, scale, np.full(100, 3)) == 1
    assert as_asked(np.append(one, np.nan), scale, np.full(101, 3)) == pytest.approx(100 / 101)
    with pytest.raises(UndefinedScore, match="was to have a pitch"):
        as_asked(one, Notes.of(np.array([np.nan, 440])), np.zeros(100, int))


def test_too_few_sounds_have_no_scores(real):
    train, test, scale = real
    with pytest.raises(UndefinedScore, match="2 sounds of each kind are needed"):
        evaluate_sounds(train, {"generated": test, "real": test[:1]}, RATE, scale)


# The commands.

SMALL = ["--hidden", "8", "--noise", "4", "--steps", "2", "--device", "cpu", "--quiet"]
FILES = ["--seconds", "0.128", "--window", "256", "--batch-size", "8"]


def recordings(folder: Path) -> None:
    for k, pitch in enumerate((220, 220, 330, 330, 440, 440, 440, 220, 330, 440)):
        save(folder / f"{k}.wav", (15000 * tone(pitch, 0.128)).astype("<i2"))


def test_commands_on_a_folder(tmp_path, capsys):
    recordings(tmp_path / "notes")
    (tmp_path / "notes" / "bad.wav").write_text("no sound")
    run = tmp_path / "run"
    train = ["train", "sound-gan", "--data", str(tmp_path / "notes"), "--out", str(run)]
    assert main([*train, *SMALL, *FILES, "--metrics", "quick"]) == 0
    assert "bad.wav cannot be read as a WAV file" in capsys.readouterr().err
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["in_tune"].keys() == {"generated", "untrained", "real", "noise"}
    assert metrics["in_tune"]["real"] == 1
    assert (run / "samples.wav").exists()

    made = tmp_path / "made.wav"
    assert main(["generate", str(run), "-n", "3", "-o", str(made), "--note", "e4"]) == 0
    assert "wrote" in capsys.readouterr().out
    assert wavfile.read(made)[1].shape == (3 * (1024 + 800),)
    assert main(["generate", str(run), "-n", "2", "-o", str(tmp_path / "made")]) == 0
    assert {"1.wav", "2.wav"} <= {file.name for file in (tmp_path / "made").iterdir()}
    capsys.readouterr()
    for wrong, line in (
        (["--note", "C4", "-o", "x.wav"], "note: expected one of A3, E4, A4, got C4"),
        ([], "sounds do not go to a screen"),
        (["--text", "a", "-o", "x.wav"], "--text: a run of sound-gan does not take text"),
    ):
        assert main(["generate", str(run), "-n", "1", *wrong]) == 2
        assert line in capsys.readouterr().err
    assert main(["evaluate", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == metrics
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "in tune" in page
    assert "audio/wav" in page


@pytest.mark.usefixtures("undrawn")
def test_without_notes(tmp_path, capsys):
    recordings(tmp_path / "notes")
    train = ["train", "sound-gan", "--data", str(tmp_path / "notes"), *SMALL, *FILES]
    assert main([*train, "--condition", "none", "--out", str(tmp_path / "run")]) == 0
    assert "note_as_asked" not in json.loads((tmp_path / "run" / "metrics.json").read_text())
    output = str(tmp_path / "x.wav")
    assert main(["generate", str(tmp_path / "run"), "--note", "A4", "-o", output]) == 2
    assert "--note: the run was trained without notes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--window", "511"], "--window: expected an even number from 64 to 8192, got 511"),
        (["--seconds", "0.01"], "--seconds: expected 0.064 or more, a window's length, got 0.01"),
        (["--rate", "4000"], "--rate: expected 8000 or more for the notes that are made, got 4000"),
        (["--data", "nowhere"], "nowhere is not a folder; give a folder of WAV files"),
    ],
)
def test_options_that_are_wrong(tmp_path, capsys, options, line):
    run = tmp_path / "run"
    assert main(["train", "sound-gan", "--out", str(run), *SMALL, *options]) == 2
    assert line in capsys.readouterr().err
    assert not run.exists()

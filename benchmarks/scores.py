"""Scores of a recipe over several seeds: each is trained and scored from nothing, by commands.

    python benchmarks/scores.py sines          # as KNOWN has it
    python benchmarks/scores.py --all          # all of KNOWN, one after the other
    python benchmarks/scores.py --list         # what they are, and what they take
    python benchmarks/scores.py mine --seeds 2 -- lstm-gan --data mine.csv

What follows the two dashes is what ``ganlstm-fast train`` is given, but for the seed and the
folder. The result is benchmarks/results/scores/NAME.json: the command, the machine, and of each
seed the seconds of training (start and first checkpoint included) and every score.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from report import RESULTS, ROOT, Cell, markdown_table

FOLDER = RESULTS / "scores"
SCHEMA = 1

# What stands in the table: of the scores that a recipe has, those with a name here.
FIGURES = {
    "discriminative_score.generated.score": "discriminative score",
    "discriminative_score.real.score": "of real against real",
    "predictive_score.generated.score": "predictive score",
    "predictive_score.real.score": "of real data",
    "discriminative_score.generated": "discriminative score",
    "discriminative_score.real": "of real against real",
    "speed_distance.generated": "distance of speeds from the data's, pixels a frame",
    "speed_distance.real": "of held-out videos",
    "speed_distance.shuffled": "of shuffled frames",
    "distance_of_3_grams.generated": "distance of groups of 3 symbols",
    "distance_of_3_grams.real": "of real text",
    "distance_of_3_grams.noise": "of noise",
    "known_words.generated": "known words",
    "known_words.real": "of real text",
    "known_words.noise": "of noise",
    "self_overlap_of_4_grams.generated": "groups of 4 symbols in another sample",
    "self_overlap_of_4_grams.real": "of real text",
    "self_overlap_of_4_grams.noise": "of noise",
    "language_model.generated": "nats a symbol by a language model of real text",
    "language_model.real": "of real text",
    "language_model.noise": "of noise",
    "reverse_language_model.generated": "of real text by one of the samples",
    "reverse_language_model.real": "by one of real text",
    "reverse_language_model.noise": "by one of noise",
    "turn.generated": "turn between steps, degrees",
    "turn.real": "of held-out videos",
    "turn.shuffled": "of shuffled frames",
    "variety.generated": "variety",
    "variety.real": "of real data",
    "in_tune.generated": "sounds within 20 cents of the scale",
    "in_tune.real": "of held-out sounds",
    "in_tune.noise": "of noise",
    "note_as_asked": "of the note that was asked for",
    "notes_heard.generated": "notes of the scale that are heard",
    "spectral_distance.generated": "spectral distance, dB^2",
    "spectral_distance.real": "of held-out sounds",
    "spectral_distance.noise": "of noise",
    "length_distance.generated": "distance of lengths from the data's, seconds",
    "length_distance.real": "of held-out sounds",
    "length_distance.noise": "of noise",
    "area_under_roc.total.all": "area under the ROC curve",
    "skill.same as yesterday.mean": "skill against yesterday",
    "skill.same day last year.mean": "skill against last year",
    "accuracy": "accuracy",
    "accuracy_of_symbol_frequencies": "of counting symbols",
    "accuracy_of_most_frequent_class": "of the most frequent class",
    "exact_match": "exact translations",
    "exact_match_greedy": "without beams",
    "right_symbols": "right symbols",
    "right_symbols_of_nearest_text": "of the most similar text",
    "recognised_a_to_b.generated": "digits recognised, a to b",
    "recognised_a_to_b.untranslated": "untranslated",
    "recognised_a_to_b.real": "of real b",
    "recognised_b_to_a.generated": "digits recognised, b to a",
    "recognised_b_to_a.untranslated": "untranslated",
    "recognised_b_to_a.real": "of real a",
    "style_a_to_b.generated": "taken for b, a to b",
    "style_a_to_b.untranslated": "untranslated",
    "style_b_to_a.generated": "taken for a, b to a",
    "style_b_to_a.untranslated": "untranslated",
    "slant_a_to_b.generated": "slant, a to b",
    "slant_a_to_b.untranslated": "untranslated",
    "slant_a_to_b.real": "of real b",
    "slant_b_to_a.generated": "slant, b to a",
    "cycle_error_a": "mean difference of a and its way back, of 2",
    "cycle_error_b": "of b",
    "digit_agreement.generated": "digits as the text says",
    "digit_agreement.shuffled": "with another text",
    "slant_agreement.generated": "correlation of slant",
    "weight_agreement.generated": "of weight",
}


@dataclass(frozen=True)
class Known:
    """A training whose result is kept.

    Attributes:
        train: what ``ganlstm-fast train`` is given.
        takes: minutes that a seed took on one core of the machine of the kept result.
        seeds: how many are trained.
        jobs: of them at a time.
        impl: GANLSTM_FAST_IMPL of the training.
    """

    train: str
    takes: float
    seeds: int = 1
    jobs: int = 1
    impl: str | None = None

    @property
    def command(self) -> str:
        return f"ganlstm-fast train {self.train}"

    def __str__(self) -> str:
        impl = "" if self.impl is None else f"GANLSTM_FAST_IMPL={self.impl} "
        seeds = "a seed" if self.seeds == 1 else f"{self.seeds} seeds, {self.jobs} at a time"
        return f"{impl}{self.command}: {seeds}, usually {self.takes:g} min each"


SINES = "lstm-gan --data sines --lr-g 4e-4 --lr-d 2e-4 --steps 12000"
# What `make figures` trains: a line for each file in FOLDER.
KNOWN = {
    "anomaly": Known("anomaly", 4.5),
    "classifier": Known("lstm-classifier", 0.3, seeds=5),
    "cyclegan": Known("cyclegan", 6.5),
    "dates": Known("sequence-to-sequence", 6.5, seeds=2, jobs=2),
    "forecaster": Known("lstm-forecaster", 0.3, seeds=5),
    "sines": Known(SINES, 5.5, seeds=5, jobs=2),
    "sound": Known("sound-gan", 20),
    "text-gan": Known("text-gan", 15),
    "text-to-image": Known("text-to-image --device cpu", 20.5, seeds=2, jobs=2),
    "texts": Known("text-classifier", 3.6, seeds=2, jobs=2),
    "video": Known("video-gan", 10.5),
    "weather": Known("lstm-gan", 3.5, seeds=5, jobs=2),
    "weather-torch": Known("lstm-gan", 13.5, impl="lstm=torch,gradient_penalty=reference"),
}


class Failed(Exception):
    """A command that ended with an error; the message is its own."""


def flat(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of nested dictionaries by their path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name, float(value)


def _command(*arguments: str, impl: str | None = None) -> tuple[float, str]:
    """Seconds and standard output of ``ganlstm-fast``, on one thread."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    if impl is not None:
        variables["GANLSTM_FAST_IMPL"] = impl
    command = [sys.executable, "-m", "ganlstm_fast", *arguments]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if done.returncode != 0:
        raise Failed(f"{shlex.join(command[1:])}: {done.stderr.strip() or done.returncode}")
    return time.monotonic() - start, done.stdout


def run_seed(train: Sequence[str], seed: int, folder: Path, impl: str | None) -> dict[str, Any]:
    """Train and score one seed."""
    out = ("--seed", str(seed), "--out", str(folder), "--metrics", "none", "--quiet")
    train_seconds, _ = _command("train", *train, *out, impl=impl)
    score_seconds, text = _command("evaluate", str(folder), "--metrics", "full", "--json")
    return {
        "seed": seed,
        "train_seconds": round(train_seconds, 1),
        "score_seconds": round(score_seconds, 1),
        "scores": json.loads(text),
    }


def measure(
    train: Sequence[str], seeds: int, jobs: int, impl: str | None, keep: Path | None
) -> list[dict[str, Any]]:
    """All seeds, ``jobs`` of them at a time; folders of the runs stay in ``keep``."""
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(jobs) as pool:
        folder = keep or Path(temporary)

        def one(seed: int) -> dict[str, Any]:
            found = run_seed(train, seed, folder / f"seed-{seed}", impl)
            print(f"seed {seed}: trained in {found['train_seconds']:.0f} s", file=sys.stderr)
            return found

        return list(pool.map(one, range(seeds)))


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"), key=lambda path: path.stem)


def read(folder: Path) -> list[dict[str, Any]]:
    """The results that are kept; one of another schema is named and left out."""
    found = []
    for path in files(folder):
        result = json.loads(path.read_text())
        if result.get("schema") == SCHEMA:
            found.append(result | {"name": path.stem})
        else:
            print(f"{path}: schema {result.get('schema')}, expected {SCHEMA}", file=sys.stderr)
    return found


def _spread(values: Sequence[float], digits: int) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.{digits}f} .. {max(values):.{digits}f})"


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row for each figure of each result, the mean over the seeds with least and most.

    A score that was not reported counts as missing, and how many are there is told.
    """
    lines: list[tuple[Cell, ...]] = [("trained by", "seconds", "figure", "mean (least .. most)")]
    for result in results:
        seeds = result["seeds"]
        scores = [dict(flat(seed["scores"])) for seed in seeds]
        seconds = _spread([seed["train_seconds"] for seed in seeds], 0)
        impl = "" if result["impl"] is None else f"GANLSTM_FAST_IMPL={result['impl']} "
        first = (f"`{impl}{result['command']}`", f"{seconds}, {result['jobs']} at a time")
        for path, figure in FIGURES.items():
            values = [s[path] for s in scores if path in s]
            if values:
                missing = "" if len(values) == len(seeds) else f", {len(values)} of {len(seeds)}"
                spread = _spread(values, 3) + (
                    f" of {len(values)} seeds" if len(values) > 1 else ""
                )
                lines.append((*first, figure, spread + missing))
                first = ("", "")
    return markdown_table(lines)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="of the result")
    parser.add_argument(
        "train",
        nargs="*",
        help="MODEL and options of ganlstm-fast train, after -- (those of KNOWN by that name)",
    )
    parser.add_argument("--all", action="store_true", help="all of KNOWN")
    parser.add_argument("--list", action="store_true", help="say what they are, train nothing")
    parser.add_argument("--seeds", type=int, help="0, 1, ... (as KNOWN; of others 5)")
    parser.add_argument("--jobs", type=int, help="at a time (as KNOWN; of others 2)")
    parser.add_argument("--impl", help="GANLSTM_FAST_IMPL of the training")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the runs there")
    return parser


def chosen(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None
) -> tuple[argparse.Namespace, dict[str, Known]]:
    """The options, and the trainings that they ask for, by name; ends the program where they
    cannot be understood."""
    options = parser.parse_args(arguments)
    for name in ("seeds", "jobs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name}: expected 1 or more, got {value}")
    if (options.all or options.list) == (options.name is not None):
        parser.error("expected the NAME of a result, or one of --all and --list")
    given = ("seeds", "jobs", "impl")
    changes = {name: getattr(options, name) for name in given if getattr(options, name) is not None}
    if options.train:
        asked = Known(shlex.join(options.train), math.nan, seeds=5, jobs=2)
        return options, {options.name: replace(asked, **changes)}
    if options.name is None:
        known = KNOWN
    elif options.name in KNOWN:
        known = {options.name: KNOWN[options.name]}
    else:
        names = ", ".join(KNOWN)
        parser.error(f"{options.name}: expected one of {names}, or -- MODEL after another name")
    return options, {name: replace(found, **changes) for name, found in known.items()}


def make(name: str, known: Known, keep: Path | None) -> None:
    """Train and score, and write the result.

    Raises:
        Failed: a command ended with an error; no file is written.
    """
    from environment import environment
    from rows import write_whole

    result = {
        "schema": SCHEMA,
        "command": known.command,
        "impl": known.impl,
        "jobs": known.jobs,
        "environment": environment("scores"),
        "seeds": measure(shlex.split(known.train), known.seeds, known.jobs, known.impl, keep),
    }
    path = FOLDER / f"{name}.json"
    write_whole(path, json.dumps(result, indent=1) + "\n")
    print(f"{table([result])}\n\nsaved {path.relative_to(ROOT)}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    options, trainings = chosen(_options(), arguments)
    failed = 0
    for name, known in trainings.items():
        if options.list or options.all:
            print(f"{name}: {known}", flush=True)
        if options.list:
            continue
        # Of several, one that fails keeps none of the others from being made.
        try:
            keep = options.keep and (options.keep / name if options.all else options.keep)
            make(name, known, keep)
        except Failed as error:
            print(error, file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())

"""Scores of a recipe over several seeds: each is trained and scored from nothing, by commands.

    python -m benchmarks.scores sines          # as KNOWN has it
    python -m benchmarks.scores --all          # all of KNOWN, one after the other
    python -m benchmarks.scores --list         # what they are, and what they take
    python -m benchmarks.scores mine --seeds 2 -- lstm-gan --data mine.csv

After the two dashes stand the arguments of ``ganlstm-fast train``, without the seed and the
folder. The result is benchmarks/results/scores/NAME.json: the command, the machine, and of each
seed the seconds of training (start and first checkpoint included) and every score.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.measure.environment import environment
from benchmarks.report.rows import ROOT, write_whole
from benchmarks.report.scores import FOLDER, SCHEMA, table


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


def command(*arguments: str, impl: str | None = None) -> tuple[float, str]:
    """Run ``ganlstm-fast`` on one thread; its seconds and its standard output."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    if impl is not None:
        variables["GANLSTM_FAST_IMPL"] = impl
    words = [sys.executable, "-m", "ganlstm_fast", *arguments]
    start = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=variables)
    if done.returncode != 0:
        raise Failed(f"{shlex.join(words[1:])}: {done.stderr.strip() or done.returncode}")
    return time.monotonic() - start, done.stdout


def run_seed(train: Sequence[str], seed: int, folder: Path, impl: str | None) -> dict[str, Any]:
    """Train and score one seed."""
    out = ("--seed", str(seed), "--out", str(folder), "--metrics", "none", "--quiet")
    train_seconds, _ = command("train", *train, *out, impl=impl)
    score_seconds, text = command("evaluate", str(folder), "--metrics", "full", "--json")
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

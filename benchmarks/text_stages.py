"""What a text-gan writes at each stage of its training, with scores, beside likelihood alone.

    python -m benchmarks.text_stages             # trains for about half an hour, on one core
    python -m benchmarks.report --update-readme  # writes what docs/text-gan.md shows of it

The result is benchmarks/results/text-gan/stages.json: of each stage the command, the steps, the
seconds of training, the scores of ``ganlstm-fast evaluate`` and some samples; and samples of what
the scores are put beside.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure.environment import environment
from benchmarks.report.rows import ROOT, write_whole
from benchmarks.report.text_stages import FILE
from benchmarks.scores import Failed, command

SAMPLES = 5


@dataclass(frozen=True)
class Stage:
    """A run after some steps.

    Attributes:
        title: of its column.
        train: what ``ganlstm-fast train text-gan`` is given beside the seed, the folder and the
            steps. Stages of equal ``train`` are one run, which is resumed.
        steps: after which the run is looked at.
    """

    title: str
    train: str
    steps: int


def stages() -> list[Stage]:
    """The default recipe early, after pretraining, and trained; and likelihood alone for as
    many steps."""
    from ganlstm_fast.training.configs import TextGANConfig

    pretrain, steps = TextGANConfig().pretrain, TextGANConfig().steps
    return [
        Stage("early", "", 200),
        Stage("pretrained", "", pretrain),
        Stage("trained", "", steps),
        Stage("likelihood alone", f"--pretrain {steps}", steps),
    ]


def run(found: list[Stage], folder: Path) -> Iterator[dict[str, Any]]:
    """Train to each stage, score it and let it write."""
    seconds: dict[str, float] = {}
    for stage in found:
        out = folder / f"run-{list(dict.fromkeys(s.train for s in found)).index(stage.train)}"
        first = ["text-gan", *stage.train.split(), "--seed", "0", "--out", str(out)]
        start = ["--resume", str(out)] if out.exists() else first
        options = ["--steps", str(stage.steps), "--metrics", "none", "--quiet"]
        took, _ = command("train", *start, *options)
        seconds[stage.train] = seconds.get(stage.train, 0.0) + took
        _, scores = command("evaluate", str(out), "--metrics", "full", "--json")
        _, text = command("generate", str(out), "-n", str(SAMPLES), "--seed", "1")
        words = ["ganlstm-fast", "train", "text-gan", *stage.train.split()]
        print(f"{stage.title}: {seconds[stage.train]:.0f} s", file=sys.stderr, flush=True)
        yield {
            **asdict(stage),
            "command": " ".join([*words, "--steps", str(stage.steps)]),
            "seconds": round(seconds[stage.train], 1),
            "scores": json.loads(scores),
            "samples": text.splitlines(),
        }


def beside() -> dict[str, list[str]]:
    """Samples of noise, of real text in a random order of its words, and of real text."""
    import torch

    from ganlstm_fast.training.configs import TextGANConfig
    from ganlstm_fast.training.datasets import Vocabulary, load_text, text_windows
    from ganlstm_fast.training.metrics.generated_texts import kinds_of

    text, length = load_text(), TextGANConfig().seq_len
    vocabulary = Vocabulary.of(text)
    held = text_windows(text, vocabulary, length)[1][::length]
    kinds = kinds_of(held, held, vocabulary, torch.Generator().manual_seed(0))
    return {
        name: [vocabulary.decode(row).replace("\n", " ") for row in kinds[name][:SAMPLES]]
        for name in ("noise", "shuffled", "real")
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the runs there")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        try:
            found = list(run(stages(), options.keep or Path(temporary)))
        except Failed as error:
            print(error, file=sys.stderr)
            return 1
    result = {"environment": environment("scores"), "stages": found, "beside": beside()}
    write_whole(FILE, json.dumps(result, indent=1) + "\n")
    print(f"saved {FILE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a text-gan writes at each stage of its training, what its scores say, beside other ways.

    python benchmarks/text_stages.py             # trains for about half an hour, on one core
    python benchmarks/report.py --update-readme  # writes what docs/text-gan.md shows of it

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

from report import RESULTS, ROOT, markdown_table
from scores import Failed, _command

FILE = RESULTS / "text-gan" / "stages.json"
PAGE = ROOT / "docs" / "text-gan.md"
SAMPLES = 5
# Noise and real text both score 0 here, so that no share of the way between them can be given.
COPIED = "copied_16_grams"


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
        took, _ = _command("train", *start, *options)
        seconds[stage.train] = seconds.get(stage.train, 0.0) + took
        _, scores = _command("evaluate", str(out), "--metrics", "full", "--json")
        _, text = _command("generate", str(out), "-n", str(SAMPLES), "--seed", "1")
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


def way(score: dict[str, float], generated: float) -> float:
    """How far ``generated`` is on the way from noise, 0, to real text, 1."""
    return (generated - score["noise"]) / (score["real"] - score["noise"])


def section(result: dict[str, Any]) -> str:
    """What docs/text-gan.md shows between its markers."""
    found = result["stages"]
    trained = next(stage for stage in found if stage["title"] == "trained")
    titles = [stage["title"] for stage in found]
    names = [n for n, v in trained["scores"].items() if isinstance(v, dict) and "noise" in v]
    lines: list[tuple[str, ...]] = [("score", "noise", *titles, "shuffled words", "real")]
    shares: list[tuple[str, ...]] = [("share of the way from noise to real", *titles)]
    of_trained: dict[str, float] = {}
    # Of the scores, in how many the trained generator is nearer to real text than another stage.
    better = dict.fromkeys(titles, 0)
    for name in names:
        score = trained["scores"][name]
        values = [stage["scores"][name]["generated"] for stage in found]
        shown = (score["noise"], *values, score["shuffled"], score["real"])
        lines.append((name.replace("_", " "), *(f"{value:.3f}" for value in shown)))
        if name != COPIED:
            ways = [way(score, value) for value in values]
            of_trained[name] = mine = ways[titles.index("trained")]
            for title, share in zip(titles, ways, strict=True):
                better[title] += abs(mine - 1) < abs(share - 1)
            shares.append((name.replace("_", " "), *(f"{100 * share:.0f}%" for share in ways)))
    nearer = [name for name, share in of_trained.items() if abs(share - 1) < 0.5]
    beyond = [name.replace("_", " ") for name, share in of_trained.items() if share > 1]
    parts = [
        f"Of {len(of_trained)} scores of the trained generator, {len(nearer)} are nearer to those "
        "of real text than to those of noise"
        + (f"; beyond those of real text: {', '.join(beyond)}." if beyond else "."),
        "It is nearer to real text than the other stages are in: "
        + ", ".join(f"{title} {count}" for title, count in better.items() if title != "trained")
        + f" of {len(of_trained)} scores.",
        markdown_table(shares),
        "The scores themselves:",
        markdown_table(lines),
        "How each was made, from nothing and with seed 0, on one thread:",
        markdown_table(
            [
                ("stage", "command", "seconds"),
                *((s["title"], f"`{s['command']}`", f"{s['seconds']:.0f}") for s in found),
            ]
        ),
        "What they write, unselected (line ends are spaces):",
    ]
    for title, texts in (
        ("noise", result["beside"]["noise"]),
        *((stage["title"], stage["samples"]) for stage in found),
        ("shuffled words", result["beside"]["shuffled"]),
        ("real, held out", result["beside"]["real"]),
    ):
        parts.append(f"*{title}*\n\n```text\n" + "\n".join(texts) + "\n```")
    e = result["environment"]
    parts.append(
        f"From [stages.json](../{FILE.relative_to(ROOT).as_posix()}), made by "
        f"`benchmarks/text_stages.py` on {e['device']}, torch {e['torch']}, {e['commit']}."
    )
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the runs there")
    options = parser.parse_args(arguments)
    from environment import environment
    from rows import write_whole

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

"""The command ``ganlstm-fast``.

Exit codes: 0 done; 1 training failed; 2 something given cannot be used; 128 + n stopped by
signal n.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

# Kept in step with losses.LOSSES by a test: help is shown without loading what trains.
LOSS_NAMES = (
    *("wgan-gp", "hinge", "lsgan", "minimax", "non-saturating", "relativistic"),
    *("relativistic-average", "relativistic-average-hinge", "relativistic-average-lsgan"),
)

EXAMPLES = """examples:
  ganlstm-fast train                                  the bundled weather, into runs/
  ganlstm-fast train --data prices.csv --columns open,close --seq-len 30 --out runs/prices
  ganlstm-fast train --resume runs/prices --steps 20000
  ganlstm-fast generate runs/prices -n 1000 -o prices-like.csv
  ganlstm-fast explain
"""
TRAIN_EXAMPLES = """examples:
  ganlstm-fast train                                  the bundled weather, into runs/
  ganlstm-fast train --loss hinge --hidden 128 --epochs 200
  ganlstm-fast train --data prices.csv --columns open,close --seq-len 30 --out runs/prices
  ganlstm-fast train --resume runs/prices             go on after Ctrl-C or a kill
  ganlstm-fast train --resume runs/prices --steps 20000

The run's folder then holds checkpoint.pt, samples.csv, samples.png, losses.png and metrics.json
(discriminative and predictive score beside those of an untrained generator, noise and real data).
"""
GENERATE_EXAMPLES = """examples:
  ganlstm-fast generate runs/prices -n 1000 -o prices-like.csv
  ganlstm-fast generate runs/prices -n 5 --seed 1     to the screen

The CSV has the columns sample, step and those of the data, in the data's units.
"""


class _Parser(argparse.ArgumentParser):
    """Errors in one line, like all others of this command."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"ganlstm-fast: error: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line. Options of ``train`` that are not given are absent."""
    parser = _Parser(
        prog="ganlstm-fast",
        description="Train LSTM-GANs on series of numbers and generate from them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_train(commands)
    _add_generate(commands)
    commands.add_parser(
        "explain",
        help="say which implementation of each operator runs here, and why",
        description="Say which implementation of each operator runs here, and why.",
    )
    return parser


def _add_train(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        help="train on a CSV file or the bundled weather",
        description="Train an LSTM-GAN on windows of a table of numbers.",
        epilog=TRAIN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    data = train.add_argument_group("data")
    data.add_argument(
        "--data", metavar="FILE.csv", help="column names, and numbers below them (bundled weather)"
    )
    data.add_argument(
        "--columns", type=_columns, metavar="A,B", help="columns to learn (all columns of numbers)"
    )
    data.add_argument("--seq-len", type=int, metavar="N", help="rows in a window (24)")
    run = train.add_argument_group("run")
    where = run.add_mutually_exclusive_group()
    where.add_argument("--out", metavar="DIR", help="folder of the run (the first free runs/NAME)")
    where.add_argument("--resume", metavar="RUN", help="go on with a run exactly where it stopped")
    length = run.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, metavar="N", help="steps of the generator (12000)")
    length.add_argument("--epochs", type=int, metavar="N", help="passes over the windows")
    run.add_argument("--seed", type=int, metavar="N", help="of weights, noise and data order (0)")
    run.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, ... (cpu)")
    run.add_argument("--threads", type=int, metavar="N", help="of the CPU (1)")
    run.add_argument(
        "--checkpoint-every", type=int, metavar="N", help="steps between checkpoints (500)"
    )
    run.add_argument(
        "--metrics",
        choices=("full", "quick", "none"),
        help="scores at the end: the published protocol, with fewer iterations, or none (full)",
    )
    run.add_argument("--quiet", action="store_true", help="print errors only")
    model = train.add_argument_group("model")
    model.add_argument("--hidden", type=int, metavar="N", help="units of each LSTM (32)")
    model.add_argument("--layers", type=int, metavar="N", help="layers of each LSTM (1)")
    model.add_argument("--noise", type=int, metavar="N", help="noise values a step (16)")
    recipe = train.add_argument_group("recipe")
    recipe.add_argument("--loss", choices=LOSS_NAMES, help="(wgan-gp)")
    recipe.add_argument(
        "--label-smoothing",
        type=float,
        metavar="X",
        help="the critic's label of real windows is less than 1 by this; for lsgan, minimax and "
        "non-saturating (0)",
    )
    recipe.add_argument(
        "--penalty",
        type=float,
        metavar="X",
        help="weight of the gradient penalty, 0 for none (10 for wgan-gp, 1 of R1 for the others)",
    )
    recipe.add_argument(
        "--penalty-every",
        type=int,
        metavar="N",
        help="steps of the critic between two penalties, which then weigh N times as much (1)",
    )
    recipe.add_argument(
        "--penalty-fraction",
        type=float,
        metavar="X",
        help="part of a batch that the penalty is taken of (1)",
    )
    recipe.add_argument("--lr-g", type=float, metavar="X", help="generator's learning rate (2e-4)")
    recipe.add_argument("--lr-d", type=float, metavar="X", help="critic's learning rate (1e-4)")
    recipe.add_argument("--beta1", type=float, metavar="X", help="of Adam (0.5)")
    recipe.add_argument("--beta2", type=float, metavar="X", help="of Adam (0.9)")
    recipe.add_argument(
        "--clip", type=float, metavar="X", help="largest gradient norm, 0: any (10)"
    )
    recipe.add_argument("--n-critic", type=int, metavar="N", help="critic steps a step (3)")
    recipe.add_argument("--batch-size", type=int, metavar="N", help="windows a step (32)")
    recipe.add_argument("--ema", type=float, metavar="X", help="decay of averaged weights (0.999)")


def _add_generate(commands: Any) -> None:
    generate = commands.add_parser(
        "generate",
        help="write series from a trained run",
        description="Write series from the generator of a trained run.",
        epilog=GENERATE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    generate.add_argument("run", metavar="RUN", help="folder of a run")
    generate.add_argument("-n", "--count", type=int, default=100, metavar="N", help="series (100)")
    generate.add_argument("-o", "--output", metavar="OUT.csv", help="the file (the screen)")
    generate.add_argument("--seed", type=int, default=0, metavar="N", help="of the noise (0)")
    generate.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, ... (cpu)")


def _columns(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = build_parser()
    options = vars(parser.parse_args(argv))
    command = options.pop("command")
    if options.pop("version", False):
        from ganlstm_fast import __version__

        print(__version__)
        return 0
    if command is None:
        parser.print_help(sys.stderr)
        return 2
    if command == "explain":
        from ganlstm_fast import explain

        print(explain())
        return 0
    try:
        from ganlstm_fast import training
    except ModuleNotFoundError as error:
        return _fail(str(error))
    try:
        return {"train": _train, "generate": _generate}[command](training, options)
    except training.InputError as error:
        return _fail(str(error))
    except training.TrainingError as error:
        return _fail(str(error), 1)
    except BrokenPipeError:
        # The reader of our output, such as head, has gone. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _fail(message: str, code: int = 2) -> int:
    print(f"ganlstm-fast: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _train(training: Any, options: dict[str, Any]) -> int:
    from tqdm import tqdm

    quiet, out, resume = (options.pop(name, None) for name in ("quiet", "out", "resume"))
    # In a log file a line now and then, not ten a second.
    slow = {} if sys.stderr.isatty() else {"mininterval": 15.0}
    result = training.train(
        training.TrainConfig(**options) if resume is None else None,
        out=out,
        resume=resume,
        changes=options if resume is not None else None,
        progress=partial(tqdm, disable=bool(quiet), dynamic_ncols=True, **slow),
        announce=(lambda line: None) if quiet else partial(print, flush=True),
    )
    if result.signal is not None:
        name = signal.Signals(result.signal).name
        print(
            f"ganlstm-fast: stopped by {name} at step {result.step}; "
            f"go on with: ganlstm-fast train --resume {result.folder}",
            file=sys.stderr,
        )
        return 128 + result.signal
    if not quiet:
        _print_scores(result.metrics)
        files = ("samples.png", "losses.png", "samples.csv", "metrics.json", "checkpoint.pt")
        print(f"wrote {result.folder}: {' '.join(files)}")
    return 0


def _print_scores(metrics: dict[str, Any]) -> None:
    if metrics["metrics"] == "none":
        return
    if not metrics["reported"]:
        print(f"ganlstm-fast: warning: no score: {metrics['reason']}", file=sys.stderr)
    kinds = ("generated", "untrained", "noise", "real")
    if "discriminative_score" in metrics:
        print(f"{'':22}" + "".join(f"{kind:>11}" for kind in kinds))
    for name in ("discriminative_score", "predictive_score"):
        if name in metrics:
            values = (metrics[name][kind] for kind in kinds)
            cells = (f"{'-' if v is None else format(v['score'], '.3f'):>11}" for v in values)
            print(f"{name:22}" + "".join(cells))
    if metrics["metrics"] == "quick":
        print("scores with fewer iterations than the published protocol (--metrics quick)")


def _generate(training: Any, options: dict[str, Any]) -> int:
    series, columns = training.generate(
        Path(options["run"]), options["count"], options["seed"], options["device"]
    )
    if options["output"] is None:
        training.write_series(sys.stdout, series, columns)
        return 0
    output = Path(options["output"])
    training.write_series(output, series, columns)
    count, steps, channels = series.shape
    print(f"wrote {output}: {count} series of {steps} steps and {channels} columns")
    return 0


if __name__ == "__main__":
    sys.exit(main())

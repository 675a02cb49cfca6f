"""The options of the command ``ganlstm-fast``; nothing here loads what trains."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ganlstm_fast.training.config import Settings
from ganlstm_fast.training.configs import MODELS
from ganlstm_fast.training.errors import did_you_mean, flag

DEFAULT_MODEL = "lstm-gan"
DTYPES = ("float32", "float64", "float16", "bfloat16")
RAW = argparse.RawDescriptionHelpFormatter

EXAMPLES = """examples:
  ganlstm-fast list                                   the models
  ganlstm-fast train                                  an lstm-gan of the bundled weather
  ganlstm-fast train dcgan --data photos --size 64 --channels 3 --out runs/photos
  ganlstm-fast train --resume runs/photos --steps 20000
  ganlstm-fast generate runs/photos -n 64 -o made.png
  ganlstm-fast report runs/photos                     a page with all there is to see
  ganlstm-fast train MODEL --help                     the options of a model

exit codes: 0 done; 1 training failed; 2 something given cannot be used; 128 + n stopped by signal n
"""
TRAIN_EXAMPLES = """examples:
  ganlstm-fast train {model:<32} the defaults, into runs/
  ganlstm-fast train {model} --seed 1 --steps 500 --out runs/short
  ganlstm-fast train --resume runs/short               go on after Ctrl-C or a kill
  ganlstm-fast train --resume runs/short --steps 20000
  ganlstm-fast train {model} --device cuda --devices 4 --precision bf16-mixed
  torchrun --nproc-per-node 4 -m ganlstm_fast train {model} --device cuda

The run's folder then holds checkpoint.pt, metrics.json, and pictures and tables of what it makes.
"""


class Parser(argparse.ArgumentParser):
    """Errors in one line, like all others of this command.

    Attributes:
        mixed: whether options may stand between the run and the texts after it. By default argparse
            ends a list of positional arguments at the first option.
    """

    mixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if not self.mixed:
            return super().parse_known_args(args, namespace)
        self.mixed = False  # It is called again from within.
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.mixed = True

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            at = self._of_command(sys.argv[1:] if args is None else args)
            name = unknown[0].partition("=")[0]
            near = did_you_mean(name, at._option_string_actions) if name.startswith("-") else ""
            at.error(f"unrecognized arguments: {' '.join(unknown)}{near}")
        return found

    def _of_command(self, args: Sequence[str]) -> Parser:
        """The parser of the command that is given, and of the model."""
        parser = self
        for arg in args:
            commands = parser._subparsers and parser._subparsers._group_actions[0].choices
            if commands and arg in commands:
                parser = commands[arg]
        return parser

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            near = did_you_mean(str(value), action.choices or ())
            raise argparse.ArgumentError(action, error.message + near) from None

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"ganlstm-fast: error: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line. Options of ``train`` that are not given are absent."""
    parser = Parser(
        prog="ganlstm-fast",
        description="Train GANs and LSTMs, and use what they have learnt.",
        epilog=EXAMPLES,
        formatter_class=RAW,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add(commands, "list", "the models that can be trained", [], json=True)
    train = _add(commands, "train", "train a model", ["train MODEL --help"])
    models = train.add_subparsers(dest="model", metavar="MODEL", prog="ganlstm-fast train")
    for name, model in MODELS.items():
        _add_model(models, name, model.config, model.summary)
    generate = _add(
        commands,
        "generate",
        "write samples of a trained GAN",
        [
            "generate runs/prices -n 1000 -o prices-like.csv",
            "generate runs/digits -o digits.png",
            "generate runs/moving-digits -n 4 -o digits.gif",
            "generate runs/conditional --month 7 -o july.csv",
            "generate runs/prices --seq-len 365 -o years.csv",
            "generate runs/styles --images photos --direction a-to-b -o translated",
            'generate runs/described --text "a thin seven, leaning right" -o seven.png',
            "generate runs/plucked-strings -n 5 --note A4 -o a4.wav",
        ],
    )
    _add_run(generate)
    generate.add_argument("-n", "--count", type=int, default=100, metavar="N", help="samples (100)")
    generate.add_argument("-o", "--output", metavar="OUT", help="the file (series, text: screen)")
    generate.add_argument("--seed", type=int, default=0, metavar="N", help="of the noise (0)")
    generate.add_argument(
        "--month", type=int, metavar="N", help="of conditional-lstm-gan: 1 to 12 (all in turn)"
    )
    generate.add_argument(
        "--after",
        metavar="FILE.csv",
        help="of conditional-lstm-gan: rows that the samples follow (what was trained on)",
    )
    generate.add_argument(
        "--series", metavar="NAME", help="of conditional-lstm-gan: which of several they follow"
    )
    generate.add_argument(
        "--seq-len",
        type=int,
        metavar="N",
        help="of lstm-gan, conditional-lstm-gan, anomaly, text-gan: steps of a sample, 1 or more; "
        "whether longer ones than the model was trained on are plausible is yours to judge (as in "
        "training)",
    )
    generate.add_argument(
        "--text", metavar="TEXT", help="of text-to-image: what is to be seen (a text of the data)"
    )
    generate.add_argument(
        "--note", metavar="NAME", help="of sound-gan: such as A4 or C#5 (as often as in the data)"
    )
    generate.add_argument(
        "--images",
        metavar="PATH",
        help="of cyclegan: an image, or a folder of images to translate (held-out ones)",
    )
    generate.add_argument(
        "--direction", choices=("a-to-b", "b-to-a"), help="of cyclegan: which way (a-to-b)"
    )
    evaluate = _add(
        commands,
        "evaluate",
        "score a run's model again, on the data it was trained on",
        ["evaluate runs/prices", "evaluate runs/prices --metrics full --json"],
        json=True,
    )
    _add_run(evaluate)
    evaluate.add_argument(
        "--metrics", choices=("full", "quick"), default="quick", help="how much (quick)"
    )
    score = _add(
        commands,
        "score",
        "say how unusual the windows of a series are",
        ["score runs/machine --data new.csv -o scores.csv"],
    )
    _add_run(score)
    score.add_argument("--data", metavar="FILE.csv", help="the series (what was trained on)")
    score.add_argument("-o", "--output", metavar="OUT.csv", help="the file (the screen)")
    score.add_argument("--seed", type=int, default=0, metavar="N", help="of the search (0)")
    forecast = _add(
        commands,
        "forecast",
        "forecast what follows a series, with its times where the data has dates",
        [
            "forecast runs/weather --data today.csv -o tomorrow.csv",
            "forecast runs/weather --quantiles",
        ],
    )
    _add_run(forecast)
    forecast.add_argument("--data", metavar="FILE.csv", help="the series (what was trained on)")
    forecast.add_argument("--series", metavar="NAME", help="which, where there are several")
    forecast.add_argument(
        "--quantiles",
        action="store_true",
        help="all that were trained, in columns such as temp_max_q10, temp_max_q50, temp_max_q90 "
        "(the median, in a column temp_max)",
    )
    forecast.add_argument("-o", "--output", metavar="OUT.csv", help="the file (the screen)")
    classify = _add(
        commands,
        "classify",
        "say which class sequences or texts belong to",
        [
            "classify runs/gestures --data new.csv -o classes.csv",
            'classify runs/texts "Shall I compare thee to a summer\'s day?"',
        ],
    )
    _add_run(classify)
    _add_texts(classify, "of text-classifier; -: lines of the standard input")
    classify.add_argument("--data", metavar="FILE.csv", help="sequences (what was trained on)")
    classify.add_argument("-o", "--output", metavar="OUT.csv", help="the file (the screen)")
    translate = _add(
        commands,
        "translate",
        "write what a text is in the words that were learnt",
        ['translate runs/dates "March the 3rd, 1998"', "translate runs/dates < texts.txt"],
    )
    _add_run(translate)
    _add_texts(translate, "(lines of the standard input)")
    translate.add_argument(
        "--picture", metavar="OUT.png", help="a picture of the attention in the first four texts"
    )
    translate.add_argument("-o", "--output", metavar="OUT.txt", help="the file (the screen)")
    report = _add(commands, "report", "make one HTML page of a run", ["report runs/prices"])
    _add_run(report)
    report.add_argument("-o", "--output", metavar="OUT.html", help="the file (RUN/report.html)")
    bench = _add(commands, "bench", "run the benchmarks of a checkout", ["bench -k train_step"])
    bench.add_argument("-k", dest="select", metavar="WORDS", help="which, as for pytest")
    explain = _add(
        commands,
        "explain",
        "say what devices are here, which implementation of each operator runs on them, and why",
        ["explain", "explain --device cuda --dtype bfloat16"],
    )
    explain.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, ... (all)")
    explain.add_argument(
        "--dtype", choices=DTYPES, default=DTYPES[0], help=f"of the operators' input ({DTYPES[0]})"
    )
    return parser


def _add(commands: Any, name: str, help: str, examples: Sequence[str], json: bool = False) -> Any:
    epilog = "\n".join(("examples:", *(f"  ganlstm-fast {line}" for line in examples)))
    parser = commands.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        epilog=epilog if examples else None,
        formatter_class=RAW,
        allow_abbrev=False,
    )
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_run(parser: Any) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="cpu, cuda, cuda:1, ..., or auto: a GPU if there is one (auto)",
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")


def _add_texts(parser: Parser, help: str) -> None:
    parser.add_argument("text", nargs="*", metavar="TEXT", default=[], help=help)
    parser.mixed = True


def _add_model(models: Any, name: str, config: type[Settings], summary: str) -> None:
    parser = models.add_parser(
        name,
        help=summary,
        description=f"Train {name}: {summary}.",
        epilog=TRAIN_EXAMPLES.format(model=name),
        formatter_class=RAW,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    groups = {group: parser.add_argument_group(group) for group in ("data", "run")}
    where = groups["run"].add_mutually_exclusive_group()
    where.add_argument("--out", metavar="DIR", help="folder of the run (the first free runs/NAME)")
    where.add_argument("--resume", metavar="RUN", help="go on with a run exactly where it stopped")
    length = groups["run"].add_mutually_exclusive_group()
    types = config.types()
    for field in dataclasses.fields(config):
        group = field.metadata["group"]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        where = length if field.name in ("steps", "epochs") else groups[group]
        _add_setting(where, field, types[field.name])
    groups["run"].add_argument("--quiet", action="store_true", help="print errors only")
    groups["run"].add_argument("--json", action="store_true", help="print the scores as JSON")


def _add_setting(group: Any, field: dataclasses.Field[Any], kind: Any) -> None:
    options: dict[str, Any] = {"help": _help(field).replace("%", "%%")}
    if kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    elif field.metadata["choices"] is not None:
        options["choices"] = field.metadata["choices"]
    else:
        options["metavar"] = field.metadata["metavar"] or {int: "N", float: "X"}.get(kind, "TEXT")
        options["type"] = _several(field) if kind is tuple else kind
    group.add_argument(flag(field.name), **options)


def _help(field: dataclasses.Field[Any]) -> str:
    text, default = field.metadata["help"].for_command(), field.default
    if default is None or text.endswith(")"):
        return text
    if isinstance(default, bool):
        default = "on" if default else "off"
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    return f"{text} ({default})".lstrip()


def _several(field: dataclasses.Field[Any]) -> Any:
    """The parser of comma-separated values, of the type in the field's annotation."""
    item = next(t for t in (int, float, str) if f"tuple[{t.__name__}" in str(field.type))

    def read(text: str) -> tuple[Any, ...]:
        return tuple(item(part.strip()) for part in text.split(",") if part.strip())

    read.__name__ = f"{item.__name__}s with commas"
    return read


def parse(argv: Sequence[str]) -> dict[str, Any]:
    """The options given; ``train`` without a model is one of ``DEFAULT_MODEL``."""
    argv = list(argv)
    following = argv[1] if len(argv) > 1 else "--"
    if argv[:1] == ["train"] and following.startswith("-") and following not in ("-h", "--help"):
        argv.insert(1, DEFAULT_MODEL)
    return vars(build_parser().parse_args(argv))

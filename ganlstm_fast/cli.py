"""The command ``ganlstm-fast``.

Exit codes: 0 done; 1 training failed; 2 something given cannot be used; 128 + n stopped by
signal n.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ganlstm_fast.cli_options import build_parser, parse
from ganlstm_fast.training.config import Settings
from ganlstm_fast.training.configs import MODELS, TableOptions, model_of
from ganlstm_fast.training.errors import InputError, Line, TrainingError
from ganlstm_fast.training.tables.given import NONE

# Commands that use a trained run; each has the name of the recipe's function that does it.
USES = ("generate", "forecast", "score", "classify", "translate")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parse(sys.argv[1:] if argv is None else argv)
    command = options.pop("command")
    if options.pop("version", False):
        from ganlstm_fast import __version__

        print(__version__)
        return 0
    if command is None:
        build_parser().print_help(sys.stderr)
        return 2
    try:
        if "run" in options:  # These commands compute on a device.
            options["device"] = _device(options["device"])
        return COMMANDS[command](options)
    except InputError as error:
        return _fail(error.for_command())
    except ModuleNotFoundError as error:
        return _fail(str(error))
    except TrainingError as error:
        return _fail(error.for_command(), 1)
    except BrokenPipeError:
        # The reader of our output, such as head, has gone. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _fail(message: str, code: int = 2) -> int:
    # All processes fail alike, so only the first prints the error.
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        print(f"ganlstm-fast: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _warn(message: str) -> None:
    said = Line(message).for_command()
    print(f"ganlstm-fast: warning: {' '.join(said.split())}", file=sys.stderr)


def _device(name: str) -> str:
    """The device that a command uses, by its name; ``auto`` is looked for here, to warn here."""
    from ganlstm_fast.training.devices import find_device

    return str(find_device(name, _warn))


def _explain(options: dict[str, Any]) -> int:
    import torch

    from ganlstm_fast.training.devices import explain_devices

    name = options["device"]
    chosen = None if name is None else _device(name)
    print(explain_devices(chosen, getattr(torch, options["dtype"])))
    return 0


def _list(options: dict[str, Any]) -> int:
    if options["json"]:
        print(json.dumps({name: model.summary for name, model in MODELS.items()}, indent=2))
        return 0
    width = max(map(len, MODELS))
    for name, model in MODELS.items():
        print(f"{name:{width}}  {model.summary}")
    return 0


def _bar(quiet: bool) -> Any:
    from ganlstm_fast.training.progress import Bar

    # A log file gets a line now and then, not ten a second.
    slow = {} if sys.stderr.isatty() else {"mininterval": 15.0}
    return partial(Bar, disable=quiet, dynamic_ncols=True, **slow)


def _find_columns(config: Settings, options: dict[str, Any]) -> None:
    """Answer a typo in the name of a column before torch is loaded, which takes a while."""
    given = [name for name in options if name == "columns" or name.endswith("_column")]
    named = [*(options.get("columns") or ()), *(options[k] for k in given if k != "columns")]
    named = [name for name in named if name != NONE]
    if not named:
        return
    if config.data is None and not isinstance(config, TableOptions):
        raise InputError(f"`{given[0]}` needs a table, and no `data` is given")
    from ganlstm_fast.training.tables.read import BUNDLED, require_columns

    file = BUNDLED if config.data is None else Path(config.data).absolute()
    if file.is_file():
        require_columns(file, named)


def _train(options: dict[str, Any]) -> int:
    model = MODELS[options.pop("model")]
    quiet, as_json = options.pop("quiet", False), options.pop("json", False)
    out, resume = options.pop("out", None), options.pop("resume", None)
    silent = quiet or as_json
    if silent:
        _silence_fabric()
    config = model.config(**options) if resume is None else None
    if config is not None:
        _find_columns(config, options)
    from ganlstm_fast.training import train

    result = train(
        config,
        out=out,
        resume=resume,
        changes=options if resume is not None else None,
        progress=_bar(silent),
        announce=(lambda line: None) if silent else partial(print, flush=True),
        warn=_warn,
    )
    if not result.first:
        return 0
    if result.signal is not None:
        name = signal.Signals(result.signal).name
        print(
            f"ganlstm-fast: stopped by {name} at step {result.step}; "
            f"go on with: ganlstm-fast train --resume {result.folder}",
            file=sys.stderr,
        )
        return 128 + result.signal
    if as_json:
        print(json.dumps({"run": str(result.folder), **result.metrics}, indent=2))
    elif not quiet:
        _print_scores(result.metrics)
        _print_next(result.folder, result.step)
    return 0


def _print_next(folder: Path, steps: int) -> None:
    from ganlstm_fast.training.checkpoint import load_checkpoint

    model = model_of(load_checkpoint(folder)["kind"])
    uses = [use for use in USES if hasattr(model.load(), use)]
    files = sorted(file.name for file in folder.iterdir() if file.is_file())
    print(f"\n{folder} holds {' '.join(files)}")
    pictures = [name for name in files if name.endswith((".gif", ".png")) and name != "losses.png"]
    if pictures:
        print(f"  look at it  {' '.join(str(folder / name) for name in pictures)}")
    print(f"  one page    ganlstm-fast report {folder}")
    for use in uses:
        print(f"  use it      ganlstm-fast {use} {folder}")
    more = max(2 * steps, model.config.steps)
    print(f"  go on       ganlstm-fast train --resume {folder} --steps {more}")


def _silence_fabric() -> None:
    import logging
    import warnings

    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning_fabric")


def _print_scores(metrics: dict[str, Any]) -> None:
    from ganlstm_fast.training.undefined import undefined_lines

    if not metrics.get("reported", True):
        _warn(f"no score: {metrics['reason']}")
    for line in (*undefined_lines(metrics), *metrics.get("doubts", ())):
        _warn(line)
    if metrics["metrics"] == "none":
        return
    tables = {k: v for k, v in metrics.items() if isinstance(v, dict) and "real" in v}
    kinds = ["generated", "untrained", "untranslated", "shuffled", "noise", "real"]
    kinds = [kind for kind in kinds if any(kind in table for table in tables.values())]
    width = max(22, *(len(name) + 1 for name in tables)) if tables else 22
    wide = max(11, *(len(kind) + 1 for kind in kinds)) if kinds else 11
    if tables:
        print(f"{'':{width}}" + "".join(f"{kind:>{wide}}" for kind in kinds))
    for name, scores in tables.items():
        print(f"{name:{width}}" + "".join(f"{_number(scores.get(kind)):>{wide}}" for kind in kinds))
    for name, value in metrics.items():
        if isinstance(value, float):
            print(f"{name:22}{value:11.3f}")
    for name, line in metrics.get("told", {}).items():
        print(f"{name}: {line}")
    if metrics.get("meaning"):
        print()
    for name, line in metrics.get("meaning", {}).items():
        print(f"{name}: {line}")


def _number(value: Any) -> str:
    value = value["score"] if isinstance(value, dict) else value
    return "-" if value is None else f"{value:.3f}"


def _generate(options: dict[str, Any]) -> int:
    from ganlstm_fast.training.using import generate_to

    quiet = options.pop("quiet")
    line = generate_to(options.pop("run"), **options)
    if line and not quiet:
        print(line)
    return 0


def _evaluate(options: dict[str, Any]) -> int:
    from ganlstm_fast.training import evaluate_run

    quiet, as_json = options["quiet"], options["json"]
    metrics = evaluate_run(
        options["run"], options["metrics"], options["device"], _bar(quiet or as_json)
    )
    if as_json:
        print(json.dumps(metrics, indent=2))
    elif not quiet:
        _print_scores(metrics)
    return 0


def _score(options: dict[str, Any]) -> int:
    from ganlstm_fast.training import score
    from ganlstm_fast.training.flagged import flagged_words

    table = score(options["run"], options["data"], options["seed"], options["device"])
    code = _write_table(options, table, f"the scores of {len(table)} windows")
    if not options["quiet"]:
        # Beside the table itself, where that goes to the screen or a pipe.
        print(flagged_words(table), file=sys.stderr if options["output"] is None else sys.stdout)
    return code


def _forecast(options: dict[str, Any]) -> int:
    from ganlstm_fast.training import forecast

    given = (options[name] for name in ("run", "data", "device", "series"))
    table = forecast(*given, quantiles=options["quantiles"])
    return _write_table(options, table, f"forecasts of {len(table)} rows")


def _classify(options: dict[str, Any]) -> int:
    from ganlstm_fast.training import classify

    texts = _given_texts(options["text"]) if options["text"] else []
    table = classify(options["run"], options["data"], options["device"], texts)
    return _write_table(options, table, f"the classes of {len(table)} sequences")


def _translate(options: dict[str, Any]) -> int:
    from ganlstm_fast.training import translate

    texts = _given_texts(options["text"])
    made = translate(options["run"], texts, options["device"], options["picture"])
    if options["output"] is None:
        print("\n".join(made))
        return 0
    from ganlstm_fast.training.checkpoint import atomic_write

    with atomic_write(Path(options["output"])) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in made), encoding="utf-8")
    if not options["quiet"]:
        print(f"wrote {options['output']}: {len(made)} lines")
    return 0


def _given_texts(texts: Sequence[str]) -> list[str]:
    """The texts of the command line; without one, or with ``-``, the lines of standard input."""
    read = texts == ["-"] or not texts
    found = [text.strip() for text in (sys.stdin.read().splitlines() if read else texts)]
    if not found:
        raise InputError("expected a text, or lines of text on the standard input")
    return found


def _write_table(options: dict[str, Any], table: Any, what: str) -> int:
    from ganlstm_fast.training.outputs import write_table

    if options["output"] is None:
        write_table(sys.stdout, table)
        return 0
    write_table(Path(options["output"]), table)
    if not options["quiet"]:
        print(f"wrote {options['output']}: {what}")
    return 0


def _report(options: dict[str, Any]) -> int:
    from ganlstm_fast.training.report import write_report

    path = write_report(options["run"], options["output"], options["device"])
    if not options["quiet"]:
        print(f"wrote {path}")
    return 0


def _bench(options: dict[str, Any]) -> int:
    import ganlstm_fast

    folder = Path(ganlstm_fast.__file__).parents[1]
    if not (folder / "benchmarks" / "cases.py").exists():
        return _fail(
            "bench: the benchmarks are not part of an installed package; clone the repository, "
            "install it there with pip install -e ., and run this again"
        )
    select = ["-k", options["select"]] if options["select"] else []
    command = [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", *select]
    return subprocess.run(command, cwd=folder, check=False).returncode


COMMANDS = {
    "bench": _bench,
    "classify": _classify,
    "evaluate": _evaluate,
    "explain": _explain,
    "forecast": _forecast,
    "generate": _generate,
    "list": _list,
    "report": _report,
    "score": _score,
    "train": _train,
    "translate": _translate,
}

if __name__ == "__main__":
    sys.exit(main())

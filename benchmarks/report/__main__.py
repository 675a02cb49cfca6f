"""Result files to tables, pictures and pages; comparison of two files.

    python -m benchmarks.report                      what benchmarks/results/README.md says
    python -m benchmarks.report FILE.json [...]      tables of these files: a row a contender
    python -m benchmarks.report --update-readme      the tables of the pages, and their pictures
    python -m benchmarks.report --compare OLD NEW    what became slower or faster; or folders

Files are those of ``pytest benchmarks --save-results`` and of ``--benchmark-json``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from benchmarks.report.compare import compare
from benchmarks.report.devices import devices
from benchmarks.report.rows import RESULTS, UnknownName, collect, select
from benchmarks.report.tables import markdown


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", type=Path, help="result files or folders of them")
    what = "only these groups, cases or 'group: case'; * is any text"
    parser.add_argument("--cases", nargs="+", metavar="NAME", help=what)
    add = parser.add_mutually_exclusive_group().add_argument
    add("--update-readme", action="store_true", help="see above")
    add("--check-readme", action="store_true", help="exit with 1 if that would change a file")
    what = "of a folder, the newest results of NEW's device and kind of run"
    add("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"), help=what)
    add = parser.add_argument_group("with --compare").add_argument
    add("--fail", action="store_true", help="exit with 1 if something is slower or broken")
    what = "ignore smaller changes (default: %(default)g)"
    add("--threshold", type=float, default=5.0, metavar="PERCENT", help=what)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    of_readme = options.update_readme or options.check_readme
    if options.fail and not options.compare:
        parser.error("--fail needs --compare OLD NEW")
    if options.compare and options.files:
        parser.error("--compare takes OLD and NEW, and no further files")
    if of_readme and (options.files or options.cases):
        parser.error("the README is made of all of benchmarks/results")
    paths = options.compare or options.files or [RESULTS]
    found = [[run for run in collect([path]) if run.rows] for path in paths]
    lacking = [path for path, runs in zip(paths, found, strict=True) if not runs]
    if options.compare and found[1] and paths[0].is_dir():
        lacking = []  # nothing may be kept yet in a folder
    if lacking and (options.compare or len(lacking) == len(paths)):
        print(f"no results in {lacking[0]}", file=sys.stderr)
        return 2
    try:
        chosen = iter(select([run for runs in found for run in runs], options.cases))
        parts = [[run for run in islice(chosen, len(runs)) if run.rows] for runs in found]
        if options.compare:
            text, worse = compare(*parts, options.threshold / 100)
            print(text)
            return 1 if options.fail and worse else 0
        runs = [run for part in parts for run in part]
        if options.files:
            print("\n".join(markdown(run.environment, run.rows) for run in runs))
            return 0
        from benchmarks.report import pages  # here: it needs matplotlib

        if of_readme:
            return pages.update(runs, only_check=options.check_readme)
        print(pages.all_devices(devices(runs)))
    except UnknownName as error:
        print(error, file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"needs {error.name}: pip install -e '.[train]' has all", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Result files to Markdown, pictures and one HTML page; comparison of two files.

    python benchmarks/report.py                      benchmarks/results: a row a case, and the page
    python benchmarks/report.py FILE.json [...]      tables of these files: a row a contender
    python benchmarks/report.py --update-readme      the README's section, and all results' page
    python benchmarks/report.py --compare OLD NEW    what became slower or faster; or folders

Files are those of ``pytest benchmarks --save-results`` and of ``--benchmark-json``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rows import Environment, Row, Run, UnknownName, cases_of, collect, rate, select

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def seconds(value: float) -> str:
    """A time in three digits with its unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if value * scale >= 1 or unit == "us":
            return f"{value * scale:.3g} {unit}"
    raise AssertionError


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


# Text, or text and the number that it stands for.
Cell = str | tuple[str, float]

TIMES = ("implementation", "median", "20% .. 80%", "speed over the fastest rival")
MEMORY = ("implementation", "peak over the base", "least .. most")
FRACTION, BESIDE = "of the ceiling", "share of another's"


def text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell[0]


def fraction(environment: Environment, row: Row) -> Cell:
    """The share of the machine's multiply-adds that the row's work would need in its time."""
    available, needed = rate(environment, row), row.get("multiply_adds")
    if available is None or needed is None or "median_s" not in row:
        return "-"
    share = needed / row["median_s"] / available
    return f"{100 * share:.{0 if share >= 0.1 else 1}f}%", share


def median(row: Row) -> Cell:
    if "median_mib" in row:
        return f"{_short(row['median_mib'])} MiB", row["median_mib"]
    return seconds(row["median_s"]), row["median_s"]


def figures(row: Row) -> tuple[Cell, ...]:
    """The median, its spread, and for times the ratio to the fastest rival with its spread."""
    if "median_mib" in row:
        spread = f"{_short(row['least_mib'])} .. {_short(row['most_mib'])}"
        return median(row), (spread, row["least_mib"])
    spread: Cell = "-"
    if "p20_s" in row:
        spread = f"{seconds(row['p20_s'])} .. {seconds(row['p80_s'])}", row["p20_s"]
    ratio: Cell = "-"
    if "ratio" in row:
        is_rival = row["rival"] == row["implementation"]
        around = ""
        if "ratio_p20" in row:
            around = f" ({row['ratio_p20']:.2f} .. {row['ratio_p80']:.2f})"
        ratio = f"{row['ratio']:.2f}x{' (fastest rival)' if is_rival else around}", row["ratio"]
    return median(row), spread, ratio


def beside(row: Row) -> Cell:
    """The share of another contender's time or memory that this one takes."""
    if row.get("beside") in (None, row["implementation"]) or "beside_ratio" not in row:
        return "-"
    spread = ""
    if "beside_ratio_p20" in row:
        spread = f" ({row['beside_ratio_p20']:.2f} .. {row['beside_ratio_p80']:.2f})"
    return f"{row['beside_ratio']:.2f}x of {row['beside']}{spread}", row["beside_ratio"]


def table(rows: Sequence[tuple[Environment, Row]]) -> list[tuple[Cell, ...]]:
    """A header and a line for each row, of one group; without the columns that nobody fills."""
    is_memory = any("median_mib" in row for _, row in rows)
    header = (*(MEMORY if is_memory else TIMES), FRACTION, BESIDE)
    lines: list[tuple[Cell, ...]] = []
    for environment, row in rows:
        name, width = row["implementation"], len(header) - 3
        if row.get("skipped") or not {"median_s", "median_mib"} & row.keys():
            reason = ("-", row.get("skipped") or "not measured")
            lines.append((name, *reason, *("-" for _ in range(width - 2)), "-", "-"))
        else:
            lines.append((name, *figures(row), fraction(environment, row), beside(row)))
    kept = [
        i
        for i, title in enumerate(header)
        if title not in (FRACTION, BESIDE) or any(line[i] != "-" for line in lines)
    ]
    return [tuple(line[i] for i in kept) for line in (header, *lines)]


def text_table(environment: Environment, rows: Iterable[Row]) -> str:
    """Rows as text with aligned columns, for a terminal."""
    blocks = []
    for (group, case, dtype), members in cases_of(Run(Path(), environment, list(rows))).items():
        lines = [[*map(text, line)] for line in table([(environment, r) for r in members.rows])]
        # The reason why a row has no figures runs over its column.
        measured = [line for line in lines if line[1] != "-"]
        widths = [max(map(len, column)) for column in zip(*measured, strict=True)]
        widths[0] = max(len(line[0]) for line in lines)
        body = ("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in lines)
        title = f"{group}: {case}, {dtype}"
        blocks.append("\n".join([title, *(f"  {line.rstrip()}" for line in body)]))
    return "\n\n".join(blocks)


# name in a result file, what it is, unit, scale
CEILINGS = (
    ("multiply_adds", "float32 multiply-adds", "G/s", 1e-9),
    ("multiply_adds_1", "of one thread", "G/s", 1e-9),
    ("bf16_dot", "bf16 dot products", "G/s", 1e-9),
    ("tf32", "TF32 multiply-adds", "G/s", 1e-9),
    ("copy", "copy, read and written", "GB/s", 1e-9),
    ("ping_pong", "thread to thread", "ns", 1e9),
    ("launch", "launch of a kernel", "us", 1e6),
    ("launch_in_graph", "in a graph", "us", 1e6),
)
# What every run has, or says that it lacks.
ALWAYS = ("multiply_adds", "copy")


def ceilings(environment: Environment) -> str:
    """What the machine could do at the beginning and at the end of the run."""
    measured = list(environment.get("ceilings", {}).values())
    parts = []
    for name, what, unit, scale in CEILINGS:
        values = [c.get(name) for c in measured]
        if any(values):
            texts = ("-" if v is None else _short(v * scale) for v in values)
            parts.append(f"{what} {', then '.join(texts)} {unit}")
        elif name in ALWAYS:
            parts.append(f"{what} not measured")
    return "; ".join(parts)


def describe(environment: Environment) -> list[str]:
    """The environment and its ceilings, a line each."""
    e = environment
    isa = f"{e['isa']}, kernels for {e.get('isa_of_kernels')}, torch's for {e.get('isa_of_torch')}"
    limits = e.get("isa_limits", "default")
    return [
        f"{e['device']}, {e['threads']} threads on {e['cores']} cores, {isa}"
        + (f" (held by {limits})" if limits != "default" else ""),
        f"torch {e['torch']}, ganlstm_fast {e['ganlstm_fast']} ({e['commit']}), "
        f"Python {e['python']}; allocator: {e['allocator']}; shapes: {e['preset']}"
        + (f"; measured {e['measured']}" if "measured" in e else "")
        + (f"; {e['note']}" if "note" in e else ""),
        f"at the beginning of the run, then at its end: {ceilings(e)}",
    ]


def markdown_table(lines: Sequence[Sequence[Cell]]) -> str:
    header, *others = ("| " + " | ".join(map(text, line)) + " |" for line in lines)
    return "\n".join([header, "|---" * len(lines[0]) + "|", *others])


def markdown(run: Run) -> str:
    """A run as Markdown: one table a group, a row a contender."""
    parts = describe(run.environment)
    by_group: dict[str, list[Row]] = {}
    for row in run.rows:
        by_group.setdefault(row["group"], []).append(row)
    for group, members in by_group.items():
        header, *lines = table([(run.environment, row) for row in members])
        cases = [f"{row['case']}, {row['dtype']}" for row in members]
        before = [None, *cases]
        shown = ["" if c == b else c for c, b in zip(cases, before, strict=False)]
        whole = [("case", *header), *((c, *line) for c, line in zip(shown, lines, strict=True))]
        parts.append(f"**{group}**\n\n{markdown_table(whole)}")
    return "\n\n".join(parts) + "\n"


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, help="result files or folders of them")
    choice = parser.add_argument_group("what is reported")
    names = {"nargs": "+", "metavar": "NAME"}
    choice.add_argument("--cases", help="groups, cases or 'group: case'; * is any text", **names)
    choice.add_argument("--rivals", help="rivals that ours are put beside", **names)
    action = parser.add_argument_group("what is made of it").add_mutually_exclusive_group()
    action.add_argument("--summary", action="store_true", help="a row a case, of all files at once")
    action.add_argument("--page", type=Path, metavar="FOLDER", help="pictures and index.html there")
    action.add_argument("--update-readme", action="store_true", help="see above")
    action.add_argument("--check-readme", action="store_true", help="1 if that would change it")
    action.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("OLD", "NEW"),
        help="of a folder, the newest results of NEW's device and kind of run",
    )
    compare = parser.add_argument_group("with --compare")
    compare.add_argument("--fail", action="store_true", help="1 if something is slower or broken")
    compare.add_argument(
        "--threshold",
        type=float,
        default=5.0,
        metavar="PERCENT",
        help="a smaller change is none (default: %(default)g)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _options()
    options = parser.parse_args(arguments)
    if options.fail and not options.compare:
        parser.error("--fail needs --compare OLD NEW")
    if options.compare and options.files:
        parser.error("--compare takes OLD and NEW, and no further files")
    if (options.update_readme or options.check_readme) and (
        options.files or options.cases or options.rivals
    ):
        parser.error("the README is made of all of benchmarks/results")
    try:
        return _report(options)
    except UnknownName as error:
        print(error, file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"needs {error.name}: pip install -e '.[train]' has all", file=sys.stderr)
        return 2


def _report(options: argparse.Namespace) -> int:
    # Only what is asked for is imported: a table needs neither torch nor matplotlib.
    if options.compare:
        import compare

        return compare.main(options)
    runs = collect(options.files or [RESULTS])
    if not runs:
        print("no results", file=sys.stderr)
        return 2
    runs = [run for run in select(runs, options.cases, options.rivals) if run.rows]
    if options.update_readme or options.check_readme:
        import readme

        return readme.update(runs, only_check=options.check_readme)
    everything = not options.files
    if options.summary or (everything and not options.page):
        from devices import devices, label
        from overview import summary

        for device in devices(runs):
            about = [f"{label(run.environment)}: {run.path.name}" for run in device.runs]
            tables = map(markdown_table, summary(device).values())
            print("\n\n".join([f"**{device.name}**", "; ".join(about), *tables]))
    elif not options.page:
        for run in runs:
            print(markdown(run))
    if options.page or (everything and not options.summary):
        import page

        return page.main(runs, options.page or ROOT / "build" / "benchmarks")
    return 0


if __name__ == "__main__":
    sys.exit(main())

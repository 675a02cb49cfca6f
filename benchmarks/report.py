"""Result files to Markdown tables: ``python benchmarks/report.py FILE.json [...]``.

Reads files of ``pytest benchmarks --save-results`` and of ``--benchmark-json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Environment = dict[str, Any]

SCHEMA = 1


class BadFile(Exception):
    """A file that holds no rows of ours; the message says why."""


def read(path: Path) -> tuple[Environment, list[Row]]:
    """The environment and the rows of a result file.

    Raises:
        BadFile: not readable, not JSON, or of another schema.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadFile(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict) or content.get("ganlstm_fast_schema") != SCHEMA:
        found = content.get("ganlstm_fast_schema") if isinstance(content, dict) else None
        raise BadFile(f"{path}: schema {found}, expected {SCHEMA}")
    return content["environment"], content["rows"]


def seconds(value: float) -> str:
    """A time in three digits with its unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if value * scale >= 1 or unit == "us":
            return f"{value * scale:.3g} {unit}"
    raise AssertionError


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


TIMES = ("implementation", "median", "20% .. 80%", "speed over the fastest rival")
MEMORY = ("implementation", "peak over the base", "least .. most")
FRACTION, BESIDE = "of the FMA rate", "share of another's"


def fma_rate(environment: Environment) -> float | None:
    """The multiply-adds per second that the machine has shown in this run: the best it gave."""
    ceilings = environment.get("ceilings", {}).values()
    return max((c["multiply_adds"] for c in ceilings if c["multiply_adds"]), default=None)


def fraction(environment: Environment, row: Row) -> str:
    """The share of the machine's multiply-adds that the row's work would need in its time."""
    rate, needed = fma_rate(environment), row.get("multiply_adds")
    if rate is None or needed is None or "median_s" not in row:
        return "-"
    percent = 100 * needed / row["median_s"] / rate
    return f"{percent:.{0 if percent >= 10 else 1}f}%"


def figures(row: Row) -> tuple[str, ...]:
    """The median, its spread, and for times the ratio to the fastest rival with its spread."""
    if "median_mib" in row:
        least, most = (_short(row[f"{name}_mib"]) for name in ("least", "most"))
        return f"{_short(row['median_mib'])} MiB", f"{least} .. {most}"
    spread = f"{seconds(row['p20_s'])} .. {seconds(row['p80_s'])}"
    ratio = "-"
    if "ratio" in row:
        ratio = f"{row['ratio']:.2f}x"
        if row["rival"] == row["implementation"]:
            ratio = "1.00x (fastest rival)"
        else:
            ratio += f" ({row['ratio_p20']:.2f} .. {row['ratio_p80']:.2f})"
    return seconds(row["median_s"]), spread, ratio


def beside(row: Row) -> str:
    """The share of another contender's time or memory that this one takes."""
    if row.get("beside") in (None, row["implementation"]):
        return "-"
    spread = ""
    if "beside_ratio_p20" in row:
        spread = f" ({row['beside_ratio_p20']:.2f} .. {row['beside_ratio_p80']:.2f})"
    return f"{row['beside_ratio']:.2f}x of {row['beside']}{spread}"


def table(environment: Environment, rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A header and a line for each row, of one group; without the columns that nobody fills."""
    is_memory = any("median_mib" in row for row in rows)
    header = (*(MEMORY if is_memory else TIMES), FRACTION, BESIDE)
    lines = []
    for row in rows:
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


def grouped(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """Rows by (group, case), in the order of groups and of cases as they came."""
    rows = list(rows)
    order = {key: i for i, key in enumerate(dict.fromkeys(r["group"] for r in rows))}
    rows.sort(key=lambda r: order[r["group"]])
    keyed = groupby(rows, key=lambda r: f"{r['group']}: {r['case']}, {r['dtype']}")
    return [(title, list(members)) for title, members in keyed]


def text_table(environment: Environment, rows: Iterable[Row]) -> str:
    """Rows as text with aligned columns, for a terminal."""
    blocks = []
    for title, members in grouped(rows):
        lines = table(environment, members)
        # The reason why a row has no figures runs over its column.
        measured = [line for line in lines if line[1] != "-"]
        widths = [max(map(len, column)) for column in zip(*measured, strict=True)]
        widths[0] = max(len(line[0]) for line in lines)
        body = ("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in lines)
        blocks.append("\n".join([title, *(f"  {line.rstrip()}" for line in body)]))
    return "\n\n".join(blocks)


# name in a result file, what it is, unit, scale
CEILINGS = (
    ("multiply_adds", "float32 multiply-adds", "G/s", 1e-9),
    ("multiply_adds_1", "of one thread", "G/s", 1e-9),
    ("bf16_dot", "bf16 dot products", "G/s", 1e-9),
    ("copy", "copy, read and written", "GB/s", 1e-9),
    ("ping_pong", "thread to thread", "ns", 1e9),
)


def _ceilings(environment: Environment) -> str:
    """What the machine could do at the beginning and at the end of the run."""
    measured = list(environment.get("ceilings", {}).values())
    parts = []
    for name, what, unit, scale in CEILINGS:
        values = [None if c[name] is None else _short(c[name] * scale) for c in measured]
        known = any(values)
        text = f"{', then '.join(v or '-' for v in values)} {unit}" if known else "not measured"
        parts.append(f"{what} {text}")
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
        f"Python {e['python']}; allocator: {e['allocator']}; shapes: {e['preset']}",
        f"at the beginning of the run, then at its end: {_ceilings(e)}",
    ]


def _markdown_table(lines: Sequence[Sequence[str]]) -> str:
    header, *others = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([header, "|---" * len(lines[0]) + "|", *others])


def markdown(environment: Environment, rows: Iterable[Row]) -> str:
    """Rows as Markdown: one table a group."""
    parts = describe(environment)
    by_group: dict[str, list[Row]] = {}
    for row in rows:
        by_group.setdefault(row["group"], []).append(row)
    for group, members in by_group.items():
        header, *lines = table(environment, members)
        cases = [f"{row['case']}, {row['dtype']}" for row in members]
        before = [None, *cases]
        shown = ["" if c == b else c for c, b in zip(cases, before, strict=False)]
        whole = [("case", *header), *((c, *line) for c, line in zip(shown, lines, strict=True))]
        parts.append(f"**{group}**\n\n{_markdown_table(whole)}")
    return "\n\n".join(parts) + "\n"


def _label(environment: Environment) -> str:
    """How the run differs from the others."""
    kept = "default allocator" if environment["allocator"] == "default" else "memory kept"
    limited = environment.get("isa_limits", "default") != "default"
    return f"{kept}, {environment['isa_of_kernels']}" if limited else kept


def summary(files: Sequence[tuple[Environment, list[Row]]]) -> str:
    """One row a case: our median, the best rival's, and the ratio in each of the files.

    Of times, the ratio is how many times faster ours is; of memory, the share that ours takes.
    """
    labels = [_label(environment) for environment, _ in files]
    cases = [dict(grouped(rows)) for _, rows in files]
    blocks = {
        "fastest rival": [["work", "shape", "ours", "fastest rival", FRACTION]],
        "least rival": [["memory", "shape", "ours", "least rival"]],
    }
    for lines in blocks.values():
        lines[0] += [f"ratio, {label}" for label in labels]
    for title, members in cases[0].items():
        ours = next((r for r in members if r["ours"] and r.get("rival")), None)
        if ours is None:
            continue
        rival = next(r for r in members if r["implementation"] == ours["rival"])
        name = "ratio" if "ratio" in ours else "beside_ratio"
        ratios = []
        for of_file in cases:
            same = (r for r in of_file.get(title, []) if r["ours"] and name in r)
            row = next((r for r in same if r["implementation"] == ours["implementation"]), None)
            ratios.append("-" if row is None else f"**{row[name]:.2f}x**")
        group, _, shape = title.partition(": ")
        medians = [figures(ours)[0], f"{figures(rival)[0]} ({rival['implementation']})"]
        if name == "ratio":
            share = fraction(files[0][0], ours)
            blocks["fastest rival"].append([group, shape, *medians, share, *ratios])
        else:
            blocks["least rival"].append([group, shape, *medians, *ratios])
    about = [line for environment, _ in files for line in describe(environment)]
    tables = [_markdown_table(lines) for lines in blocks.values() if len(lines) > 1]
    return "\n\n".join([*about, *tables]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="result files (JSON)")
    parser.add_argument(
        "--summary", action="store_true", help="one table of all files, a row for each case"
    )
    options = parser.parse_args(arguments)
    good = []
    for path in options.files:
        try:
            content = read(path)
        except BadFile as reason:
            print(f"skipped {reason}", file=sys.stderr)
            continue
        good.append(content)
        if not options.summary:
            print(markdown(*content))
    if good and options.summary:
        print(summary(good), end="")
    return 0 if good else 2


if __name__ == "__main__":
    sys.exit(main())

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

SCHEMA = 1


class BadFile(Exception):
    """A file that holds no rows of ours; the message says why."""


def read(path: Path) -> tuple[dict[str, Any], list[Row]]:
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


def cells(row: Row) -> tuple[str, ...]:
    """Implementation, median, its spread, ratio to the fastest rival with its spread."""
    if row.get("skipped") or "median_s" not in row:
        return row["implementation"], "-", row.get("skipped") or "not timed", "-"
    spread = f"{seconds(row['p20_s'])} .. {seconds(row['p80_s'])}"
    ratio = "-"
    if "ratio" in row:
        ratio = f"{row['ratio']:.2f}x"
        if row["rival"] == row["implementation"]:
            ratio = "1.00x (fastest rival)"
        else:
            ratio += f" ({row['ratio_p20']:.2f} .. {row['ratio_p80']:.2f})"
    return row["implementation"], seconds(row["median_s"]), spread, ratio


HEADER = ("implementation", "median", "20% .. 80%", "speed over the fastest rival")


def grouped(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """Rows by (group, case), in the order of groups and of cases as they came."""
    rows = list(rows)
    order = {key: i for i, key in enumerate(dict.fromkeys(r["group"] for r in rows))}
    rows.sort(key=lambda r: order[r["group"]])
    keyed = groupby(rows, key=lambda r: f"{r['group']}: {r['case']}, {r['dtype']}")
    return [(title, list(members)) for title, members in keyed]


def text_table(rows: Iterable[Row]) -> str:
    """Rows as text with aligned columns, for a terminal."""
    blocks = []
    everything = grouped(rows)
    lines = [HEADER, *(cells(row) for _, members in everything for row in members)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    for title, members in everything:
        table = [HEADER, *(cells(row) for row in members)]
        body = ("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in table)
        blocks.append("\n".join([title, *(f"  {line.rstrip()}" for line in body)]))
    return "\n\n".join(blocks)


def describe(environment: dict[str, Any]) -> str:
    """The environment on one line."""
    e = environment
    return (
        f"{e['device']}, {e['isa']}, {e['threads']} of {e['cores']} cores; torch {e['torch']}, "
        f"ganlstm_fast {e['ganlstm_fast']} ({e['commit']}), Python {e['python']}, "
        f"allocator: {e['allocator']}; shapes: {e['preset']}"
    )


def markdown(environment: dict[str, Any], rows: Iterable[Row]) -> str:
    """Rows as Markdown: one table a group."""
    parts = [describe(environment)]
    by_group: dict[str, list[Row]] = {}
    for row in rows:
        by_group.setdefault(row["group"], []).append(row)
    for group, members in by_group.items():
        lines = [f"**{group}**", "", "| case | " + " | ".join(HEADER) + " |"]
        lines.append("|---" * (len(HEADER) + 1) + "|")
        before = None
        for row in members:
            case = f"{row['case']}, {row['dtype']}"
            line = [case if case != before else "", *cells(row)]
            lines.append("| " + " | ".join(line) + " |")
            before = case
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def summary(files: Sequence[tuple[dict[str, Any], list[Row]]]) -> str:
    """One row a case: our median, the fastest rival's, and the ratio in each of the files."""
    allocators = [
        "default allocator" if e["allocator"] == "default" else "memory kept" for e, _ in files
    ]
    header = ["work", "shape", "ours", "fastest rival", *(f"ratio, {a}" for a in allocators)]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    cases = [grouped(rows) for _, rows in files]
    for position, (title, members) in enumerate(cases[0]):
        ours = next(row for row in members if row["ours"])
        rival = next((r for r in members if r["implementation"] == ours.get("rival")), None)
        if rival is None:
            continue
        ratios = []
        for of_file in cases:
            same = dict(of_file).get(title, [])
            row = next((r for r in same if r["ours"] and "ratio" in r), None)
            ratios.append("-" if row is None else f"**{row['ratio']:.2f}x**")
        group, _, shape = cases[0][position][0].partition(": ")
        times = [f"{seconds(r['median_s'])}" for r in (ours, rival)]
        line = [group, shape, times[0], f"{times[1]} ({rival['implementation']})", *ratios]
        lines.append("| " + " | ".join(line) + " |")
    about = describe({**files[0][0], "allocator": ", ".join(allocators)})
    return "\n\n".join([about, "\n".join(lines)]) + "\n"


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

"""Tables of rows and of a run's environment, as lines of cells, Markdown and text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.report.rows import Environment, Row, Run, cases_of, rate

Line = Sequence[str]

TIMES = ("implementation", "median", "20% .. 80%", "speed over the fastest rival")
MEMORY = ("implementation", "peak over the base", "least .. most")
FRACTION, BESIDE = "of the ceiling", "share of another's"
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
# The ceilings that every run names, also where it lacks them.
ALWAYS = ("multiply_adds", "copy")


def seconds(value: float) -> str:
    """A time in three digits with its unit."""
    unit, scale = ("s", 1.0) if value >= 1 else ("ms", 1e3) if value * 1e3 >= 1 else ("us", 1e6)
    return f"{value * scale:.3g} {unit}"


def short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def spread(row: Row, name: str) -> str:
    """The middle 60% of a ratio's rounds, where the row has rounds."""
    if f"{name}_p20" not in row:
        return ""
    return f" ({row[f'{name}_p20']:.2f} .. {row[f'{name}_p80']:.2f})"


def fraction(environment: Environment, row: Row) -> str:
    """The share of the machine's multiply-adds that the row's work would need in its time."""
    available, needed = rate(environment, row), row.get("multiply_adds")
    if available is None or needed is None or "median_s" not in row:
        return "-"
    share = needed / row["median_s"] / available
    return f"{100 * share:.{0 if share >= 0.1 else 1}f}%"


def median(row: Row) -> str:
    return f"{short(row['median_mib'])} MiB" if "median_mib" in row else seconds(row["median_s"])


def _figures(row: Row) -> Line:
    """The median, its spread, and for times the ratio to the fastest rival with its spread."""
    if "median_mib" in row:
        return median(row), f"{short(row['least_mib'])} .. {short(row['most_mib'])}"
    around = f"{seconds(row['p20_s'])} .. {seconds(row['p80_s'])}" if "p20_s" in row else "-"
    if "ratio" not in row:
        return median(row), around, "-"
    is_rival = row["rival"] == row["implementation"]
    remark = " (fastest rival)" if is_rival else spread(row, "ratio")
    return median(row), around, f"{row['ratio']:.2f}x{remark}"


def _beside(row: Row) -> str:
    """The share of another contender's time or memory that this one takes."""
    if row.get("beside") in (None, row["implementation"]) or "beside_ratio" not in row:
        return "-"
    return f"{row['beside_ratio']:.2f}x of {row['beside']}{spread(row, 'beside_ratio')}"


def table(environment: Environment, rows: Sequence[Row]) -> list[Line]:
    """A header and a line for each row, of one group; without the columns that nobody fills."""
    header = MEMORY if any("median_mib" in row for row in rows) else TIMES
    lines = [(*header, FRACTION, BESIDE)]
    for row in rows:
        figures = ["-", row.get("skipped") or "not measured", "-"][: len(header) - 1]
        if not row.get("skipped") and {"median_s", "median_mib"} & row.keys():
            figures = [*_figures(row)]
        lines.append((row["implementation"], *figures, fraction(environment, row), _beside(row)))
    columns = [c for c in zip(*lines, strict=True) if c[0] in header or {*c[1:]} != {"-"}]
    return list(zip(*columns, strict=True))


def text_table(environment: Environment, rows: Iterable[Row]) -> str:
    """Rows as text with aligned columns, for a terminal."""
    blocks = []
    for (group, case, dtype), members in cases_of(Run(Path(), environment, list(rows))).items():
        lines = table(environment, members.rows)
        # The reason why a row has no figures runs over its column.
        measured = [line for line in lines if line[1] != "-"]
        widths = [max(map(len, column)) for column in zip(*measured, strict=True)]
        widths[0] = max(len(line[0]) for line in lines)
        body = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
        blocks.append("\n  ".join([f"{group}: {case}, {dtype}", *body]))
    return "\n\n".join(blocks)


def ceilings(environment: Environment) -> str:
    """What the machine could do at the beginning and at the end of the run."""
    measured, parts = environment.get("ceilings", {}).values(), []
    for name, what, unit, scale in CEILINGS:
        values = [c.get(name) for c in measured]
        if any(values):
            texts = ("-" if v is None else short(v * scale) for v in values)
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


def markdown_table(lines: Sequence[Line]) -> str:
    header, *others = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([header, "|---" * len(lines[0]) + "|", *others])


def markdown(run: Run) -> str:
    """A run as Markdown: one table a group, a row a contender."""
    parts = describe(run.environment)
    by_group: dict[str, list[Row]] = {}
    for row in run.rows:
        by_group.setdefault(row["group"], []).append(row)
    for group, members in by_group.items():
        header, *lines = table(run.environment, members)
        cases = [f"{row['case']}, {row['dtype']}" for row in members]
        shown = ["" if c == b else c for c, b in zip(cases, [None, *cases], strict=False)]
        whole = [("case", *header), *((c, *line) for c, line in zip(shown, lines, strict=True))]
        parts.append(f"**{group}**\n\n{markdown_table(whole)}")
    return "\n\n".join(parts) + "\n"

"""One HTML page of all results that needs nothing else: no request leaves it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

import growth
from devices import HARDWARE, Device, devices, label
from matplotlib.figure import Figure
from overview import lost, overview, summary
from pictures import made
from planned import hardware_without_a_run, without_a_run
from plotting import encoded, write
from report import Cell, describe, table, text
from rows import Case, Run, write_whole

HERE = Path(__file__).resolve().parent
Pictures = dict[str, tuple[str, Figure]]  # as ``pictures.made`` returns them

WIDE = 48  # characters; a longer cell is broken into lines

INTRODUCTION = """
Every implementation of a piece of work is first checked against float64; one that is wrong gets no
figure. The others run interleaved, in random order, in one process: a ratio is the median over
the rounds of (the rival's time / ours), so that a drift of the machine's speed cancels. Above 1x
ours is faster. Of memory the ratio is the share of the least rival's peak that ours takes. "Of the
ceiling" is the rate of the matrix products' multiply-adds alone, in what the machine has shown in
the same run. "Memory kept" is a run whose allocator gives no memory back to the system, so that
large buffers cost no page faults. A heading sorts its table; the box leaves the rows that have all
of its words.
"""


def _cell(cell: Cell) -> str:
    kind = "" if isinstance(cell, str) else f' data-value="{cell[1]:.6g}"'
    shown = escape(text(cell)).replace("**", "")
    if len(shown) > WIDE:
        kind += ' class="wide"'
    return f"<td{kind}>{shown}</td>"


def _table(lines: Sequence[Sequence[Cell]], marks: Sequence[str] = ()) -> str:
    """A header and rows; ``marks``: the class of each row."""
    head, *body = lines
    marks = marks or [""] * len(body)
    rows = [
        f"<tr{f' class={mark!r}' if mark else ''}>{''.join(map(_cell, line))}</tr>"
        for line, mark in zip(body, marks, strict=True)
    ]
    header = "".join(f'<th><button type="button">{escape(text(t))}</button></th>' for t in head)
    inside = "\n".join(rows)
    return (
        f'<div class="scroll"><table><thead><tr>{header}</tr></thead>\n'
        f"<tbody>\n{inside}\n</tbody></table></div>"
    )


def _details(title: str, inside: str, is_open: bool = False) -> str:
    opened = " open" if is_open else ""
    return f"<details{opened}><summary>{escape(title)}</summary>\n{inside}\n</details>"


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def _run(run: Run) -> str:
    about = _list(describe(run.environment))
    return f"<h4>{escape(label(run.environment))} ({escape(run.path.name)})</h4>{about}"


def _group(cases: Sequence[Case]) -> str:
    """All contenders in a group."""
    rows = [(case, row) for case in cases for row in case.rows]
    header, *lines = table([(case.run.environment, row) for case, row in rows])
    body: list[list[Cell]] = []
    for (case, row), line in zip(rows, lines, strict=True):
        body.append([f"{row['case']}, {row['dtype']}", *line, case.run.path.name])
    marks = ["ours" if row["ours"] else "" for _, row in rows]
    return _table([["shape", *header, "file"], *body], marks)


def _contenders(device: Device) -> Iterator[str]:
    for kind, cases in device.kinds.items():
        by_group: dict[str, list[Case]] = {}
        for (group, *_), case in cases.items():
            by_group.setdefault(group, []).append(case)
        groups = [_details(group, _group(members)) for group, members in by_group.items()]
        yield f"<h3>Every contender: {escape(kind)}</h3>\n" + "\n".join(groups)


def _pictures(device: Device, pictures: Pictures) -> str:
    figures = []
    for title, figure in pictures.values():
        data = base64.b64encode(encoded(figure, "svg")).decode()
        figures.append(
            f"<figure><figcaption>{escape(title)}</figcaption>"
            f'<div class="scroll"><img alt="{escape(f"{title}: {device.name}")}" '
            f'src="data:image/svg+xml;base64,{data}"></div></figure>'
        )
    return "\n".join(figures)


def _device(device: Device, anchor: str, pictures: Pictures) -> str:
    parts = [f'<section id="{anchor}"><h2>{escape(device.name)}</h2>']
    parts.append(_details("Machine, versions and runs", "".join(map(_run, device.runs))))
    parts.append("<h3>At a glance</h3><p>Least, median and most over the shapes.</p>")
    parts.append(_table(overview(device)))
    slower = lost(device)
    if slower:
        parts.append("<h3>Slower than the fastest rival</h3>" + _list(slower))
    missing = without_a_run(device)
    if missing:
        parts.append("<h3>No run on this device yet</h3>" + _list(missing))
    parts.append(f"<h3>Pictures</h3>\n{_pictures(device, pictures)}")
    slopes = growth.of_device(device)
    if slopes:
        parts.append("<h3>Cost against growth</h3><p>Time grows as the size to this exponent.</p>")
        parts.append(_table(slopes))
    parts.append("<h3>Ours beside the fastest rival</h3>")
    parts += [_table(lines) for lines in summary(device).values()]
    parts += _contenders(device)
    return "\n".join([*parts, "</section>"])


def page(runs: Sequence[Run], pictures: Sequence[Pictures]) -> str:
    """The whole page, with the pictures of each of ``devices(runs)``."""
    known = devices(runs)
    anchors = [f"device-{number}" for number in range(len(known))]
    links = "".join(
        f'<li><a href="#{anchor}">{escape(device.name)}</a></li>'
        for anchor, device in zip(anchors, known, strict=True)
    )
    parts = [_device(*these) for these in zip(known, anchors, pictures, strict=True)]
    for kind, groups in hardware_without_a_run(runs).items():
        parts.append(
            f"<section><h2>No {HARDWARE[kind]} has run these yet</h2>{_list(groups)}</section>"
        )
    style, script = (HERE / f"page.{ending}" for ending in ("css", "js"))
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>ganlstm_fast: measured</title>
<style>
{style.read_text()}</style>
</head>
<body>
<header>
<h1>ganlstm_fast: measured</h1>
<p>{escape(INTRODUCTION.strip())}</p>
<nav><ul>{links}</ul></nav>
<label>Rows with <input type="search" id="filter" placeholder="LSTM forward H128"></label>
</header>
<main>
{chr(10).join(parts)}
</main>
<script>
{script.read_text()}</script>
</body>
</html>
"""


def main(runs: Sequence[Run], folder: Path) -> int:
    """The page, and each picture as a file beside it."""
    known = devices(runs)
    pictures = [made(device) for device in known]
    for device, of_device in zip(known, pictures, strict=True):
        for name, (_, figure) in of_device.items():
            write(folder / device.slug / f"{name}.png", figure)
    write_whole(folder / "index.html", page(runs, pictures))
    print(f"wrote {folder / 'index.html'}")
    return 0

"""The blocks that the results fill in the README, in benchmarks/results/README.md and in docs.

A block stands between the lines ``<!-- NAME: COMMAND -->`` and ``<!-- end -->``; what is around
them is written by hand.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import choices
from benchmarks.cases import GROUPS
from benchmarks.report import pictures, readme, scores, text_stages
from benchmarks.report.devices import Device, devices, label
from benchmarks.report.rows import RESULTS, ROOT, Run, write_whole
from benchmarks.report.summary import by_shape, lost, overview, slopes
from benchmarks.report.tables import ceilings, describe, markdown_table

COMMAND = "python -m benchmarks.report --update-readme"
END = "<!-- end -->"
MARKER = re.compile(rf"<!-- (?:(\w+): {re.escape(COMMAND)}|end) -->")
HARDWARE = {"cpu": "CPU", "cuda": "GPU"}
AUTO = """\
What `auto` takes there, by H (these results make [measured.py]({measured})), and how many times
faster than nn.LSTM it was, named by `impl=`. Second order is a WGAN-GP critic step; in
`gradient_penalty`, `auto` takes that choice from the forward on. With `torch`, FastLSTM's own
Python comes in the place of nn.LSTM's: the rows `FastLSTM, torch` below. Rows of `FastLSTM, auto`
are of the choice before these results were in."""


class NoMarkers(Exception):
    """A page lacks the markers of its blocks, or has others."""


def _link(path: Path) -> str:
    """As benchmarks/results/README.md names a file."""
    return f"[{path.name}]({Path(os.path.relpath(path, RESULTS)).as_posix()})"


def _picture(device: Device) -> Path:
    return RESULTS / "pictures" / f"{device.slug}.png"


def of_device(device: Device) -> list[str]:
    """All that was measured on a device, from the shortest table to the longest."""
    about = next((r for r in device.runs if r.environment.get("ceilings")), device.runs[0])
    parts = [f"## {device.name}", f"torch {about.environment['torch']}; "]
    parts[-1] += ceilings(about.environment)
    if pictures.speed_ups(device):
        parts.append(f"![Speed over the fastest rival](pictures/{_picture(device).name})")
    taken, times = choices.overview(device.runs), overview(device)
    if len(taken) > 1:
        measured = os.path.relpath(choices.TABLE, RESULTS)
        parts += [AUTO.format(measured=measured), markdown_table(taken)]
        parts.append("Each implementation, whether `auto` takes it or not:")
    if len(times) > 1:
        parts.append(markdown_table(times))
    there = {row["group"] for run in device.runs for row in run.rows}
    missing = [group for group in GROUPS[device.hardware] if group not in there]
    if lost(device):
        parts.append(f"Slower than the fastest rival: {'; '.join(lost(device))}.")
    if missing:
        parts.append(f"No run on this device yet: {'; '.join(missing)}.")
    parts += map(markdown_table, by_shape(device).values())
    growth = slopes([row for case in device.cases().values() for row in case.rows])
    if growth:
        parts += ["Time grows as the size to this exponent:", markdown_table(growth)]
    for run in device.runs:
        lines = "\n".join(f"  {line}" for line in describe(run.environment)[1:])
        parts.append(f"- {_link(run.path)}: {label(run.environment)};\n{lines}")
    return parts


def all_devices(runs: Sequence[Run]) -> str:
    known = devices(runs)
    parts = [part for device in known for part in of_device(device)]
    for kind, groups in GROUPS.items():
        if kind not in {device.hardware for device in known}:
            parts.append(f"**No {HARDWARE[kind]} has run these yet:** {'; '.join(groups)}.")
    return "\n\n".join(parts)


def trainings() -> str:
    """The table of whole trainings, and the files that it is made of."""
    kept = RESULTS / "scores"
    links = ", ".join(map(_link, scores.files(kept)))
    return f"{scores.table(scores.read(kept))}\n\nFrom {links}."


def replaced(text: str, blocks: dict[str, str]) -> str:
    """``text`` with each block between its markers.

    Raises:
        NoMarkers: they are not all there, once each and in the order of ``blocks``.
    """
    if [m[1] for m in MARKER.finditer(text)] != [n for block in blocks for n in (block, None)]:
        wanted = ", ".join(f"<!-- {block}: {COMMAND} -->, {END}" for block in blocks)
        raise NoMarkers(f"needs the lines {wanted}, once each and in this order")
    for block, inside in blocks.items():
        begin = f"<!-- {block}: {COMMAND} -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n\n{inside}\n\n{END}{rest.partition(END)[2]}"
    return text


def update(runs: Sequence[Run], only_check: bool = False) -> int:
    """Write all blocks and pictures; 2 without the markers, 1 where ``only_check`` finds others."""
    blocks = {
        ROOT / "README.md": {
            "figures": readme.figures(runs),
            "measurements": readme.measurements(runs),
        },
        RESULTS / "README.md": {"devices": all_devices(runs), "trainings": trainings()},
    }
    stages = RESULTS / "text-gan" / "stages.json"
    if stages.exists():
        page = ROOT / "docs" / "text-gan.md"
        blocks[page] = {"stages": text_stages.section(json.loads(stages.read_text()))}
    changes: dict[Path, tuple[str, str]] = {}
    for page, of_page in blocks.items():
        try:
            changes[page] = page.read_text(), replaced(page.read_text(), of_page)
        except NoMarkers as error:
            print(f"{page}: {error}", file=sys.stderr)
            return 2
    stale = [page for page, (found, wanted) in changes.items() if found != wanted]
    drawn = [device for device in devices(runs) if pictures.speed_ups(device)]
    other = [d for d in drawn if pictures.digest_of(_picture(d)) != pictures.digest(d)]
    if not only_check:
        for page in stale:
            write_whole(page, changes[page][1])
        for device in other:
            pictures.write(_picture(device), device)
        return 0
    for page in stale:
        found, wanted = (text.splitlines() for text in changes[page])
        print(f"{page.relative_to(ROOT)} is not what the results give:")
        print(*difflib.unified_diff(found, wanted, lineterm="", n=0), sep="\n")
    for device in other:
        print(f"{_picture(device).relative_to(ROOT)} is not a picture of the results")
    if stale or other:
        print(f"run {COMMAND}", file=sys.stderr)
    return 1 if stale or other else 0

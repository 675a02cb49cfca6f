"""What the README says of the measurements, and all of them in benchmarks/results/README.md."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import choices
import growth
import pictures
import plotting
import scores
import text_stages
from devices import HARDWARE, Device, devices, label
from overview import lost, overview, summary
from planned import hardware_without_a_run, without_a_run
from report import RESULTS, ROOT, ceilings, describe, markdown_table
from rows import Run, write_whole

README, ALL = ROOT / "README.md", RESULTS / "README.md"
PICTURES = RESULTS / "pictures"
BEGIN = "<!-- python benchmarks/report.py --update-readme -->"
END = "<!-- end -->"


class NoMarkers(Exception):
    """The README has not both markers, once each and in their order."""


def _link(run: Run, folder: Path) -> str:
    return f"[{run.path.name}]({run.path.resolve().relative_to(folder).as_posix()})"


def of_device(device: Device, folder: Path) -> str:
    """The README's part for one device."""
    ceiled = [run for run in device.runs if run.environment.get("ceilings")] or device.runs
    first = ceiled[0].environment
    used = {case.run.path for cases in device.kinds.values() for case in cases.values()}
    links = [
        f"{_link(run, folder)} ({label(run.environment)}; {run.environment['commit']})"
        for run in device.runs
        if run.path in used
    ]
    times, memory = overview(device), summary(device).get("memory")
    parts = [f"**{device.name}** (torch {first['torch']}; {ceilings(first)})"]
    picture = _picture(device)
    if picture is not None:
        parts.append(f"![Speed over the fastest rival]({picture.relative_to(folder).as_posix()})")
    taken = choices.overview(device.runs)
    if len(taken) > 1:
        parts.append(
            "What `auto` takes there, by H (these results make "
            "[measured.py](ganlstm_fast/ops/lstm/measured.py)), and how many times faster than "
            "nn.LSTM it was, named by `impl=`. Second order is a WGAN-GP critic step; in "
            "`gradient_penalty`, `auto` takes that choice from the forward on. With `torch`, "
            "FastLSTM's own Python comes in the place of nn.LSTM's: the rows `FastLSTM, torch` "
            "below. Rows of `FastLSTM, auto` are of the choice before these results were in."
        )
        parts.append(markdown_table(taken))
        parts.append("Each implementation, whether `auto` takes it or not:")
    if len(times) > 1:
        parts.append(markdown_table(times))
    slower = lost(device)
    if slower:
        parts.append(f"Slower than the fastest rival: {'; '.join(slower)}.")
    if memory:
        parts.append(markdown_table([line[:-1] for line in memory]))
    missing = without_a_run(device)
    if missing:
        parts.append(f"No run on this device yet: {'; '.join(missing)}.")
    parts.append(f"From {', '.join(links)}.")
    for run in device.runs:
        if run.path in used and "note" in run.environment:
            parts.append(f"{run.path.name}: {run.environment['note']}.")
    return "\n\n".join(parts)


def _picture(device: Device) -> Path | None:
    """Where the committed picture of a device is; None where there is nothing to show."""
    return PICTURES / f"{device.slug}.png" if pictures.speed_ups(device) else None


def section(runs: Sequence[Run], folder: Path = ROOT) -> str:
    """What stands between the markers."""
    parts = [of_device(device, folder) for device in devices(runs)]
    for kind, names in hardware_without_a_run(runs).items():
        parts.append(f"**No {HARDWARE[kind]} has run these yet:** {'; '.join(names)}.")
    kept = RESULTS / "scores"
    trained = scores.read(kept)
    if trained:
        parts += ["**Whole trainings**, each seed from nothing, a thread each:"]
        parts.append(scores.table(trained))
        links = (
            f"[{path.name}]({path.relative_to(folder).as_posix()})" for path in scores.files(kept)
        )
        parts.append(f"From {', '.join(links)}, made by `benchmarks/scores.py`.")
    return "\n\n".join(parts)


def everything(runs: Sequence[Run]) -> str:
    """benchmarks/results/README.md."""
    parts = [
        "# All results",
        "Made by `python benchmarks/report.py --update-readme` from the files in these folders.",
    ]
    for device in devices(runs):
        parts.append(f"## {device.name}")
        for run in device.runs:
            about = "\n".join(f"  {line}" for line in describe(run.environment)[1:])
            parts.append(f"- {_link(run, RESULTS)}: {label(run.environment)};\n{about}")
        parts += map(markdown_table, summary(device).values())
        slopes = growth.of_device(device)
        if slopes:
            parts += ["Time grows as the size to this exponent:", markdown_table(slopes)]
    return "\n\n".join(parts) + "\n"


def replaced(text: str, inside: str) -> str:
    """``text`` with ``inside`` between the markers.

    Raises:
        NoMarkers: they are not both there, once each and in their order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in before + after:
        raise NoMarkers(f"needs the lines {BEGIN} and {END}, once each and in this order")
    return f"{before}{BEGIN}\n\n{inside}\n\n{END}{after}"


def update(runs: Sequence[Run], only_check: bool = False) -> int:
    """Write the README's section, benchmarks/results/README.md and the pictures; 1 if not equal."""
    try:
        wanted = {README: replaced(README.read_text(), section(runs)), ALL: everything(runs)}
        stages = RESULTS / "text-gan" / "stages.json"
        if stages.exists():
            page, shown = text_stages.PAGE, text_stages.section(json.loads(stages.read_text()))
            wanted[page] = replaced(page.read_text(), shown)
    except NoMarkers as error:
        print(f"{README}: {error}", file=sys.stderr)
        return 2
    stale = 0
    for path, text in wanted.items():
        found = path.read_text() if path.exists() else ""
        if found == text:
            continue
        stale += 1
        if only_check:
            lines = difflib.unified_diff(found.splitlines(), text.splitlines(), lineterm="", n=0)
            print(f"{path.relative_to(ROOT)} is not what the results give:", *lines, sep="\n")
        else:
            write_whole(path, text)
    for device in devices(runs):
        path = _picture(device)
        if path is None or plotting.digest_of(path) == pictures.digest(device):
            continue
        stale += 1
        if only_check:
            print(f"{path.relative_to(ROOT)} is not a picture of the results")
        else:
            plotting.write(path, pictures.speed_up(device), pictures.digest(device))
    if only_check and stale:
        print("run python benchmarks/report.py --update-readme", file=sys.stderr)
    return 1 if only_check and stale else 0

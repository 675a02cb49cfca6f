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
from benchmarks.report import pictures, scores, text_stages
from benchmarks.report.devices import Device, devices
from benchmarks.report.rows import RESULTS, ROOT, Row, Run, write_whole
from benchmarks.report.tables import ceilings, describe, markdown_table, slopes, with_spread

COMMAND = "python -m benchmarks.report --update-readme"
END = "<!-- end -->"
MARKER = re.compile(rf"(<!-- \w+: {re.escape(COMMAND)} -->|{END})")
HARDWARE = {"cpu": "CPU", "cuda": "GPU"}
AUTO = """\
What `auto` takes there, by H (these results make [measured.py]({measured})), and how many times
faster than nn.LSTM it was, named by `impl=`. Second order is a WGAN-GP critic step; in
`gradient_penalty`, `auto` takes that choice from the forward on. With `torch`, FastLSTM's own
Python comes in the place of nn.LSTM's: the rows `FastLSTM, torch` below. Rows of `FastLSTM, auto`
are of the choice before these results were in."""

# What the README shows: devices, cases, groups and implementations of result files.
CPU, GPU = "AMD EPYC (family 25, model 1), AVX2, 2 threads", "NVIDIA H100 80GB HBM3, sm_90"
SHORT = {CPU: "EPYC, AVX2, 2 threads", GPU: "H100"}
LSTM, ON_GPU, PADDED = (
    "B32 T128 I64 H128",
    "B64 T128 I64 H128",
    "B64 T200 I128 H128, lengths 1..200",
)
RESNET, SERIES = "SNGAN-ResNet-128 discriminator", "256x24x28"
AUTO_LSTM, STEP = "FastLSTM, auto", "spectral_norm_step"
PACKED, SN_TRAINING = "LSTM packed, forward+backward", "spectral norm forward+backward"
ORDERS = ("forward", "forward+backward", "second order")
TF32, BF16 = (
    [f"CUDA LSTM {work}, {of}" for work in (*ORDERS[:2], "WGAN-GP critic step")]
    for of in ("tf32", "bf16")
)
# What, device, group, case, implementation.
FIGURES = (
    ("WGAN-GP step of an LSTM critic", GPU, TF32[2], ON_GPU, AUTO_LSTM),
    ("WGAN-GP penalty of an LSTM critic", CPU, "LSTM WGAN-GP step", LSTM, "FastLSTM"),
    ("LSTM of a padded batch, forward and backward", CPU, PACKED, PADDED, "FastLSTM, lengths"),
    ("spectral norm of a discriminator, forward and backward", CPU, SN_TRAINING, RESNET, STEP),
)
ON_CPU = ("LSTM forward", "LSTM forward+backward", "LSTM WGAN-GP step")
PENALTY = (None, "penalty, value and gradient", "penalty, value and both gradients")
# What, device, the group of each of ORDERS, case, implementation.
MEASUREMENTS = (
    ("LSTM, float32", CPU, ON_CPU, LSTM, "FastLSTM"),
    ("LSTM, TF32", GPU, TF32, ON_GPU, AUTO_LSTM),
    ("LSTM, bfloat16", GPU, BF16, ON_GPU, AUTO_LSTM),
    ("spectral norm", CPU, ("spectral norm forward", SN_TRAINING, None), RESNET, STEP),
    ("penalty", CPU, PENALTY, SERIES, "penalty"),
    ("interpolate", CPU, ("interpolate", None, None), SERIES, "interpolate"),
)


class NoMarkers(Exception):
    """A page lacks the markers of its blocks, or has others."""


def _row(known: Sequence[Device], device: str, group: str | None, case: str, name: str) -> Row:
    """The newest row with a ratio; empty without one: a wrong answer has none."""
    cases = next((d.cases() for d in known if d.name == device), {})
    rows = (found.row(name) for key, found in cases.items() if key[:2] == (group, case))
    return next((row for row in rows if "ratio" in row), {})


def figures(known: Sequence[Device]) -> str:
    """What is how many times faster than the fastest rival, and the command that measures it."""
    lines = []
    for what, device, group, case, name in FIGURES:
        if row := _row(known, device, group, case, name):
            ratio = f"**{row['ratio']:.{0 if row['ratio'] >= 10 else 1}f}x** {row['rival']}"
            line = {"what": f"{what} ({case})", "times faster than": ratio, "device": SHORT[device]}
            command = f'`pytest benchmarks --benchmark-only --cases "{group}"`'
            lines.append(line | {"command": command})
    return markdown_table(lines)


def measurements(known: Sequence[Device]) -> str:
    """Ratios to the fastest rival with the middle 60% of the rounds, at each order."""
    lines = []
    for what, device, groups, case, name in MEASUREMENTS:
        rows = [_row(known, device, group, case, name) for group in groups]
        if any(rows):
            cells = [with_spread(row, "ratio") if row else "-" for row in rows]
            line = {"op": f"{what}, {case}", "device": SHORT[device]}
            lines.append(line | dict(zip(ORDERS, cells, strict=True)))
    return markdown_table(lines)


def _link(path: Path) -> str:
    """As benchmarks/results/README.md names a file."""
    return f"[{path.name}]({Path(os.path.relpath(path, RESULTS)).as_posix()})"


def _picture(device: Device) -> Path:
    return RESULTS / "pictures" / f"{device.slug}.png"


def of_device(device: Device) -> list[str]:
    """All that was measured on a device, from the shortest table to the longest."""
    about = next((r for r in device.runs if r.environment.get("ceilings")), device.runs[0])
    parts = [f"## {device.name}"]
    parts.append(f"torch {about.environment['torch']}; {ceilings(about.environment)}")
    if pictures.speed_ups(device):
        parts.append(f"![Speed over the fastest rival](pictures/{_picture(device).name})")
    if taken := choices.overview(device.runs):
        measured = os.path.relpath(choices.TABLE, RESULTS)
        parts += [AUTO.format(measured=measured), markdown_table(taken)]
        parts.append("Each implementation, whether `auto` takes it or not:")
    if overview := device.overview():
        parts.append(markdown_table(overview))
    if lost := device.lost():
        parts.append(f"Slower than the fastest rival: {'; '.join(lost)}.")
    there = {row["group"] for run in device.runs for row in run.rows}
    if missing := [group for group in GROUPS[device.hardware] if group not in there]:
        parts.append(f"No run on this device yet: {'; '.join(missing)}.")
    parts += map(markdown_table, device.by_shape())
    if growth := slopes([row for case in device.cases().values() for row in case.rows]):
        parts += ["Time grows as the size to this exponent:", markdown_table(growth)]
    for run in device.runs:
        lines = "\n".join(f"  {line}" for line in describe(run.environment)[1:])
        parts.append(f"- {_link(run.path)}: {run.kind};\n{lines}")
    return parts


def all_devices(known: Sequence[Device]) -> str:
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


def replaced(page: Path, blocks: dict[str, str]) -> str:
    """The text of a page with each block between its markers.

    Raises:
        NoMarkers: they are not all there, once each and in the order of ``blocks``.
    """
    # What is between two markers, and the markers, in turn.
    parts = MARKER.split(page.read_text())
    wanted = [mark for name in blocks for mark in (f"<!-- {name}: {COMMAND} -->", END)]
    if parts[1::2] != wanted:
        lines = ", ".join(wanted)
        raise NoMarkers(f"{page}: needs the lines {lines}, once each and in this order")
    parts[2::4] = [f"\n\n{inside}\n\n" for inside in blocks.values()]
    return "".join(parts)


def update(runs: Sequence[Run], only_check: bool = False) -> int:
    """Write all blocks and pictures; 2 without the markers, 1 where ``only_check`` finds others."""
    known, stages = devices(runs), RESULTS / "text-gan" / "stages.json"
    of_readme = {"figures": figures(known), "measurements": measurements(known)}
    of_results = {"devices": all_devices(known), "trainings": trainings()}
    blocks = {ROOT / "README.md": of_readme, RESULTS / "README.md": of_results}
    if stages.exists():
        of_stages = {"stages": text_stages.section(json.loads(stages.read_text()))}
        blocks[ROOT / "docs" / "text-gan.md"] = of_stages
    try:
        wanted = {page: replaced(page, of_page) for page, of_page in blocks.items()}
    except NoMarkers as error:
        print(error, file=sys.stderr)
        return 2
    stale = {page: text for page, text in wanted.items() if page.read_text() != text}
    drawn = {_picture(device): device for device in known if pictures.speed_ups(device)}
    other = {p: d for p, d in drawn.items() if pictures.digest_of(p) != pictures.digest(d)}
    if not only_check:
        for page, text in stale.items():
            write_whole(page, text)
        for path, device in other.items():
            pictures.write(path, device)
        return 0
    for page, text in stale.items():
        print(f"{page.relative_to(ROOT)} is not what the results give:")
        old, new = page.read_text().splitlines(), text.splitlines()
        print(*difflib.unified_diff(old, new, lineterm="", n=0), sep="\n")
    for path in other:
        print(f"{path.relative_to(ROOT)} is not a picture of the results")
    if stale or other:
        print(f"run {COMMAND}", file=sys.stderr)
    return 1 if stale or other else 0

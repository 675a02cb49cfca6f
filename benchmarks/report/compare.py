"""What has become slower or faster from one result file to another, beyond the spread.

Two runs are never of the same machine: its speed drifts, and others use it. So not a time is
compared, but its ratio to the time of a rival in the same round: the fastest rival in OLD that both
files have. (Where they have none in common, the time in units of the run's ceiling.) A row has
become slower or faster where

- the median ratio has changed by more than a threshold,
- each file's median lies outside the middle 60% of the other's rounds,
- the intervals in which the medians lie with 95% confidence do not touch (those of the sign test,
  which assumes only that the ratios are independent; as neighbours in time are not, many rounds
  count as at most ``BLOCKS``, the medians of successive blocks), and
- its own time, in units of the run's ceiling where there is one, has changed the same way by more
  than the threshold. Else it is unclear: the rival has changed.

Memory repeats well: it has changed where the ranges over the processes do not touch.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.report.devices import devices
from benchmarks.report.rows import Case, Key, Row, Run, cases_of, collect, percentiles, rate, select
from benchmarks.report.tables import describe, markdown_table, seconds

BLOCKS = 20
CONFIDENCE = 0.95
# Of an environment: where these differ, they may be the reason.
TOLD = ("device", "threads", "allocator", "isa_limits", "torch", "commit")
SLOWER, FASTER, SAME, LOST, UNCLEAR = "slower", "faster", "same", "lost", "unclear"
MORE, LESS = "more memory", "less memory"
BAD = (SLOWER, MORE, LOST)
VERDICTS = (*BAD, FASTER, LESS, UNCLEAR, SAME)
HEADER = ("work", "shape", "of ours", "before", "after", "takes", "itself", "", "relative to")

Cases = dict[Key, Case]


@dataclass(frozen=True)
class Change:
    """What became of one row.

    Attributes:
        verdict: one of those above.
        factor: NEW's time or memory over OLD's, in units of the rival; 1 for what is lost.
        own: the same of its own time, in units of the run's ceiling.
        against: what both are relative to; of what is lost, the reason.
        before, after: as text.
    """

    work: Key
    implementation: str
    verdict: str
    factor: float = 1.0
    own: float | None = None
    against: str = ""
    before: str = "-"
    after: str = "-"


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the median lies, by the sign test; between all values where they are few."""
    n, outside, below = len(values), 0, 0.0
    while (below := below + math.comb(n, outside) / 2**n) <= (1 - CONFIDENCE) / 2:
        outside += 1
    ordered = sorted(values)
    return ordered[max(outside - 1, 0)], ordered[n - max(outside, 1)]


def blocks(values: Sequence[float]) -> list[float]:
    """Medians of successive values: what is left of them when neighbours are alike."""
    parts = np.array_split(np.asarray(values), min(len(values), BLOCKS))
    return [float(np.median(part)) for part in parts]


def verdict(old: Sequence[float], new: Sequence[float], threshold: float) -> tuple[str, float]:
    """Of logarithms of ratios, round by round: what became of them, and by which factor."""
    (low_old, at_old, high_old), (low_new, at_new, high_new) = map(percentiles, (old, new))
    factor = math.exp(at_new - at_old)
    within = low_old <= at_new <= high_old or low_new <= at_old <= high_new
    (from_old, to_old), (from_new, to_new) = (interval(blocks(v)) for v in (old, new))
    touch = from_new <= to_old and from_old <= to_new
    return (SAME if within or touch else _direction(factor, threshold)), factor


def _direction(factor: float, threshold: float, up: str = SLOWER, down: str = FASTER) -> str:
    if max(factor, 1 / factor) <= 1 + threshold:
        return SAME
    return up if factor > 1 else down


def _common_rival(old: Case, new: Case) -> str | None:
    """The fastest in ``old`` of those that have times in both."""
    there = {row["implementation"] for row in new.rows if "times_s" in row}
    rivals = [row for row in old.rows if not row["ours"] and "times_s" in row]
    both = [row for row in rivals if row["implementation"] in there]
    return min(both, key=lambda row: row["median_s"], default={}).get("implementation")


def _of_time(old: Case, new: Case, before: Row, after: Row, threshold: float) -> Change:
    sides, rival = ((old, before), (new, after)), _common_rival(old, new)
    rates = [rate(case.run.environment, row) for case, row in sides]
    units = rates if None not in rates else [1.0, 1.0]
    own = [np.log(u * np.array(r["times_s"])) for u, (_, r) in zip(units, sides, strict=True)]
    of_own = math.exp(np.median(own[1]) - np.median(own[0]))
    name = (before["group"], before["case"], before["dtype"]), before["implementation"]
    if rival is None:
        what, factor = verdict(*own, threshold)
        texts = [seconds(row["median_s"]) for _, row in sides]
        return Change(*name, what, factor, factor, "no rival in both", *texts)
    ratios = [np.log(row["times_s"]) - np.log(case.row(rival)["times_s"]) for case, row in sides]
    what, factor = verdict(*ratios, threshold)
    if what != SAME and what != _direction(of_own, threshold):
        what = UNCLEAR
    speeds = [f"{math.exp(-np.median(values)):.2f}x" for values in ratios]
    return Change(*name, what, factor, of_own, rival, *speeds)


def _of_memory(work: Key, before: Row, after: Row, threshold: float) -> Change | None:
    """Of processes, or of a GPU's allocator; None where neither was measured in both."""
    for names in (("median_mib", "least_mib", "most_mib"), ("peak_mib",) * 3):
        if before.get(names[0]) and after.get(names[0]):
            (old, *_), (new, *_) = at = [[row[name] for name in names] for row in (before, after)]
            apart = at[1][1] > at[0][2] or at[0][1] > at[1][2]
            what = _direction(new / old, threshold, MORE, LESS) if apart else SAME
            texts = (f"{mib:.3g} MiB" for mib in (old, new))
            name = f"{before['implementation']}, memory"
            return Change(work, name, what, new / old, None, "", *texts)
    return None


def changes(old: Cases, new: Cases, threshold: float) -> list[Change]:
    """Of ours, everything that both have, and what OLD measured and NEW could not."""
    found: list[Change | None] = []
    for work in (k for k in old if k in new):
        after_by_name = {row["implementation"]: row for row in new[work].rows}
        for before in (row for row in old[work].rows if row["ours"]):
            name = before["implementation"]
            after = after_by_name.get(name)
            if after is None or not {"times_s", "median_mib"} & before.keys():
                continue
            if after.get("skipped"):
                found.append(Change(work, name, LOST, against=after["skipped"]))
                continue
            if "times_s" in before and "times_s" in after:
                found.append(_of_time(old[work], new[work], before, after, threshold))
            found.append(_of_memory(work, before, after, threshold))
    return sorted(filter(None, found), key=lambda c: (c.verdict != LOST, -c.factor))


def only_in_one(these: Cases, others: Cases) -> list[str]:
    """What the others lack: whole cases, by group, and implementations in a case of both."""
    whole: dict[str, list[str]] = {}
    parts = []
    for work, case in these.items():
        group, shape, _ = work
        if work not in others:
            whole.setdefault(group, []).append(shape)
            continue
        there = {row["implementation"] for row in others[work].rows}
        names = [n for r in case.rows if (n := r["implementation"]) not in there]
        parts += [f"{group}: {shape}: {', '.join(names)}"] if names else []
    return [*(f"{group}: {'; '.join(shapes)}" for group, shapes in whole.items()), *parts]


def _line(change: Change) -> tuple[str, ...]:
    moved = "-" if change.before == "-" else f"{100 * (change.factor - 1):+.0f}%"
    own = "-" if change.own is None else f"{100 * (change.own - 1):+.0f}%"
    mark = change.verdict if change.verdict == SAME else f"**{change.verdict}**"
    where = (*change.work[:2], change.implementation)
    return *where, change.before, change.after, moved, own, mark, change.against


def report(old: Cases, new: Cases, threshold: float) -> tuple[str, bool]:
    """The text, and whether something has become worse."""
    found = changes(old, new, threshold)
    counts = {what: sum(c.verdict == what for c in found) for what in VERDICTS}
    parts = ["; ".join(f"{n} {what}" for what, n in counts.items() if n) or "nothing in common"]
    if found:
        parts.append(markdown_table([HEADER, *map(_line, found)]))
    for name, missing in (("OLD", only_in_one(old, new)), ("NEW", only_in_one(new, old))):
        if missing:
            parts.append("\n".join([f"only in {name}:", *(f"- {title}" for title in missing)]))
    return "\n\n".join(parts), any(c.verdict in BAD for c in found)


def _environments(old: Run, new: Run) -> str:
    lines = []
    for name, run in (("OLD", old), ("NEW", new)):
        lines += [f"{name}: {run.path}", *(f"  {line}" for line in describe(run.environment))]
    for name in TOLD:
        a, b = (run.environment.get(name) for run in (old, new))
        if None not in (a, b) and a != b:
            lines.append(f"they differ in {name}: {a}, then {b}")
    rates = [rate(run.environment, {"dtype": "float32"}) for run in (old, new)]
    if None not in rates and max(rates) > 1.2 * min(rates):
        percent = 100 * rates[1] / rates[0]
        lines.append(f"NEW's machine gave {percent:.0f}% of OLD's multiply-adds: was it shared?")
    return "\n".join(lines)


def pairs(old: Sequence[Run], new: Sequence[Run]) -> Iterator[tuple[Run, Cases, Run, Cases]]:
    """What belongs together: two files, whatever they are of; else by device and kind of run."""
    if len(old) == len(new) == 1:
        yield old[0], cases_of(old[0]), new[0], cases_of(new[0])
        return
    before = {(d.name, kind): cases for d in devices(old) for kind, cases in d.kinds.items()}
    for device in devices(new):
        for kind, cases in device.kinds.items():
            known = before.get((device.name, kind))
            if known is not None:
                yield next(iter(known.values())).run, known, next(iter(cases.values())).run, cases


def main(options: argparse.Namespace) -> int:
    """0; 1 with ``--fail`` where something is worse; 2 where a file cannot be read."""
    paths: tuple[Path, Path] = options.compare
    old, new = (collect([path]) for path in paths)
    unread = [p for p, runs in zip(paths, (old, new), strict=True) if not runs and not p.is_dir()]
    if unread or not new:
        print(f"no results in {unread[0] if unread else paths[1]}", file=sys.stderr)
        return 2
    chosen = select([*old, *new], options.cases, options.rivals)
    old, new = ([r for r in part if r.rows] for part in (chosen[: len(old)], chosen[len(old) :]))
    worse, found = False, list(pairs(old, new))
    for before, old_cases, after, new_cases in found:
        text, is_worse = report(old_cases, new_cases, options.threshold / 100)
        print(f"{_environments(before, after)}\n\n{text}\n")
        worse |= is_worse
    if not found:
        names = "; ".join(device.name for device in devices(new))
        print(f"nothing under {paths[0]} was measured on the same device in the same way: {names}")
    return 1 if options.fail and worse else 0

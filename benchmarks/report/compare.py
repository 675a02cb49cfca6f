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

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.report.devices import devices
from benchmarks.report.rows import Case, Cases, Row, Run, cases_of, key, percentiles, rate
from benchmarks.report.tables import Line, describe, markdown_table, seconds

BLOCKS = 20
CONFIDENCE = 0.95
# Of an environment: where these differ, they may be the reason.
TOLD = ("device", "threads", "allocator", "isa_limits", "torch", "commit")
SLOWER, FASTER, SAME, LOST, UNCLEAR = "slower", "faster", "same", "lost", "unclear"
MORE, LESS = "more memory", "less memory"
BAD = (SLOWER, MORE, LOST)
VERDICTS = (*BAD, FASTER, LESS, UNCLEAR, SAME)
HEADER = ("work", "shape", "of ours", "before", "after", "takes", "itself", "", "relative to")


class Change(NamedTuple):
    """What became of one row: NEW's time or memory over OLD's.

    ``factor`` is in units of the rival ``against``, ``own`` in units of the run's ceiling; of what
    is lost, ``against`` is the reason.
    """

    row: Row  # OLD's
    implementation: str
    verdict: str
    factor: float = 1.0
    own: float | None = None
    against: str = ""
    before: str = "-"
    after: str = "-"

    def line(self) -> Line:
        moved, itself = (
            "-" if factor is None or self.verdict == LOST else f"{100 * (factor - 1):+.0f}%"
            for factor in (self.factor, self.own)
        )
        verdict = self.verdict if self.verdict == SAME else f"**{self.verdict}**"
        work = self.row["group"], self.row["case"], self.implementation
        cells = (*work, self.before, self.after, moved, itself)
        return dict(zip(HEADER, (*cells, verdict, self.against), strict=True))


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
    rivals = [row for row in old.rows if not row["ours"] and "times_s" in row]
    both = [row for row in rivals if "times_s" in new.row(row["implementation"])]
    return min(both, key=lambda row: row["median_s"], default={}).get("implementation")


def _of_time(old: Case, new: Case, name: str, threshold: float) -> Change:
    cases, rival = (old, new), _common_rival(old, new)
    rows = [case.row(name) for case in cases]
    rates = [rate(case.run.environment, case.row(name)) for case in cases]
    units = rates if None not in rates else [1.0, 1.0]
    own = [np.log(u * np.array(row["times_s"])) for u, row in zip(units, rows, strict=True)]
    of_own = math.exp(np.median(own[1]) - np.median(own[0]))
    texts, ratios = [seconds(row["median_s"]) for row in rows], own
    if rival is not None:
        ratios = [np.log(c.row(name)["times_s"]) - np.log(c.row(rival)["times_s"]) for c in cases]
        texts = [f"{math.exp(-np.median(values)):.2f}x" for values in ratios]
    what, factor = verdict(*ratios, threshold)
    if what != SAME and what != _direction(of_own, threshold):
        what = UNCLEAR
    return Change(rows[0], name, what, factor, of_own, rival or "no rival in both", *texts)


def _of_memory(before: Row, after: Row, threshold: float) -> Iterator[Change]:
    """Of processes, or of a GPU's allocator; nothing where neither was measured in both."""
    for names in (("least_mib", "median_mib", "most_mib"), ("peak_mib",) * 3):
        if before.get(names[0]) and after.get(names[0]):
            (low, old, high), (least, new, most) = ([r[n] for n in names] for r in (before, after))
            apart = least > high or low > most
            what = _direction(new / old, threshold, MORE, LESS) if apart else SAME
            name = f"{before['implementation']}, memory"
            texts = (f"{mib:.3g} MiB" for mib in (old, new))
            yield Change(before, name, what, new / old, None, "", *texts)
            return


def changes(old: Cases, new: Cases, threshold: float) -> list[Change]:
    """Of ours, everything that both have, and what OLD measured and NEW could not."""
    found: list[Change] = []
    rows = [row for work in old if work in new for row in old[work].rows if row["ours"]]
    for before in (row for row in rows if {"times_s", "median_mib"} & row.keys()):
        work, name = key(before), before["implementation"]
        after = new[work].row(name)
        if after.get("skipped"):
            found.append(Change(before, name, LOST, against=after["skipped"]))
            continue
        if "times_s" in before and "times_s" in after:
            found.append(_of_time(old[work], new[work], name, threshold))
        found += _of_memory(before, after, threshold)
    return sorted(found, key=lambda c: (c.verdict != LOST, -c.factor))


def only_in(these: Cases, others: Cases) -> list[str]:
    """What the others lack: whole cases, by group, and implementations in a case of both."""
    whole: dict[str, list[str]] = {}
    parts = []
    for work, case in these.items():
        if work not in others:
            whole.setdefault(work[0], []).append(work[1])
            continue
        names = [row["implementation"] for row in case.rows]
        if lacking := ", ".join(name for name in names if not others[work].row(name)):
            parts.append(f"- {work[0]}: {work[1]}: {lacking}")
    return [*(f"- {group}: {'; '.join(cases)}" for group, cases in whole.items()), *parts]


def report(old: Cases, new: Cases, threshold: float) -> tuple[str, bool]:
    """The text, and whether something has become worse."""
    found = changes(old, new, threshold)
    counts = Counter(change.verdict for change in found)
    told = "; ".join(f"{counts[what]} {what}" for what in VERDICTS if counts[what])
    parts = [told or "nothing in common", markdown_table([change.line() for change in found])]
    for name, missing in (("OLD", only_in(old, new)), ("NEW", only_in(new, old))):
        if missing:
            parts.append("\n".join([f"only in {name}:", *missing]))
    return "\n\n".join(filter(None, parts)), any(c.verdict in BAD for c in found)


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


def compare(old: Sequence[Run], new: Sequence[Run], threshold: float) -> tuple[str, bool]:
    """``report`` of two files, whatever they are of; of more, by device and kind of run."""
    sides = [
        {
            (device.name, kind): cases
            for device in devices(runs)
            for kind, cases in device.kinds.items()
        }
        for runs in (old, new)
    ]
    if len(old) == len(new) == 1:
        sides = [{"": cases_of(run)} for run in (*old, *new)]
    texts, worse = [], False
    for kind in (kind for kind in sides[1] if kind in sides[0]):
        text, is_worse = report(sides[0][kind], sides[1][kind], threshold)
        runs = (next(iter(side[kind].values())).run for side in sides)
        texts.append(f"{_environments(*runs)}\n\n{text}\n")
        worse |= is_worse
    names = "; ".join(device.name for device in devices(new))
    nothing = f"nothing in OLD was measured on the same device in the same way: {names}"
    return "\n".join(texts) or nothing, worse

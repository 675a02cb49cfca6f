"""The results of a device: the newest of each case in each kind of run, and what they amount to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.report.rows import Case, Cases, Row, Run, cases_of, percentiles, relation
from benchmarks.report.tables import FRACTION, Line, fraction, median

PRESETS = ("quick", "default", "large", "full")
# A row's family, by what its ``shapes`` have: the first name that is there.
FAMILIES = {
    "T": "LSTM",
    "weights": "Spectral norm",
    "samples": "Gradient penalty",
    "scores": "Losses",
    "model": "Training steps",
}
OTHERS = "Other"
# Columns of the tables by shape.
TIMES, MEMORY = ("work", "median", "fastest rival"), ("memory", "peak", "least rival")


@dataclass(frozen=True)
class Device:
    """What was measured on a device: by label of the run's kind, each case once."""

    name: str
    hardware: str  # "cpu" or "cuda"
    runs: list[Run]
    kinds: dict[str, Cases]

    @property
    def slug(self) -> str:
        """A name for files."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    def cases(self) -> Cases:
        """Every case, from the first kind of run that has it; families and groups together."""
        found: Cases = {}
        for of_kind in self.kinds.values():
            for k, case in of_kind.items():
                found.setdefault(k, case)
        groups = list(dict.fromkeys(group for group, *_ in found))
        families = [*FAMILIES.values(), OTHERS]
        place = lambda k: (families.index(family(found[k].rows[0])), groups.index(k[0]))  # noqa: E731
        return {k: found[k] for k in sorted(found, key=place)}

    def ours(self) -> Iterator[tuple[Case, Row, dict[str, float]]]:
        """Each of ours that was measured beside a rival, and its ratio in each kind of run."""
        for key, case in self.cases().items():
            for row in (row for row in case.rows if row["ours"] and relation(row) is not None):
                name = row["implementation"]
                same = {kind: of[key].row(name) for kind, of in self.kinds.items() if key in of}
                found = {kind: relation(of) for kind, of in same.items()}
                yield case, row, {kind: r for kind, r in found.items() if r is not None}

    def by_shape(self) -> list[list[Line]]:
        """A table of times and one of memory: a line for each of ours in each case.

        The medians are those of the first kind of run that has the case, in the file that is named;
        the ratio is that of each kind. Of times, it is how many times faster ours is; of memory,
        the share that ours takes.
        """
        times, memory = [], []
        for case, row, ratios in self.ours():
            of_memory = "median_mib" in row
            work, at, rival = MEMORY if of_memory else TIMES
            line = {work: row["group"], "shape": row["case"], "ours": row["implementation"]}
            line |= {at: median(row), rival: f"{median(case.row(row['rival']))} ({row['rival']})"}
            if not of_memory:
                line[FRACTION] = fraction(case.run.environment, row)
            for kind in self.kinds:
                line[f"ratio, {kind}"] = f"**{ratios[kind]:.2f}x**" if kind in ratios else "-"
            (memory if of_memory else times).append(line | {"file": case.run.path.name})
        return [table for table in (times, memory) if table]

    def overview(self) -> list[Line]:
        """A line for each of ours in each group: least, median and most ratio over the shapes."""
        found: dict[tuple[str, str], list[dict[str, float]]] = {}
        for _, row, ratios in self.ours():
            if "ratio" in row:
                found.setdefault((row["group"], row["implementation"]), []).append(ratios)
        lines = []
        for (group, implementation), shapes in found.items():
            line = {"work": group, "ours": implementation, "shapes": str(len(shapes))}
            of_kinds = {k: _range([s[k] for s in shapes if k in s]) for k in self.kinds}
            lines.append(line | of_kinds)
        return lines

    def lost(self) -> list[str]:
        """The cases in which the first of ours is slower than a rival, as text."""
        firsts = [case.first or {} for case in self.cases().values()]
        return [
            f"{row['group']}, {row['case']} ({row['implementation']}, {row['ratio']:.2f}x)"
            for row in firsts
            if row.get("ratio", 1) < 1
        ]


def _range(ratios: list[float]) -> str:
    if len(ratios) < 2:
        return f"**{ratios[0]:.2f}x**" if ratios else "-"
    return f"{min(ratios):.2f} .. **{percentiles(ratios)[1]:.2f}x** .. {max(ratios):.2f}"


def family(row: Row) -> str:
    return next((name for shape, name in FAMILIES.items() if shape in row["shapes"]), OTHERS)


def _worth(run: Run) -> tuple[Any, ...]:
    """What sorts runs by how much they are worth: the greatest is taken.

    A quick run comes last. A file without a date is older than any with one, and older still
    without ceilings.
    """
    e = run.environment
    preset = PRESETS.index(e["preset"]) if e.get("preset") in PRESETS else -1
    return preset > 0, e.get("measured", ""), bool(e.get("ceilings")), preset, len(run.rows)


def devices(runs: Iterable[Run]) -> list[Device]:
    """The runs by device; of a case that several runs of one kind have, the newest is taken."""
    by_device: dict[str, list[Run]] = {}
    for run in runs:
        by_device.setdefault(run.device, []).append(run)
    found = []
    for name, members in sorted(by_device.items()):
        # The longest first: it gives the order of groups and cases.
        members.sort(key=lambda run: (-len(run.rows), str(run.path)))
        kinds: dict[str, Cases] = {}
        for run in members:
            cases = kinds.setdefault(run.kind, {})
            for k, case in cases_of(run).items():
                if k not in cases or _worth(run) > _worth(cases[k].run):
                    cases[k] = case
        # Labels in order of the alphabet: the default allocator is the first of them.
        hardware = "cuda" if "multiprocessors" in members[0].environment else "cpu"
        found.append(Device(name, hardware, members, dict(sorted(kinds.items()))))
    return found

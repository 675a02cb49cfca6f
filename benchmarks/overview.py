"""All runs of a device in a few lines: by shape, by piece of work, and what is lost to a rival."""

from __future__ import annotations

from devices import Device
from report import FRACTION, Cell, fraction, median, text
from rows import Case, Key, Row, percentiles, relation


def summary(device: Device) -> dict[str, list[list[Cell]]]:
    """Tables of "times" and of "memory": a row for each of ours in each case.

    The medians are those of the first kind of run that has the case, in the file that is named; the
    ratio is that of each kind. Of times, it is how many times faster ours is; of memory, the share
    that ours takes.
    """
    ratios = [f"ratio, {kind}" for kind in device.kinds]
    tables: dict[str, list[list[Cell]]] = {
        "times": [["work", "shape", "ours", "median", "fastest rival", FRACTION, *ratios, "file"]],
        "memory": [["memory", "shape", "ours", "peak", "least rival", *ratios, "file"]],
    }
    for key, case in device.cases().items():
        for row in case.rows:
            if not row["ours"] or relation(row) is None:
                continue
            rival = next(r for r in case.rows if r["implementation"] == row["rival"])
            line = [*key[:2], row["implementation"], median(row)]
            line.append((f"{text(median(rival))} ({row['rival']})", median(rival)[1]))
            if "median_s" in row:
                line.append(fraction(case.run.environment, row))
            line += [*_ratios(device, row, key), case.run.path.name]
            tables["memory" if "median_mib" in row else "times"].append(line)
    return {name: lines for name, lines in tables.items() if len(lines) > 1}


def _ratios(device: Device, row: Row, key: Key) -> list[Cell]:
    """Of one of ours, in each kind of run."""
    found: list[Cell] = []
    for cases in device.kinds.values():
        rows = cases[key].rows if key in cases else []
        same = (r for r in rows if r["implementation"] == row["implementation"])
        values = [v for v in map(relation, same) if v is not None]
        found.append((f"**{values[0]:.2f}x**", values[0]) if values else "-")
    return found


def _of_ratios(device: Device, group: str, implementation: str) -> list[Cell]:
    """Least, median and most over the shapes of a group, in each kind of run."""
    found: list[Cell] = []
    for cases in device.kinds.values():
        ratios = [
            value
            for (of_case, *_), case in cases.items()
            for row in case.rows
            if of_case == group and row["implementation"] == implementation
            if (value := relation(row)) is not None
        ]
        if not ratios:
            found.append("-")
        elif len(ratios) == 1:
            found.append((f"**{ratios[0]:.2f}x**", ratios[0]))
        else:
            middle = percentiles(ratios)[1]
            range_ = f"{min(ratios):.2f} .. **{middle:.2f}x** .. {max(ratios):.2f}"
            found.append((range_, middle))
    return found


def _groups(device: Device) -> list[tuple[str, str, list[Case]]]:
    """By group and implementation of ours, the cases that have it beside a rival."""
    found: dict[tuple[str, str], list[Case]] = {}
    for (group, *_), case in device.cases().items():
        for row in case.rows:
            if row["ours"] and relation(row) is not None:
                found.setdefault((group, row["implementation"]), []).append(case)
    return [(*names, cases) for names, cases in found.items()]


def overview(device: Device) -> list[list[Cell]]:
    """A row for each of ours in each group: its ratios over the shapes."""
    lines: list[list[Cell]] = [["work", "ours", "shapes", *device.kinds]]
    for group, implementation, cases in _groups(device):
        if "ratio" in next(r for r in cases[0].rows if r["implementation"] == implementation):
            ratios = _of_ratios(device, group, implementation)
            lines.append([group, implementation, (str(len(cases)), len(cases)), *ratios])
    return lines


def lost(device: Device) -> list[str]:
    """The cases in which the first of ours is slower than a rival, as text."""
    found = []
    for (group, shape, _), case in device.cases().items():
        row = case.first
        if row is not None and "ratio" in row and row["ratio"] < 1:
            found.append(f"{group}, {shape} ({row['implementation']}, {row['ratio']:.2f}x)")
    return found

"""The runs of a device side by side, and the newest result of each case."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.report.rows import Case, Environment, Key, Row, Run, cases_of

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


@dataclass(frozen=True)
class Device:
    """What was measured on a device: by label of the run's kind, each case once."""

    name: str
    hardware: str  # "cpu" or "cuda"
    runs: list[Run]
    kinds: dict[str, dict[Key, Case]]

    @property
    def slug(self) -> str:
        """A name for files."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    def cases(self) -> dict[Key, Case]:
        """Every case, from the first kind of run that has it; families and groups together."""
        found: dict[Key, Case] = {}
        for of_kind in self.kinds.values():
            for k, case in of_kind.items():
                found.setdefault(k, case)
        groups = list(dict.fromkeys(group for group, *_ in found))
        families = [*FAMILIES.values(), OTHERS]

        def place(item: tuple[Key, Case]) -> tuple[int, int]:
            return families.index(family(item[1].rows[0])), groups.index(item[0][0])

        return dict(sorted(found.items(), key=place))


def family(row: Row) -> str:
    return next((name for shape, name in FAMILIES.items() if shape in row["shapes"]), OTHERS)


def label(environment: Environment) -> str:
    """The kind of a run: how it differs from other runs on the device."""
    kept = "default allocator" if environment["allocator"] == "default" else "memory kept"
    if environment.get("isa_limits", "default") == "default":
        return kept
    return f"{kept}, {environment.get('isa_of_kernels')}"


def device_name(environment: Environment) -> str:
    e = environment
    threads = f", {e['threads']} thread{'s' if e['threads'] != 1 else ''}"
    return f"{e['device']}, {e['isa']}{'' if 'multiprocessors' in e else threads}"


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
        by_device.setdefault(device_name(run.environment), []).append(run)
    found = []
    for name, members in sorted(by_device.items()):
        # The longest first: it gives the order of groups and cases.
        members.sort(key=lambda run: (-len(run.rows), str(run.path)))
        kinds: dict[str, dict[Key, Case]] = {}
        for run in members:
            cases = kinds.setdefault(label(run.environment), {})
            for k, case in cases_of(run).items():
                if k not in cases or _worth(run) > _worth(cases[k].run):
                    cases[k] = case
        ordered = sorted(kinds.items(), key=lambda kind: (kind[0] != "default allocator", kind[0]))
        hardware = "cuda" if "multiprocessors" in members[0].environment else "cpu"
        found.append(Device(name, hardware, members, dict(ordered)))
    return found

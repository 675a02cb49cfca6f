"""Several runs of one device side by side, and of each case the newest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rows import FAMILIES, OTHERS, Case, Environment, Key, Run, cases_of, family

HARDWARE = {"cpu": "CPU", "cuda": "GPU"}
PRESETS = ("quick", "default", "large", "full")


@dataclass(frozen=True)
class Device:
    """What has been measured on a device: by label of the run's kind, each case once."""

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
            for key, case in of_kind.items():
                found.setdefault(key, case)
        groups = list(dict.fromkeys(group for group, *_ in found))
        order = [*FAMILIES.values(), OTHERS]
        place = {
            key: (order.index(family(case.rows[0])), groups.index(key[0]))
            for key, case in found.items()
        }
        return dict(sorted(found.items(), key=lambda item: place[item[0]]))


def _hardware(environment: Environment) -> str:
    return "cuda" if "multiprocessors" in environment else "cpu"


def label(environment: Environment) -> str:
    """The kind of a run: how it differs from other runs on the device."""
    parts = ["default allocator" if environment["allocator"] == "default" else "memory kept"]
    if environment.get("isa_limits", "default") != "default":
        parts.append(str(environment.get("isa_of_kernels")))
    return ", ".join(parts)


def device_name(environment: Environment) -> str:
    e = environment
    name = f"{e['device']}, {e['isa']}"
    if _hardware(e) == "cuda":
        return name
    return f"{name}, {e['threads']} thread{'s' if e['threads'] != 1 else ''}"


def _age(run: Run) -> tuple[Any, ...]:
    """What sorts runs by how much they are worth: the greatest is taken.

    A quick run is a glance. A file without a date is older than any with one, and older still
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
                if k not in cases or _age(run) > _age(cases[k].run):
                    cases[k] = case
        ordered = sorted(kinds.items(), key=lambda kind: (kind[0] != "default allocator", kind[0]))
        found.append(Device(name, _hardware(members[0].environment), members, dict(ordered)))
    return found

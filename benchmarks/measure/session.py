"""A session of measurements: each work once, the ceilings before and after, the result file."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import ceilings
from benchmarks.measure.environment import device_folder, environment, file_name
from benchmarks.measure.harness import Effort, Result, Wanted, Work, measure, rows
from benchmarks.measure.memory import DeviceMemoryWork, MemoryWork, measure_memory
from benchmarks.report.rows import RESULTS, SCHEMA, write_whole

EFFORTS = {
    "quick": Effort(seconds=2.5, min_rounds=5),
    "default": Effort(seconds=4.0, min_rounds=9),
    "large": Effort(seconds=4.0, min_rounds=9),
    "full": Effort(seconds=20.0, min_rounds=9, processes=3),
}
# On a GPU: it has more contenders, and its times vary less.
CUDA_EFFORTS = {
    "quick": Effort(seconds=1.0, min_rounds=5),
    "default": Effort(seconds=1.5, min_rounds=7),
    "large": Effort(seconds=2.0, min_rounds=9),
    "full": Effort(seconds=4.0, min_rounds=9),
}


class Measurements:
    """The results of the session: each work is measured once, when it is first asked for.

    The ceilings of a device, "cpu" or "cuda", are measured before its first work and at the end:
    the machine drifts.
    """

    def __init__(self, preset: str, timed: bool, seconds: float | None = None) -> None:
        changes = {} if seconds is None else {"seconds": seconds}
        self.efforts = {
            device: dataclasses.replace(efforts[preset], **changes)
            for device, efforts in (("cpu", EFFORTS), ("cuda", CUDA_EFFORTS))
        }
        self.preset = preset
        self.timed = timed
        self.ceilings: dict[str, dict[str, ceilings.Ceilings]] = {}
        self.works: dict[tuple[str, str], Work] = {}
        self.results: dict[tuple[str, str], list[Result]] = {}
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.wanted: Wanted | None = None  # which rivals are timed
        self.limit = math.inf  # no work begins more seconds than this after the first one
        self.begun: float | None = None

    def measure(self, work: Work) -> list[Result]:
        if self.timed and work.device not in self.ceilings:
            self.ceilings[work.device] = {"begin": ceilings.measure(work.device)}
        kind = measure_memory if isinstance(work, MemoryWork | DeviceMemoryWork) else measure
        results = kind(work, self.efforts[work.device], self.timed, self.wanted)
        self.results[work.group, work.case] = results
        self.rows.setdefault(work.device, []).extend(rows(work, results))
        return results

    def get(self, group: str, case: str, contender: str) -> Result | None:
        """The result of a contender; None where its work would begin after the limit."""
        key = (group, case)
        if self.begun is None:
            self.begun = time.monotonic()
        elif key not in self.results and time.monotonic() - self.begun > self.limit:
            return None
        results = self.results.get(key) or self.measure(self.works[key])
        return next(r for r in results if r.contender.name == contender)

    def finish(self) -> None:
        """Call this after the last work."""
        for device, measured in self.ceilings.items():
            if "end" not in measured:
                measured["end"] = ceilings.measure(device)

    def content(self, device: str) -> dict[str, Any]:
        """A result file. Each row also names its environment, so that it can stand alone."""
        where = environment(self.preset, device) | {"ceilings": self.ceilings.get(device, {})}
        short = {name: value for name, value in where.items() if name != "ceilings"}
        rows = [{**this, **short} for this in self.rows.get(device, ())]
        return {"ganlstm_fast_schema": SCHEMA, "environment": where, "rows": rows}


def save(name: str, content: dict[str, Any]) -> Path:
    """Write benchmarks/results/<device>/NAME.json; an empty name stands for ``file_name``'s."""
    where = content["environment"]
    path = RESULTS / device_folder(where) / f"{name or file_name(where)}.json"
    head = json.dumps({**content, "rows": None}).removesuffix("null}")
    rows = ",\n".join(json.dumps(this) for this in content["rows"])
    write_whole(path, f"{head}[\n{rows}\n]}}\n")
    return path

"""Result files: reading them, and choosing among their rows.

A row is one contender of one piece of work; ``harness.row`` says what is in it. The rows of a work
(its group, case and dtype) stay together: their times are of the same rounds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = 1
# By what a row's ``shapes`` have; the first that fits.
FAMILIES = {
    "T": "LSTM",
    "weights": "Spectral norm",
    "samples": "Gradient penalty",
    "scores": "Losses",
    "model": "Training steps",
}
OTHERS = "Other"

Row = dict[str, Any]
Environment = dict[str, Any]
Key = tuple[str, str, str]  # group, case, dtype


class BadFile(Exception):
    """A file that holds no rows of ours; the message says why."""


class UnknownName(ValueError):
    """A case or a rival that is in no result; the message lists those that are."""


@dataclass(frozen=True)
class Run:
    """A result file."""

    path: Path
    environment: Environment
    rows: list[Row]


@dataclass(frozen=True)
class Case:
    """The rows of one piece of work, all of one run."""

    run: Run
    rows: list[Row]

    @property
    def first(self) -> Row | None:
        """The first of ours that was measured beside a rival: what a user gets by default."""
        return next((r for r in self.rows if r["ours"] and relation(r) is not None), None)


def read(path: Path) -> Run:
    """A file of ``pytest benchmarks --save-results`` or of ``--benchmark-json``.

    Raises:
        BadFile: not readable, not JSON, of another schema, or without what every row has.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadFile(f"{path}: not JSON ({error})") from error
    found = content.get("ganlstm_fast_schema") if isinstance(content, dict) else None
    if found != SCHEMA:
        raise BadFile(f"{path}: schema {found}, expected {SCHEMA}")
    try:
        environment, rows = content["environment"], content["rows"]
        for row in rows:
            _ = row["implementation"], row["ours"], row["shapes"], key(row)
    except (KeyError, TypeError) as error:
        raise BadFile(f"{path}: incomplete, lacks {error}") from error
    return Run(path, environment, rows)


def collect(paths: Iterable[Path]) -> list[Run]:
    """All runs in files and folders; one that cannot be read is named on stderr and left out.

    Of a folder, other people's JSON is passed over without a word.
    """
    runs = []
    for path in paths:
        inside = path.is_dir()
        for file in sorted(path.rglob("*.json")) if inside else [path]:
            try:
                runs.append(read(file))
            except BadFile as reason:
                if not (inside and str(reason).endswith(f"schema None, expected {SCHEMA}")):
                    print(f"skipped {reason}", file=sys.stderr)
    return runs


def write_whole(path: Path, content: str | bytes) -> None:
    """The file as it was before, or all of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def key(row: Row) -> Key:
    return row["group"], row["case"], row["dtype"]


def family(row: Row) -> str:
    return next((name for shape, name in FAMILIES.items() if shape in row["shapes"]), OTHERS)


def relation(row: Row) -> float | None:
    """Of times, how many times faster than the fastest rival; of memory, the share of the least."""
    return row.get("beside_ratio" if "median_mib" in row else "ratio")


def cases_of(run: Run) -> dict[Key, Case]:
    """In the order of groups and of cases as they came."""
    groups = list(dict.fromkeys(row["group"] for row in run.rows))
    rows = sorted(run.rows, key=lambda row: groups.index(row["group"]))
    return {k: Case(run, list(members)) for k, members in groupby(rows, key=key)}


# --------------------------------------------------------------------------------------- figures


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The 20th, 50th and 80th percentile."""
    low, middle, high = np.quantile(np.asarray(values, np.float64), (0.2, 0.5, 0.8))
    return float(low), float(middle), float(high)


def ratio(name: str, above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Round by round, so that a drift of the machine's speed cancels."""
    low, middle, high = percentiles([a / b for a, b in zip(above, below, strict=True)])
    return {name: middle, f"{name}_p20": low, f"{name}_p80": high}


def rate(environment: Environment, row: Row) -> float | None:
    """The multiply-adds a second that the machine has shown in this run: the best that it gave.

    In the arithmetic of the row: TF32, 16 bits, or float32 where the machine has no other.
    """
    measured = list(environment.get("ceilings", {}).values())
    name = "tf32" if row.get("tf32") else None
    if row["dtype"] in ("bfloat16", "float16"):
        name = "bf16_dot"
    for wanted in (name, "multiply_adds"):
        rates = [c[wanted] for c in measured if wanted and c.get(wanted)]
        if rates:
            return max(rates)
    return None


# --------------------------------------------------------------------------------------- choosing


def matcher(
    option: str, patterns: Sequence[str], known: Iterable[str], titles: Iterable[str] = ()
) -> Callable[..., bool]:
    """Whether one of some names is among ``patterns``, which may have ``*``; capitals count not.

    Args:
        known: what there is, as the message lists it.
        titles: longer names for the same.

    Raises:
        UnknownName: a pattern that fits nothing.
    """

    def fits(name: str, pattern: str) -> bool:
        name, pattern = name.lower(), pattern.lower()
        return name == pattern or fnmatchcase(name, pattern)

    known = list(dict.fromkeys(known))
    names = {*known, *titles}
    for pattern in patterns:
        if not any(fits(name, pattern) for name in names):
            lines = "\n".join(f"  {name}" for name in known)
            raise UnknownName(f"{option}: no {pattern!r}; known are\n{lines}")
    return lambda *these: any(fits(n, p) for n in these for p in patterns)


def case_matcher(patterns: Sequence[str], works: Iterable[tuple[str, str]]) -> Callable[..., bool]:
    """``matcher`` of ``--cases``, for groups, cases and "group: case"; call it with both names.

    Args:
        works: the group and the case of each.
    """
    works = list(dict.fromkeys(works))
    known = [*(group for group, _ in works), *(case for _, case in works)]
    chosen = matcher("--cases", patterns, known, (f"{g}: {c}" for g, c in works))
    return lambda group, case: chosen(group, case, f"{group}: {case}")


def select(
    runs: Sequence[Run], cases: Sequence[str] | None, rivals: Sequence[str] | None
) -> list[Run]:
    """The runs with the cases and the rivals of these names alone; None: with all of them.

    Of the rivals that stay, the fastest is the one that the ratios are to. A run may be left with
    no rows.

    Raises:
        UnknownName: nothing has such a name.
    """
    rows = [row for run in runs for row in run.rows]
    kept = rows
    if cases is not None:
        chosen = case_matcher(cases, [(row["group"], row["case"]) for row in rows])
        kept = [row for row in kept if chosen(row["group"], row["case"])]
    if rivals is not None:
        names = [row["implementation"] for row in rows if not row["ours"]]
        chosen = matcher("--rivals", rivals, names)
        kept = [row for row in kept if row["ours"] or chosen(row["implementation"])]
    marks = {id(row) for row in kept}
    found = [replace(run, rows=[r for r in run.rows if id(r) in marks]) for run in runs]
    if rivals is not None:
        found = [
            replace(run, rows=[r for case in cases_of(run).values() for r in _related(case.rows)])
            for run in found
        ]
    return found


def _related(members: Sequence[Row]) -> list[Row]:
    """The rows of a case with their ratios to the fastest rival among them."""
    of_times = {"rival", "ratio", "ratio_p20", "ratio_p80"}
    of_memory = {"rival", "beside", "beside_ratio"}
    plain = [
        {n: v for n, v in row.items() if n not in (of_memory if "median_mib" in row else of_times)}
        for row in members
    ]
    for median in ("median_s", "median_mib"):
        rivals = [row for row in plain if not row["ours"] and median in row]
        if not rivals:
            continue
        best = min(rivals, key=lambda row: row[median])
        for row in plain:
            if "times_s" in row and "times_s" in best:
                row |= ratio("ratio", best["times_s"], row["times_s"])
            elif "median_mib" in row:
                row |= {"beside": best["implementation"]}
                row["beside_ratio"] = row[median] / best[median]
            row["rival"] = best["implementation"]
    return plain

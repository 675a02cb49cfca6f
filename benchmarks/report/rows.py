"""Result files: how they are read, and how rows are chosen among them.

A row is one contender of one piece of work; ``measure.harness.rows`` says what is in it. The rows
of a work (its group, case and dtype) stay together: their times are of the same rounds.
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

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SCHEMA = 1

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

    def row(self, implementation: str) -> Row:
        return next(row for row in self.rows if row["implementation"] == implementation)


def read(path: Path) -> Run:
    """A file of ``pytest benchmarks --save-results`` or of ``--benchmark-json``.

    Raises:
        BadFile: not readable, not JSON, of another schema, or without what every row has.
    """
    try:
        content = json.loads(path.read_text())
        found = content.get("ganlstm_fast_schema") if isinstance(content, dict) else None
        if found != SCHEMA:
            raise BadFile(f"{path}: schema {found}, expected {SCHEMA}")
        environment, rows = content["environment"], content["rows"]
        for row in rows:
            _ = row["implementation"], row["ours"], row["shapes"], key(row)
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadFile(f"{path}: not JSON ({error})") from error
    except (KeyError, TypeError) as error:
        raise BadFile(f"{path}: incomplete, lacks {error}") from error
    return Run(path, environment, rows)


def collect(paths: Iterable[Path]) -> list[Run]:
    """All runs in files and folders; one that cannot be read is named on stderr and left out.

    In a folder, JSON files without our schema are passed over silently.
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
    """Write all of the file, or leave it as it was before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def key(row: Row) -> Key:
    return row["group"], row["case"], row["dtype"]


def relation(row: Row) -> float | None:
    """Of times, how many times faster than the fastest rival; of memory, the share of the least."""
    return row.get("beside_ratio" if "median_mib" in row else "ratio")


def cases_of(run: Run) -> dict[Key, Case]:
    """In the order of groups and of cases as they came."""
    groups = list(dict.fromkeys(row["group"] for row in run.rows))
    rows = sorted(run.rows, key=lambda row: groups.index(row["group"]))
    return {k: Case(run, list(members)) for k, members in groupby(rows, key=key)}


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The 20th, 50th and 80th percentile."""
    low, middle, high = np.quantile(np.asarray(values, np.float64), (0.2, 0.5, 0.8))
    return float(low), float(middle), float(high)


def ratio(name: str, above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Round by round, so that a drift of the machine's speed cancels."""
    low, middle, high = percentiles([a / b for a, b in zip(above, below, strict=True)])
    return {name: middle, f"{name}_p20": low, f"{name}_p80": high}


def rate(environment: Environment, row: Row) -> float | None:
    """The multiply-adds a second that the machine reached in this run: the best it measured.

    In the arithmetic of the row: TF32, 16 bits, or float32 where the machine has no other.
    """
    name = "bf16_dot" if row["dtype"] in ("bfloat16", "float16") else "multiply_adds"
    for wanted in ("tf32" if row.get("tf32") else name, "multiply_adds"):
        measured = environment.get("ceilings", {}).values()
        rates = [ceilings[wanted] for ceilings in measured if ceilings.get(wanted)]
        if rates:
            return max(rates)
    return None


def matcher(
    option: str, patterns: Sequence[str], known: Iterable[str], titles: Iterable[str] = ()
) -> Callable[..., bool]:
    """Whether one of some names is among ``patterns``: case-insensitive, and * is any text.

    Args:
        option: the option that the patterns come from, for the message.
        known: the names there are, as the message lists them.
        titles: longer names for the same.

    Raises:
        UnknownName: a pattern that fits nothing.
    """
    names = list(dict.fromkeys(known))

    def fits(name: str, pattern: str) -> bool:
        return name.lower() == pattern.lower() or fnmatchcase(name.lower(), pattern.lower())

    for pattern in patterns:
        if not any(fits(name, pattern) for name in (*names, *titles)):
            lines = "\n".join(f"  {name}" for name in names)
            raise UnknownName(f"{option}: no {pattern!r}; known are\n{lines}")
    return lambda *these: any(fits(n, p) for n in these for p in patterns)


def case_matcher(patterns: Sequence[str], works: Iterable[tuple[str, str]]) -> Callable[..., bool]:
    """``matcher`` of ``--cases``, for groups, cases and "group: case"; call it with both names.

    Args:
        works: the group and the case of each.
    """
    works = list(dict.fromkeys(works))
    known = [*(group for group, _ in works), *(case for _, case in works)]
    chosen = matcher("--cases", patterns, known, [f"{g}: {c}" for g, c in works])
    return lambda group, case: chosen(group, case, f"{group}: {case}")


def select(
    runs: Sequence[Run], cases: Sequence[str] | None, rivals: Sequence[str] | None
) -> list[Run]:
    """The runs with the cases and the rivals of these names alone; None: with all of them.

    The ratios are to the fastest of the rivals that stay. A run may be left with no rows.

    Raises:
        UnknownName: nothing has such a name.
    """
    rows = [row for run in runs for row in run.rows]
    if cases is not None:
        chosen = case_matcher(cases, [(row["group"], row["case"]) for row in rows])
        runs = [
            replace(run, rows=[r for r in run.rows if chosen(r["group"], r["case"])])
            for run in runs
        ]
    if rivals is not None:
        names = [row["implementation"] for row in rows if not row["ours"]]
        wanted = matcher("--rivals", rivals, names)
        runs = [
            replace(run, rows=[r for case in cases_of(run).values() for r in _beside(case, wanted)])
            for run in runs
        ]
    return list(runs)


def _beside(case: Case, wanted: Callable[..., bool]) -> list[Row]:
    """The rows of ours and of the wanted rivals, with their ratios to the fastest of these."""
    rows = [dict(r) for r in case.rows if r["ours"] or wanted(r["implementation"])]
    for row in rows:
        of_memory = ("rival", "beside", "beside_ratio")
        stale = of_memory if "median_mib" in row else ("rival", "ratio", "ratio_p20", "ratio_p80")
        for name in stale:
            row.pop(name, None)
    relate(rows)
    return rows


def relate(rows: Sequence[Row]) -> None:
    """Write into the rows of a case what they are beside the fastest rival among them.

    Of times, ``ratio`` says how many times faster than the rival the row is, the median over the
    rounds, with the 20th and 80th percentile. Of memory, ``beside`` is the rival that takes least,
    and ``beside_ratio`` is of the medians.
    """
    for median in ("median_s", "median_mib"):
        measured = [row for row in rows if median in row]
        rivals = [row for row in measured if not row["ours"]]
        best = min(rivals, key=lambda row: row[median], default={})
        for row in measured if best else ():
            row["rival"] = best["implementation"]
            if "times_s" in row and "times_s" in best:
                row |= ratio("ratio", best["times_s"], row["times_s"])
            elif median == "median_mib":
                row["beside"], row["beside_ratio"] = row["rival"], row[median] / best[median]

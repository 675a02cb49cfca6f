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

    @property
    def device(self) -> str:
        e = self.environment
        threads = f", {e['threads']} thread{'s' if e['threads'] != 1 else ''}"
        return f"{e['device']}, {e['isa']}{'' if 'multiprocessors' in e else threads}"

    @property
    def kind(self) -> str:
        """How it differs from other runs on the device."""
        e = self.environment
        kept = "default allocator" if e["allocator"] == "default" else "memory kept"
        limited = e.get("isa_limits", "default") != "default"
        return f"{kept}, {e.get('isa_of_kernels')}" if limited else kept


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
        """Empty where the case has none of that name."""
        return next((row for row in self.rows if row["implementation"] == implementation), {})


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


Cases = dict[Key, Case]


def key(row: Row) -> Key:
    return row["group"], row["case"], row["dtype"]


def relation(row: Row) -> float | None:
    """Of times, how many times faster than the fastest rival; of memory, the share of the least."""
    return row.get("beside_ratio" if "median_mib" in row else "ratio")


def cases_of(run: Run) -> Cases:
    """In the order of groups and of cases as they came."""
    groups = list(dict.fromkeys(row["group"] for row in run.rows))
    rows = sorted(run.rows, key=lambda row: groups.index(row["group"]))
    return {k: Case(run, list(members)) for k, members in groupby(rows, key=key)}


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The 20th, 50th and 80th percentile."""
    low, middle, high = np.quantile(np.asarray(values, np.float64), (0.2, 0.5, 0.8))
    return float(low), float(middle), float(high)


def rate(environment: Environment, row: Row) -> float | None:
    """The multiply-adds a second that the machine reached in this run: the best it measured.

    In the arithmetic of the row: TF32, 16 bits, or float32 where the machine has no other.
    """
    name = "bf16_dot" if row["dtype"] in ("bfloat16", "float16") else "multiply_adds"
    measured = environment.get("ceilings", {}).values()
    for wanted in ("tf32" if row.get("tf32") else name, "multiply_adds"):
        if rates := [ceilings[wanted] for ceilings in measured if ceilings.get(wanted)]:
            return max(rates)
    return None


def matcher(
    option: str, patterns: Sequence[str], known: Iterable[str], titles: Iterable[str] = ()
) -> Callable[..., bool]:
    """Whether one of some names is among ``patterns``: case-insensitive, and * is any text.

    Raises:
        UnknownName: a pattern fits none of ``known`` and ``titles``; the message names ``option``
            and lists ``known``.
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


def select(runs: Sequence[Run], cases: Sequence[str] | None) -> list[Run]:
    """The runs with the cases of these names alone; None: with all. Some may be left with none.

    Raises:
        UnknownName: nothing has such a name.
    """
    if cases is None:
        return list(runs)
    chosen = case_matcher(cases, [key(row)[:2] for run in runs for row in run.rows])
    return [replace(run, rows=[r for r in run.rows if chosen(*key(r)[:2])]) for run in runs]

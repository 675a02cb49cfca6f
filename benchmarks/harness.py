"""Measure several implementations of one piece of work, interleaved, after checking their answers.

A :class:`Work` is what is to be done; its contenders do it. :func:`measure` first compares each
contender's answer with the truth in float64 by the rule of ``tests/numerics.py`` and refuses those
that are wrong. Then, in each round, every contender runs once in random order, so that a ratio
within a round survives a machine whose speed drifts.
"""

from __future__ import annotations

import contextlib
import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from numerics import relative_error, tolerance  # isort: skip  (tests/, put on the path by conftest)

SCHEMA = 1
# A rival is refused only where it is plainly wrong; ours answers to the rule of tests/numerics.py.
RIVAL_TOLERANCE = {torch.bfloat16: 1e-1, torch.float32: 1e-3, torch.float64: 1e-9}

Answer = Sequence[Tensor]
Call = Callable[[], Answer]
Race = Callable[[], None]  # what the fixture of conftest.py hands to a benchmark's test


class Unsupported(Exception):
    """Raised by a contender's ``prepare`` that cannot do the work here; the message says why."""


@dataclass(frozen=True)
class Contender:
    """One implementation of a piece of work.

    Attributes:
        name: how it is called in tables.
        prepare: does what is not timed and returns the call that is. The first call after
            ``prepare`` starts from the same state as the truth.
        ours: of this library, as opposed to a rival.
        beside: the name of another contender of the work, where the share of its time that this one
            takes is of interest.
        truth: its own truth, where it computes a slightly different thing than the others.
        context: entered around everything the contender does, outside of the timed part.
    """

    name: str
    prepare: Callable[[], Call]
    ours: bool = False
    beside: str | None = None
    truth: Callable[[Answer], Answer] | None = None
    context: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext


@dataclass(frozen=True)
class Work:
    """One piece of work at one set of shapes.

    Attributes:
        group: what is done; title of a table.
        case: the shapes, as text; with ``group`` it names the work.
        shapes: the shapes, for the result file.
        contenders: ours and the rivals. The rivals are PyTorch's own code: the largest error of
            theirs, output by output, sets the tolerance of ours.
        truth: the right answer in float64, given a contender's answer (which it needs only where
            contenders draw different random numbers).
        dtype: of the inputs.
        multiply_adds: how many the work needs at least, where that bounds its speed.
    """

    group: str
    case: str
    shapes: dict[str, Any]
    contenders: tuple[Contender, ...]
    truth: Callable[[Answer], Answer]
    dtype: torch.dtype = torch.float32
    multiply_adds: int | None = None


@dataclass(frozen=True)
class Effort:
    """How long to measure: seconds for each work, limits of its rounds, processes for memory."""

    seconds: float
    min_rounds: int
    max_rounds: int = 301
    processes: int = 1


@dataclass
class Result:
    """What came of one contender: its figures, or a reason why there are none.

    Attributes:
        times: seconds, one a round.
        peaks: MiB of memory over what was there before, one a process.
    """

    contender: Contender
    times: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)
    error: float = math.nan
    refused: str | None = None
    unsupported: str | None = None

    @property
    def ready(self) -> bool:
        """Whether it can do the work, and does it right."""
        return self.refused is None and self.unsupported is None

    @property
    def median(self) -> float:
        return statistics.median(self.times or self.peaks)


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The 20th, 50th and 80th percentile."""
    tensor = torch.tensor(values, dtype=torch.float64)
    low, middle, high = torch.quantile(tensor, torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64))
    return float(low), float(middle), float(high)


def _errors(result: Result, answer: Answer, truth: Answer) -> list[float]:
    """The error of each output; refuses ``result`` where the outputs are of another structure."""
    got, expected = ([tuple(t.shape) for t in tensors] for tensors in (answer, truth))
    if got != expected:
        result.refused = f"wrong answer: shapes {got}, expected {expected}"
        return []
    return [relative_error(a, t) for a, t in zip(answer, truth, strict=True)]


def _judge(result: Result, errors: list[float], allowed: list[float]) -> None:
    """Refuse ``result`` where one of its outputs is further from the truth than is allowed."""
    result.error = max(errors, default=math.nan)
    for index, (error, limit) in enumerate(zip(errors, allowed, strict=True)):
        if result.refused is None and not error <= limit:
            result.refused = (
                f"wrong answer: output {index} has relative error {error:.1e}, allowed {limit:.1e}"
            )


def measure(work: Work, effort: Effort, timed: bool = True) -> list[Result]:
    """Check all contenders, then time those that are right, interleaved.

    Args:
        timed: False checks only.

    Returns:
        One result a contender, in the order of ``work.contenders``.
    """
    results = [Result(contender) for contender in work.contenders]
    calls: dict[str, Call] = {}
    rivals_errors: list[list[float]] = []
    # Rivals first: they set the tolerance of ours.
    for result in sorted(results, key=lambda r: r.contender.ours):
        contender = result.contender
        with contender.context():
            try:
                calls[contender.name] = contender.prepare()
                answer = [t.detach().clone() for t in calls[contender.name]()]
            except Unsupported as reason:
                result.unsupported = str(reason)
                continue
            except RuntimeError as error:
                if contender.ours:
                    raise
                result.unsupported = str(error).splitlines()[0][:80]
                continue
        errors = _errors(result, answer, (contender.truth or work.truth)(answer))
        if result.refused is not None:
            continue
        if contender.ours:
            worst = [max(e) for e in zip(*rivals_errors, strict=True)] or [None] * len(errors)
            _judge(result, errors, [tolerance(work.dtype, e) for e in worst])
            continue
        _judge(result, errors, [RIVAL_TOLERANCE[work.dtype]] * len(errors))
        if result.refused is None and contender.truth is None:
            rivals_errors.append(errors)
    racing = [r for r in results if r.ready]
    if timed:
        _race(racing, calls, effort)
    return results


def _timed(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _race(racing: list[Result], calls: dict[str, Call], effort: Effort) -> None:
    cost = 0.0
    for result in racing:
        with result.contender.context():
            _timed(calls[result.contender.name])
            cost += _timed(calls[result.contender.name])
    rounds = int(effort.seconds / max(cost, 1e-6))
    rounds = max(effort.min_rounds, min(rounds, effort.max_rounds))
    order, shuffled = list(racing), random.Random(0)
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffled.shuffle(order)
            for result in order:
                with result.contender.context():
                    result.times.append(_timed(calls[result.contender.name]))
    finally:
        if collecting:
            gc.enable()


def best_rival(results: Sequence[Result]) -> Result | None:
    """The rival with the smallest median, or None where no rival has figures."""
    rivals = [r for r in results if (r.times or r.peaks) and not r.contender.ours]
    return min(rivals, key=lambda r: r.median, default=None)


def row(work: Work, result: Result, results: Sequence[Result]) -> dict[str, Any]:
    """One row of a result file.

    Of times: ``ratio`` says how many times faster than the fastest rival the contender is, the
    median over rounds of (rival's time / its time); ``beside_ratio`` which share of the time of the
    contender ``beside`` it takes, the median over rounds of (its time / the other's time). Both
    with the 20th and 80th percentile. Of memory: ``beside`` is the rival that takes least, and
    ``beside_ratio`` is of the medians.
    """
    this = {
        "group": work.group,
        "case": work.case,
        "implementation": result.contender.name,
        "ours": result.contender.ours,
        "shapes": work.shapes,
        "dtype": str(work.dtype).removeprefix("torch."),
        "multiply_adds": work.multiply_adds,
        "error": result.error if math.isfinite(result.error) else None,
        "skipped": result.refused or result.unsupported,
    }
    rival = best_rival(results)
    if result.peaks:
        this |= {"processes": len(result.peaks), "median_mib": result.median}
        this |= {"least_mib": min(result.peaks), "most_mib": max(result.peaks)}
        if rival is not None:
            this |= {"rival": rival.contender.name, "beside": rival.contender.name}
            this["beside_ratio"] = result.median / rival.median
    if result.times:
        low, middle, high = percentiles(result.times)
        this |= {"rounds": len(result.times), "median_s": middle, "p20_s": low, "p80_s": high}
        this["times_s"] = [float(f"{t:.4g}") for t in result.times]
        if rival is not None:
            this["rival"] = rival.contender.name
            this |= _ratio("ratio", rival.times, result.times)
        other = next((r for r in results if r.contender.name == result.contender.beside), None)
        if other is not None and other.times:
            this["beside"] = other.contender.name
            this |= _ratio("beside_ratio", result.times, other.times)
    return this


def _ratio(name: str, above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Round by round, so that a drift of the machine's speed cancels."""
    low, middle, high = percentiles([a / b for a, b in zip(above, below, strict=True)])
    return {name: middle, f"{name}_p20": low, f"{name}_p80": high}

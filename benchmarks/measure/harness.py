"""Measure several implementations of one piece of work, interleaved, after checking their answers.

A :class:`Work` is what is to be done; its contenders do it. :func:`measure` first compares each
contender's answer with the truth in float64 by the rule of ``tests/numerics.py`` and refuses those
that are wrong. Then, in each round, every contender runs once in random order, so that a ratio
within a round survives a machine whose speed drifts.

On a GPU, events of the device take the time of as many calls in a row as need ``SAMPLE_SECONDS``,
as a training loop issues them: where the host needs longer than the device to get through them,
its time is what counts. What the device alone needs is measured beside it: the same call, replayed
from a CUDA graph.
"""

from __future__ import annotations

import contextlib
import gc
import math
import random
import re
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.report.rows import percentiles
from tests.numerics import relative_error, tolerance

# A rival is refused only where it is plainly wrong; ours answers to the rule of tests/numerics.py.
RIVAL_TOLERANCE = {
    torch.bfloat16: 1e-1,
    torch.float16: 3e-2,
    torch.float32: 1e-3,
    torch.float64: 1e-9,
}
SAMPLE_SECONDS, MOST_CALLS = 2e-3, 50
# How an implementation of ours says that it cannot serve a call.
CANNOT_RUN = re.compile(r"impl='\w+' cannot run ")

Answer = Sequence[Tensor]
Call = Callable[[], Answer]
Wanted = Callable[[str], bool]  # of a rival's name
Race = Callable[[], None]  # the fixture of conftest.py that a benchmark's test calls


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
        device: where the tensors are.
        tf32: on a GPU and in float32, whether products may round their factors to TF32.
    """

    group: str
    case: str
    shapes: dict[str, Any]
    contenders: tuple[Contender, ...]
    truth: Callable[[Answer], Answer]
    dtype: torch.dtype = torch.float32
    multiply_adds: int | None = None
    device: str = "cpu"
    tf32: bool | None = None

    @property
    def judged_as(self) -> torch.dtype:
        """The dtype whose tolerance holds: TF32 keeps 10 bits of mantissa, as float16 does."""
        return torch.float16 if self.tf32 else self.dtype


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
        times: seconds of a call, one a round.
        peaks: MiB of memory over what was there before, one a process.
        device_mib: of a GPU's memory, the peak of a call over what was there before.
        graph: seconds of the call in a CUDA graph; None where it cannot be captured.
    """

    contender: Contender
    times: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)
    device_mib: float | None = None
    graph: float | None = None
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


def _failed(result: Result, error: Exception) -> None:
    """One contender fails for itself: the others are measured all the same."""
    said = (str(error).splitlines() or [""])[0]
    if isinstance(error, ModuleNotFoundError) and not result.contender.ours:
        result.unsupported = f"the package {error.name} is not installed"
    elif isinstance(error, Unsupported) or CANNOT_RUN.match(said):
        result.unsupported = said
    elif result.contender.ours:
        traceback.print_exception(error, file=sys.stderr)
        result.refused = f"raised {type(error).__name__}: {said[:200]}"
    else:
        result.unsupported = said[:80] or type(error).__name__


def device_peak_mib(call: Call) -> float:
    """The peak of a GPU's memory in ``call``, answer included, over what was there before."""
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    answer = call()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    del answer
    return peak / 2**20


def measure(
    work: Work, effort: Effort, timed: bool = True, wanted: Wanted | None = None
) -> list[Result]:
    """Check all contenders, then time those that are right, interleaved.

    Args:
        timed: False checks only.
        wanted: the others among the rivals are checked, as they set the tolerance, and not timed.

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
                call = contender.prepare()
                answer = [t.detach().clone() for t in call()]
                if work.device == "cuda":
                    result.device_mib = device_peak_mib(call)
                calls[contender.name] = call
            except Exception as error:  # whatever it is: see _failed
                _failed(result, error)
                if work.device == "cuda":
                    # A kernel's error stays with the context and would be blamed on the others.
                    torch.cuda.synchronize()
                continue
        errors = _errors(result, answer, (contender.truth or work.truth)(answer))
        if result.refused is not None:
            continue
        if contender.ours:
            worst = [max(e) for e in zip(*rivals_errors, strict=True)] or [None] * len(errors)
            _judge(result, errors, [tolerance(work.judged_as, e) for e in worst])
            continue
        _judge(result, errors, [RIVAL_TOLERANCE[work.judged_as]] * len(errors))
        if result.refused is None and contender.truth is None:
            rivals_errors.append(errors)
    for result in results:
        if wanted is not None and not (result.contender.ours or wanted(result.contender.name)):
            result.unsupported = result.unsupported or "left out"
    racing = [r for r in results if r.ready]
    if timed:
        _race(racing, calls, effort, work.device)
    if work.device == "cuda":
        for result in racing if timed else ():
            # Plain PyTorch's graph of all steps takes longer to capture than all others to run.
            if result.contender.ours or not result.contender.name.startswith("plain"):
                with result.contender.context():
                    result.graph = graph_seconds(calls[result.contender.name])
        calls.clear()
        torch.cuda.empty_cache()  # else what one work has left in pieces may be missing for another
    return results


def _timed(call: Call, device: str = "cpu", calls: int = 1) -> float:
    """Seconds of one call, the mean over ``calls`` in a row."""
    if device != "cuda":
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return 1e-3 * start.elapsed_time(end) / calls


def graph_seconds(call: Call, replays: int = 20) -> float | None:
    """Seconds of ``call`` replayed from a CUDA graph, the median; None if it cannot be captured."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.stream(aside):
            for _ in range(2):  # what is set up once may not be captured
                call()
        torch.cuda.current_stream().wait_stream(aside)
        with torch.cuda.graph(graph):
            call()
        graph.replay()
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    return statistics.median(_timed(graph.replay, "cuda") for _ in range(replays))


def _race(racing: list[Result], calls: dict[str, Call], effort: Effort, device: str) -> None:
    cost, in_a_row = 0.0, {}
    for result in racing:
        name = result.contender.name
        with result.contender.context():
            _timed(calls[name], device)
            seconds = _timed(calls[name], device)
        fitting = SAMPLE_SECONDS / max(seconds, 1e-6) if device == "cuda" else 1
        in_a_row[name] = max(1, min(math.ceil(fitting), MOST_CALLS))
        cost += seconds * in_a_row[name]
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
                name = result.contender.name
                with result.contender.context():
                    result.times.append(_timed(calls[name], device, in_a_row[name]))
            gc.collect(0)  # graphs that lie in cycles would fill a GPU in a few rounds
    finally:
        if collecting:
            gc.enable()


def rows(work: Work, results: Sequence[Result]) -> list[dict[str, Any]]:
    """The rows of a result file, one a contender, with their relations to each other.

    ``relate`` says what the fastest rival is for. Of times, ``beside_ratio`` says which
    share of the time of the contender ``beside`` the row takes: the median over the rounds, with
    the 20th and 80th percentile.
    """
    found = [_row(work, result) for result in results]
    relate(found)
    by_name = {row["implementation"]: row for row in found if "times_s" in row}
    for result, row in zip(results, found, strict=True):
        other = by_name.get(result.contender.beside)
        if other is not None and "times_s" in row:
            row["beside"] = other["implementation"]
            row |= ratio("beside_ratio", row["times_s"], other["times_s"])
    for row in by_name.values():
        row["times_s"] = [float(f"{t:.4g}") for t in row["times_s"]]
    return found


def relate(rows: Sequence[dict[str, Any]]) -> None:
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


def ratio(name: str, above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Round by round, so that a drift of the machine's speed cancels."""
    low, middle, high = percentiles([a / b for a, b in zip(above, below, strict=True)])
    return {name: middle, f"{name}_p20": low, f"{name}_p80": high}


def _row(work: Work, result: Result) -> dict[str, Any]:
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
    if work.device != "cpu":
        this |= {"tf32": work.tf32, "peak_mib": result.device_mib, "graph_s": result.graph}
    if result.peaks:
        this |= {"processes": len(result.peaks), "median_mib": result.median}
        this |= {"least_mib": min(result.peaks), "most_mib": max(result.peaks)}
    if result.times:
        low, middle, high = percentiles(result.times)
        this |= {"rounds": len(result.times), "median_s": middle, "p20_s": low, "p80_s": high}
        this["times_s"] = result.times
    return this

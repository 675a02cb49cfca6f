"""``pytest benchmarks --benchmark-only``: options, one test a contender, the table at the end.

Each ``bench_*.py`` has ``works(preset)`` and one test that calls ``race``. The contenders of a work
are measured together, interleaved, when the first of them is asked for; pytest-benchmark then gets
each contender's times as they were recorded, so that its JSON, its storage and its comparison work.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent / "tests"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import ceilings  # noqa: E402
import report  # noqa: E402
from environment import device_folder, environment, file_name  # noqa: E402
from harness import SCHEMA, Effort, Race, Result, Work, measure, row  # noqa: E402
from memory import MemoryWork, measure_memory  # noqa: E402

EFFORTS = {
    "quick": Effort(seconds=2.5, min_rounds=5),
    "default": Effort(seconds=4.0, min_rounds=9),
    "large": Effort(seconds=4.0, min_rounds=9),
    "full": Effort(seconds=20.0, min_rounds=9, processes=3),
}


class ReplayClock:
    """A clock that stands still unless it is told to go on by a recorded time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


CLOCK = ReplayClock()


class Measurements:
    """The results of the session: each work is measured once, when it is first asked for.

    The ceilings are measured before the first and after the last: the machine drifts.
    """

    def __init__(self, preset: str, timed: bool, effort: Effort | None = None) -> None:
        self.effort = effort or EFFORTS[preset]
        self.preset = preset
        self.timed = timed
        self.ceilings: dict[str, ceilings.Ceilings] = {}
        self.works: dict[tuple[str, str], Work] = {}
        self.results: dict[tuple[str, str], list[Result]] = {}
        self.rows: list[dict[str, Any]] = []

    def get(self, group: str, case: str, contender: str) -> Result:
        key = (group, case)
        if key not in self.results:
            if self.timed and not self.ceilings:
                self.ceilings["begin"] = ceilings.measure()
            work, effort = self.works[key], self.effort
            kind = measure_memory if isinstance(work, MemoryWork) else measure
            self.results[key] = kind(work, effort, self.timed)
            self.rows += [row(work, r, self.results[key]) for r in self.results[key]]
        return next(r for r in self.results[key] if r.contender.name == contender)

    def environment(self) -> dict[str, Any]:
        """Of the whole run, when its last work has been measured."""
        if "begin" in self.ceilings and "end" not in self.ceilings:
            self.ceilings["end"] = ceilings.measure()
        return {**environment(self.preset), "ceilings": self.ceilings}

    def content(self) -> dict[str, Any]:
        """A result file: each row says itself where it comes from."""
        where = self.environment()
        short = {name: value for name, value in where.items() if name != "ceilings"}
        rows = [{**this, **short} for this in self.rows]
        return {"ganlstm_fast_schema": SCHEMA, "environment": where, "rows": rows}


MEASUREMENTS = pytest.StashKey[Measurements]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ganlstm_fast benchmarks")
    group.addoption("--quick", action="store_true", help="few shapes, a minute")
    group.addoption("--large", action="store_true", help="all shapes, about fifteen minutes")
    group.addoption(
        "--full", action="store_true", help="all shapes and rivals, compiled ones too, half an hour"
    )
    group.addoption(
        "--seconds",
        type=float,
        metavar="S",
        help="time for each piece of work (default: 2.5 with --quick, 20 with --full, else 4); the "
        "preset's least number of rounds is always run",
    )
    group.addoption(
        "--save-results",
        nargs="?",
        const="",
        metavar="NAME",
        help="write benchmarks/results/<device>/NAME.json (default: the preset, with the "
        "allocator and the instruction set where they are not the usual ones)",
    )


def _preset(config: pytest.Config) -> str:
    chosen = [p for p in ("quick", "large", "full") if config.getoption(f"--{p}")]
    if len(chosen) > 1:
        raise pytest.UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other")
    return chosen[0] if chosen else "default"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("python_files", "bench_*.py")
    timed = not config.getoption("benchmark_disable", False)
    effort = EFFORTS[_preset(config)]
    if (seconds := config.getoption("--seconds")) is not None:
        effort = dataclasses.replace(effort, seconds=seconds)
    config.stash[MEASUREMENTS] = Measurements(_preset(config), timed, effort)
    # The table below replaces pytest-benchmark's own, which has no ratio within a round.
    config.option.benchmark_quiet = config.getoption("verbose") <= 0


def _slug(*parts: str) -> str:
    """An id that ``-k`` can name."""
    return "-".join(re.sub(r"[^\w.+]+", "-", part).strip("-") for part in parts)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "race" not in metafunc.fixturenames:
        return
    measurements = metafunc.config.stash[MEASUREMENTS]
    works = metafunc.module.works(_preset(metafunc.config))
    measurements.works |= {(work.group, work.case): work for work in works}
    # Names, not the objects: pytest-benchmark writes parameters to its JSON.
    names = [(w.group, w.case, c.name) for w in works for c in w.contenders]
    pairs = [pytest.param(name, id=_slug(*name)) for name in names]
    metafunc.parametrize("race", pairs, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "race" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.benchmark(timer=CLOCK))
            # A refused answer has no times to hand over; its test says so itself.
            item.add_marker(pytest.mark.filterwarnings("ignore:Benchmark fixture was not used"))


@pytest.fixture
def race(request: pytest.FixtureRequest, benchmark: Any) -> Race:
    """Measure the work of this test, unless another contender's test has done so, and hand over."""
    group, case, contender = request.param

    def run() -> None:
        result = request.config.stash[MEASUREMENTS].get(group, case, contender)
        if result.unsupported is not None:
            pytest.skip(f"not supported: {result.unsupported}")
        if result.refused is not None and result.contender.ours:
            pytest.fail(result.refused, pytrace=False)
        if result.refused is not None:
            pytest.skip(result.refused)
        if result.peaks:
            return  # no times to hand over
        benchmark.group = f"{group}: {case}"
        times: Iterator[float] = iter(result.times)
        replay: Callable[[], None] = lambda: CLOCK.advance(next(times, 0.0))  # noqa: E731
        benchmark.pedantic(replay, rounds=max(1, len(result.times)), iterations=1)

    return run


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    for private in ("node", "release"):
        machine_info.pop(private, None)


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    output_json |= config.stash[MEASUREMENTS].content()


def _save(name: str, content: dict[str, Any]) -> Path:
    where = content["environment"]
    path = HERE / "results" / device_folder(where) / f"{name or file_name(where)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({**content, "rows": None}).removesuffix("null}")
    rows = ",\n".join(json.dumps(this) for this in content["rows"])
    temporary = path.with_suffix(".tmp")
    temporary.write_text(f"{head}[\n{rows}\n]}}\n")
    temporary.replace(path)
    return path


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    measurements = config.stash[MEASUREMENTS]
    if not measurements.rows or not measurements.timed:
        return
    content = measurements.content()
    where, name = content["environment"], config.getoption("--save-results")
    terminalreporter.section("benchmarks")
    terminalreporter.write_line("\n".join(report.describe(where)))
    terminalreporter.write_line("")
    terminalreporter.write_line(report.text_table(where, measurements.rows))
    if name is not None:
        path = _save(name, content)
        terminalreporter.write_line(f"\nsaved {path.relative_to(HERE.parent)}")

"""``pytest benchmarks --benchmark-only``: options, one test a contender, the table at the end.

Each ``bench_*.py`` has ``works(preset)`` and one test that calls ``race``. The contenders of a work
are measured together, interleaved, when the first of them is asked for; pytest-benchmark then gets
each contender's times as they were recorded, so that its JSON, its storage and its comparison work.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.measure.harness import Race
from benchmarks.measure.session import Measurements, save
from benchmarks.report.rows import ROOT, UnknownName, case_matcher, matcher
from benchmarks.report.tables import markdown, markdown_table, slopes


class ReplayClock:
    """A clock that stands still until ``advance`` moves it by a recorded time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


CLOCK = ReplayClock()
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
        help="time for each piece of work (default: 2.5 with --quick, 20 with --full, else 4; on a "
        "GPU 1, 4, 2 with --large, else 1.5); the preset's least number of rounds is always run",
    )
    group.addoption(
        "--limit", type=float, metavar="S", help="begin no further work after so many seconds"
    )
    for option, what in (
        ("--cases", "measure these groups, cases or 'group: case' alone; * is any text"),
        ("--rivals", "time these rivals alone; the others are checked, as they set the tolerance"),
    ):
        group.addoption(option, action="append", metavar="NAME", help=f"{what}; may be repeated")
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
    seconds = config.getoption("--seconds")
    measurements = Measurements(_preset(config), timed, seconds)
    if config.getoption("--limit") is not None:
        measurements.limit = config.getoption("--limit")
    config.stash[MEASUREMENTS] = measurements
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = _left_out(config, items)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    for item in items:
        if "race" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.benchmark(timer=CLOCK))
            # A refused answer has no times to hand over; its test says so itself.
            item.add_marker(pytest.mark.filterwarnings("ignore:Benchmark fixture was not used"))


def _left_out(config: pytest.Config, items: list[pytest.Item]) -> list[pytest.Item]:
    """The tests that ``--cases`` leaves out; hands ``--rivals`` on."""
    measurements = config.stash[MEASUREMENTS]
    cases, rivals = config.getoption("--cases"), config.getoption("--rivals")
    try:
        if rivals:
            contenders = [c for work in measurements.works.values() for c in work.contenders]
            names = [contender.name for contender in contenders if not contender.ours]
            measurements.wanted = matcher("--rivals", rivals, names)
        if not cases:
            return []
        chosen = case_matcher(cases, measurements.works)
    except UnknownName as error:
        raise pytest.UsageError(str(error)) from error
    works = [
        (item, item.callspec.params.get("race")) for item in items if hasattr(item, "callspec")
    ]
    # A preset without a work leaves a test without a name.
    return [item for item, name in works if isinstance(name, tuple) and not chosen(*name[:2])]


@pytest.fixture
def race(request: pytest.FixtureRequest, benchmark: Any) -> Race:
    """Measure the work of this test, unless another contender's test has done so, and hand over."""
    group, case, contender = request.param

    def run() -> None:
        result = request.config.stash[MEASUREMENTS].get(group, case, contender)
        if result is None:
            pytest.skip("left out by --limit")
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
    """The rows of all devices, each with its device; the environment is that of the first."""
    measurements = config.stash[MEASUREMENTS]
    measurements.finish()
    contents = [measurements.content(device) for device in measurements.rows or ("cpu",)]
    output_json |= contents[0] | {"rows": [this for c in contents for this in c["rows"]]}


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    measurements = config.stash[MEASUREMENTS]
    if not measurements.timed:
        return
    measurements.finish()
    name = config.getoption("--save-results")
    for device, rows in measurements.rows.items():
        content = measurements.content(device)
        where = content["environment"]
        terminalreporter.section(f"benchmarks on {where['device']}")
        terminalreporter.write_line(markdown(where, rows, aligned=True))
        growth = slopes(rows)
        if growth:
            terminalreporter.write_line("time grows as the size to this exponent")
            terminalreporter.write_line(markdown_table(growth, aligned=True))
        if name is not None:
            path = save(name, content)
            terminalreporter.write_line(f"\nsaved {path.relative_to(ROOT)}")

"""What the benchmarks import of each other: no circle, and no measuring where results are read."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Imports = dict[str, set[str]]


def imported_by(source: str, known: set[str]) -> set[str]:
    """The modules among ``known`` that a file imports, at its top or in a function.

    A name imported from a package is a module where there is one of that name, else the package.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in known else str(node.module))
    return found & known


@pytest.fixture(scope="module")
def imports() -> Imports:
    names = {}
    for path in (ROOT / "benchmarks").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        names[name.removesuffix(".__init__")] = path
    return {name: imported_by(path.read_text(), set(names)) for name, path in names.items()}


def test_there_is_no_circle(imports: Imports) -> None:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_a_circle_is_found() -> None:
    known = {"a", "a.b", "a.c"}
    sources = {"a.b": "def f():\n    from a import c\n", "a.c": "import a.b\n"}
    circle = {name: imported_by(source, known) for name, source in sources.items()}
    assert circle == {"a.b": {"a.c"}, "a.c": {"a.b"}}
    with pytest.raises(CycleError):
        TopologicalSorter(circle).prepare()


def test_reports_import_nothing_that_measures(imports: Imports) -> None:
    seen: set[str] = set()
    ahead = {name for name in imports if name.startswith("benchmarks.report")}
    assert len(ahead) > 5
    while ahead:
        name = ahead.pop()
        seen.add(name)
        ahead |= imports[name] - seen
    measuring = ("benchmarks.measure", "benchmarks.bench_", "benchmarks.conftest")
    assert not [name for name in seen if name.startswith(measuring)]

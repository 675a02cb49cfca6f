"""The README's Python examples run as they stand, and the tests that the pages name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README, WHAT_WORKS = ROOT / "README.md", ROOT / "docs" / "what-works.md"


@pytest.mark.usefixtures("undrawn")
def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 6
    names: dict[str, object] = {}
    for block in blocks:
        # Trainings of a few steps.
        block = re.sub(r"\bsteps=\d+", 'steps=2, metrics="none"', block)
        exec(compile(block, str(README), "exec"), names)


def test_the_page_of_what_works_names_tests_that_exist() -> None:
    """By file, or file::function."""
    text = WHAT_WORKS.read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) >= 20
    for file, function in named:
        source = (ROOT / file).read_text()
        assert not function or re.search(rf"^def {function}\(", source, re.MULTILINE), function

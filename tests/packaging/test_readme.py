"""The README and the pages of docs/: examples run as they stand, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README, DOCS = ROOT / "README.md", ROOT / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
EXAMPLES = [page for page in PAGES if "```python" in page.read_text()]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """Those that a page's headings get where it is shown."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("page", EXAMPLES, ids=name)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page's blocks one after the other, each with the names of those before it."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        # Trainings of a few steps.
        block = re.sub(r"\bsteps=\d+", 'steps=2, metrics="none"', block)
        exec(compile(block, str(page), "exec"), names)


def test_the_front_door_is_short_and_has_its_examples() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    assert text.count("```python") >= 5
    assert {"layers.md", "training.md", "models.md"} <= {page.name for page in EXAMPLES}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file of the tree, and to a heading where one is named."""
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    assert links
    for link in links:
        if not link.startswith("https://"):
            file, _, anchor = link.partition("#")
            target = (page.parent / file).resolve() if file else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_the_readme_leads_to_every_page_and_back() -> None:
    for page in PAGES[1:]:
        assert f"]({name(page)})" in README.read_text(), page.name
        assert "](../README.md)" in page.read_text(), page.name


def test_the_page_of_what_works_names_tests_that_exist() -> None:
    """By file, or file::function."""
    text = (DOCS / "what-works.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) >= 20
    for file, function in named:
        source = (ROOT / file).read_text()
        assert not function or re.search(rf"^def {function}\(", source, re.MULTILINE), function

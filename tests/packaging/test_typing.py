"""What type checkers, and editors with them, report in a user's code and in the package.

Each line of typing/wrong.py names its error; mypy also reports an error that does not occur.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ["tests/packaging/typing/right.py", "tests/packaging/typing/wrong.py"]
pytestmark = (
    pytest.mark.slow
)  # some 10 seconds for mypy, which keeps what it has read; 4 for pyright


def run(module: str, *arguments: str) -> None:
    pytest.importorskip(module)
    # In the checkout, so that its package comes before an installed one.
    command = [sys.executable, "-m", module, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_mypy() -> None:
    run("mypy", "ganlstm_fast", *FILES)


def test_pyright() -> None:
    run("pyright", "--pythonpath", sys.executable)

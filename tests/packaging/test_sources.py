"""What the sources in csrc include."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_csrc_includes_stable_torch_headers_only():
    stable = ("torch/csrc/stable/", "torch/headeronly/", "torch/csrc/inductor/aoti_torch/c/shim.h")
    for path in (ROOT / "csrc").rglob("*"):
        if path.is_file():
            included = re.findall(r"#\s*include\s*[<\"]([^>\"]+)", path.read_text())
            torch = [name for name in included if re.match("torch/|ATen|c10|Python|pybind", name)]
            assert not [name for name in torch if not name.startswith(stable)], path


def test_plain_sources_include_no_torch_header():
    for path in (ROOT / "csrc").rglob("*/*"):
        if path.suffix in (".cpp", ".cu") and "binding" not in path.name:
            assert "torch/" not in path.read_text(), path

"""The README's Python runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

README = Path(__file__).parents[1] / "README.md"


def test_snippets() -> None:
    snippets = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(snippets) == 6
    real, fake = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32)
    scores = nn.Parameter(torch.zeros(2))
    names = {
        "nn": nn,
        "x": torch.randn(2, 5, 64),
        "lengths": [5, 3],
        "some_module": nn.LSTM(4, 4),
        "model": nn.Sequential(nn.LSTM(4, 4)),
        "real": real,
        "fake": fake,
        "real_scores": scores,
        "fake_scores": scores,
    }
    for snippet in snippets:
        exec(snippet, names)
    assert names["critic"][0].parametrizations.weight.original.grad is not None


def test_files_that_it_names_are_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target

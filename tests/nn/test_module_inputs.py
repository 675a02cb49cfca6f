"""What nn.LSTM and nn.LSTMCell take and refuse, the drop-in layers take and refuse alike."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import ganlstm_fast as gf


def test_pytorchs_own_inputs() -> None:
    file = Path(__file__).with_name("module_inputs.py")
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(file)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 20


X, STATE = torch.zeros(2, 3), torch.zeros(2, 4)
CELL_ERRORS = {
    "h's width": (X, (torch.zeros(2, 5), STATE)),
    "c's width": (X, (STATE, torch.zeros(2, 5))),
    "one row would be broadcast": (X, (torch.zeros(1, 4), torch.zeros(1, 4))),
    "c's batch": (X, (STATE, torch.zeros(3, 4))),
    "h's dtype": (X, (STATE.double(), STATE)),
    "input's dtype": (X.double(), None),
    "unbatched, batched state": (torch.zeros(3), (STATE, STATE)),
    "batched, unbatched state": (X, (torch.zeros(4), torch.zeros(4))),
    "one state": (X, (STATE,)),
    "three states": (X, (STATE, STATE, STATE)),
    "a tensor for the pair": (X, torch.zeros(2, 2, 4)),
    "4-D state": (X, (torch.zeros(2, 1, 1, 4), torch.zeros(2, 1, 1, 4))),
    "3-D input": (torch.zeros(1, 2, 3), None),
    "input's width": (torch.zeros(2, 7), None),
}


@pytest.mark.parametrize("case", CELL_ERRORS)
def test_errors_of_a_cell(case: str) -> None:
    """The exception has torch's type, and torch's message where that names sizes."""
    with pytest.raises(Exception) as torchs:  # noqa: PT011  (which one is what is compared)
        nn.LSTMCell(3, 4)(*CELL_ERRORS[case])
    with pytest.raises(torchs.type) as ours:
        gf.FastLSTMCell(3, 4)(*CELL_ERRORS[case])
    assert ours.type is torchs.type
    if re.search(r"inconsistent|doesn't match", str(torchs.value)):
        assert str(ours.value) == str(torchs.value)


SEQUENCE, PAIR = torch.zeros(5, 2, 3), (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))
LAYER_ERRORS = {
    "h's dtype": (SEQUENCE, (PAIR[0].double(), PAIR[1])),
    "c's dtype": (SEQUENCE, (PAIR[0], PAIR[1].double())),
    "three states": (SEQUENCE, (*PAIR, PAIR[0])),
    "one state": (SEQUENCE, PAIR[:1]),
    "a tensor for the pair": (SEQUENCE, torch.stack(PAIR)),
    "packed, h's dtype": (pack_sequence([SEQUENCE[:, 0]]), tuple(s[:, :1].double() for s in PAIR)),
}


@pytest.mark.parametrize("case", LAYER_ERRORS)
def test_errors_of_a_layer(case: str) -> None:
    with pytest.raises(Exception) as torchs:  # noqa: PT011  (which one is what is compared)
        nn.LSTM(3, 4)(*LAYER_ERRORS[case])
    with pytest.raises(torchs.type) as ours:
        gf.FastLSTM(3, 4)(*LAYER_ERRORS[case])
    assert ours.type is torchs.type

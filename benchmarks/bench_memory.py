"""Peak memory of training with FastLSTM and with nn.LSTM."""

from __future__ import annotations

import dataclasses
import functools

import torch
from cases import LSTM_MEMORY, LSTMShape
from harness import Call, Contender, Race, Unsupported, Work
from lstm_work import STEPS, lstm_work, prepare
from memory import MemoryWork

from ganlstm_fast import FastLSTM


def _recomputing(group: str, shape: LSTMShape) -> Call:
    layer = functools.partial(FastLSTM, recompute=True)
    try:
        return prepare(layer, STEPS[group], shape, torch.float32)
    except TypeError as error:
        raise Unsupported(f"FastLSTM: {error}") from error


def _work(group: str, shape: LSTMShape) -> Work:
    work = lstm_work(group, shape)
    ours, *theirs = work.contenders
    contenders = [ours]
    if group == "LSTM forward+backward":
        recomputing = functools.partial(_recomputing, group, shape)
        contenders.append(Contender("FastLSTM, recompute=True", recomputing, ours=True))
    return dataclasses.replace(work, contenders=(*contenders, *theirs))


def works(preset: str) -> list[Work]:
    found = []
    for group, shape in LSTM_MEMORY[preset]:
        small = _work(group, dataclasses.replace(shape, B=2))
        big = vars(_work(group, shape)) | {"group": f"peak memory, {group}", "multiply_adds": None}
        found.append(MemoryWork(**big, module=__name__, small=small))
    return found


def test_memory(race: Race) -> None:
    race()

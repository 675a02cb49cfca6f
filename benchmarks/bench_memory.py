"""Peak memory of training with our layers and with PyTorch's.

Two of the figures are ones that people quote: an LSTM of 99,328 weights (I64 H128) at T1000 and
B256, about 2 GB, and a DCGAN of 128 x 128 pixels, about 4 GB.
"""

from __future__ import annotations

import dataclasses
import functools

import torch

from benchmarks import bench_train_step
from benchmarks.cases import LSTM_MEMORY, TRAIN_STEP_MEMORY, LSTMShape
from benchmarks.measure.harness import Call, Contender, Race, Unsupported, Work
from benchmarks.measure.lstm_work import STEPS, lstm_work, prepare
from benchmarks.measure.memory import MemoryWork
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
    for name in TRAIN_STEP_MEMORY[preset]:
        big = vars(bench_train_step.work(name)) | {"group": "peak memory, training step"}
        small = bench_train_step.work(name, batch=2)
        found.append(MemoryWork(**big, module=__name__, small=small))
    return found


def test_memory(race: Race) -> None:
    race()

"""FastLSTM against nn.LSTM: whole sequences, sequences of different lengths, step by step.

``lstm_work.py`` has the steps and the contenders.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import ganlstm_fast
from benchmarks.cases import (
    LSTM_BFLOAT16,
    LSTM_LAYERS,
    LSTM_PACKED,
    LSTM_SHAPES,
    LSTM_STREAMING,
    LSTMShape,
)
from benchmarks.measure.harness import Answer, Call, Contender, Race, Work
from benchmarks.measure.lstm_work import (
    STEPS,
    Layer,
    bfloat16_work,
    build,
    draw,
    lstm_work,
    multiply_adds,
    onednn,
)
from ganlstm_fast import FastLSTM, FastLSTMCell

# For how many steps a preset compiles nn.LSTM's backward at most; None: it compiles nothing.
COMPILED_STEPS = {"quick": None, "default": None, "large": None, "full": 24}


def _pack(padded: Tensor, lengths: Tensor) -> PackedSequence:
    return pack_padded_sequence(padded, lengths, enforce_sorted=False)


def _packed(layer: Layer, way: str, shape: LSTMShape, lengths: Tensor, dtype: torch.dtype) -> Call:
    """The gradients of x and of the weights; what comes after a sequence's end has none.

    A padded batch computes these steps for nothing, with the cotangent 0, so that its answer is the
    same. A ``PackedSequence`` is packed beforehand.
    """
    weights, x, cotangent = draw(shape, dtype)
    cotangent[torch.arange(shape.T)[:, None] >= lengths] = 0
    lstm = build(layer, shape).to(dtype)
    lstm.load_state_dict(weights)
    if way == "packed":
        packed, cotangent = _pack(x, lengths), _pack(cotangent, lengths).data
        x = packed.data
    x.requires_grad_()

    def call() -> Answer:
        if way == "packed":
            y = lstm(packed._replace(data=x))[0].data
        elif way == "lengths":
            y = lstm(x, lengths=lengths)[0]
        else:
            y = lstm(x)[0]
        return torch.autograd.grad(y, (x, *lstm.parameters()), cotangent)

    return call


def packed_work(shape: LSTMShape) -> Work:
    """Lengths uniform in 1..T. Its multiply-adds are those of the valid steps."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, shape.T + 1, (shape.B,), generator=generator)
    dtype = torch.float32

    @functools.cache
    def truth() -> Answer:
        with ganlstm_fast.use_impl("reference", "lstm"):
            return _packed(FastLSTM, "lengths", shape, lengths, torch.float64)()

    def packed_truth(_: Answer) -> Answer:
        grad_x, *others = truth()
        return _pack(grad_x, lengths).data, *others

    def contender(layer: Layer, way: str, beside: str | None = None) -> Contender:
        ours = layer is FastLSTM
        family = "FastLSTM" if ours else "nn.LSTM"
        return Contender(
            f"{family}, {way}",
            functools.partial(_packed, layer, way, shape, lengths, dtype),
            ours=ours,
            beside=beside and f"{family}, {beside}",
            truth=packed_truth if way == "packed" else None,
        )

    return Work(
        "LSTM packed, forward+backward",
        f"{shape}, lengths 1..{shape.T}",
        {**vars(shape), "lengths": lengths.tolist()},
        (
            contender(FastLSTM, "padded"),
            contender(FastLSTM, "lengths", beside="padded"),
            contender(FastLSTM, "packed", beside="padded"),
            contender(nn.LSTM, "padded"),
            contender(nn.LSTM, "packed", beside="padded"),
        ),
        lambda _: truth(),
        dtype,
        multiply_adds("LSTM forward+backward", shape, int(lengths.sum())),
    )


def _stream(layer: Layer, shape: LSTMShape, dtype: torch.dtype) -> Call:
    """One step at a time with the state carried on: h and c after the last."""
    weights, x, _ = draw(shape, dtype)
    is_cell = issubclass(layer, nn.LSTMCell)
    if is_cell:
        weights = {name.removesuffix("_l0"): value for name, value in weights.items()}
    module = layer(shape.I, shape.H, dtype=dtype)
    module.load_state_dict(weights)
    steps = x.unbind(0) if is_cell else x.split(1)

    @torch.no_grad()
    def call() -> Answer:
        state = None
        for step in steps:
            state = module(step, state) if is_cell else module(step, state)[1]
        return tuple(s.view(shape.B, shape.H) for s in state)

    return call


def streaming_work(shape: LSTMShape) -> Work:
    @functools.cache
    def truth() -> Answer:
        with ganlstm_fast.use_impl("reference", "lstm"):
            return _stream(FastLSTM, shape, torch.float64)()

    def call(layer: Layer) -> Callable[[], Call]:
        return functools.partial(_stream, layer, shape, torch.float32)

    return Work(
        "LSTM streaming",
        str(shape),
        vars(shape),
        (
            Contender("FastLSTM", call(FastLSTM), ours=True),
            Contender("FastLSTMCell", call(FastLSTMCell), ours=True),
            Contender("nn.LSTM, oneDNN on", call(nn.LSTM)),
            Contender("nn.LSTM, oneDNN off", call(nn.LSTM), context=lambda: onednn(False)),
            Contender("nn.LSTMCell", call(nn.LSTMCell)),
        ),
        lambda _: truth(),
        torch.float32,
        multiply_adds("LSTM forward", shape),
    )


def works(preset: str) -> list[Work]:
    compiled_steps = COMPILED_STEPS[preset]
    found = [
        lstm_work(group, shape, compiled_steps) for shape in LSTM_SHAPES[preset] for group in STEPS
    ]
    found += [lstm_work(group, shape) for shape in LSTM_LAYERS[preset] for group in STEPS]
    found += [
        bfloat16_work(group, shape)
        for group in ("LSTM forward", "LSTM forward+backward")
        for shape in LSTM_BFLOAT16[preset]
    ]
    found += [packed_work(shape) for shape in LSTM_PACKED]
    return [*found, *(streaming_work(shape) for shape in LSTM_STREAMING)]


def test_lstm(race: Race) -> None:
    race()

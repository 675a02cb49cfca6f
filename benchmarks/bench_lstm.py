"""FastLSTM against nn.LSTM: inference, training, and the critic step of a WGAN-GP.

``forward``: y, h_T and c_T without a graph. ``forward+backward``: the gradients of x and of the
weights for a given cotangent of y. ``WGAN-GP step``: scores from a linear head over the mean of y,
their gradient in x with ``create_graph``, the penalty of its norms, and the gradients of the
penalty in the weights.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator

import torch
from cases import LSTM_SHAPES, LSTMShape
from harness import Answer, Call, Contender, Race, Unsupported, Work
from torch import Tensor, nn

import ganlstm_fast
from ganlstm_fast.backends import resolve

Step = Callable[[nn.Module, Tensor, Tensor], Answer]


def _forward(lstm: nn.Module, x: Tensor, cotangent: Tensor) -> Answer:
    with torch.no_grad():
        y, (h, c) = lstm(x)
    return y, h, c


def _forward_backward(lstm: nn.Module, x: Tensor, cotangent: Tensor) -> Answer:
    y, _ = lstm(x)
    return torch.autograd.grad(y, (x, *lstm.parameters()), cotangent)


def _wgan_gp(lstm: nn.Module, x: Tensor, cotangent: Tensor) -> Answer:
    y, _ = lstm(x)
    scores = y.mean(0) @ cotangent[0, 0]  # any vector will do as the head
    (grad,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    # Time comes first: a sample's norm is over dimensions 0 and 2. The same code for all.
    penalty = (grad.square().sum((0, 2)).sqrt() - 1).square().mean()
    return penalty, *torch.autograd.grad(penalty, tuple(lstm.parameters()))


STEPS: dict[str, Step] = {
    "LSTM forward": _forward,
    "LSTM forward+backward": _forward_backward,
    "LSTM WGAN-GP step": _wgan_gp,
}


@contextlib.contextmanager
def _onednn(enabled: bool) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32 acceleration")
        with torch.backends.mkldnn.flags(enabled=enabled):
            yield


def _prepare(
    build: Callable[[], nn.Module], step: Step, shape: LSTMShape, dtype: torch.dtype
) -> Call:
    """The same weights and inputs for all, drawn in float32 and widened."""
    torch.manual_seed(0)
    source = nn.LSTM(shape.I, shape.H)
    x = torch.randn(shape.T, shape.B, shape.I)
    cotangent = torch.randn(shape.T, shape.B, shape.H).to(dtype)
    lstm = build()
    lstm.load_state_dict(source.state_dict())
    lstm.to(dtype)
    x = x.to(dtype).requires_grad_(step is not _forward)
    return functools.partial(step, lstm, x, cotangent)


def _compiled(shape: LSTMShape, step: Step, dtype: torch.dtype) -> Call:
    if step is _wgan_gp:
        raise Unsupported("torch.compile has no double backward")
    lstm, *inputs = _prepare(lambda: nn.LSTM(shape.I, shape.H), step, shape, dtype).args
    call = functools.partial(step, torch.compile(lstm), *inputs)
    try:
        call()
    except Exception as error:  # whatever the compiler lacks here is no failure of the benchmark
        raise Unsupported(f"torch.compile: {str(error).splitlines()[0][:80]}") from error
    return call


def _truth(step: Step, shape: LSTMShape) -> Answer:
    with ganlstm_fast.use_impl("reference", "lstm"):
        return _prepare(
            lambda: ganlstm_fast.FastLSTM(shape.I, shape.H), step, shape, torch.float64
        )()


def lstm_work(group: str, shape: LSTMShape, compiled: bool) -> Work:
    step, dtype = STEPS[group], torch.float32
    impl = resolve("lstm", None, "cpu", dtype)
    ours, theirs = (
        functools.partial(_prepare, functools.partial(layer, shape.I, shape.H), step, shape, dtype)
        for layer in (ganlstm_fast.FastLSTM, nn.LSTM)
    )
    contenders = [
        Contender("FastLSTM" if impl == "cpu" else f"FastLSTM (impl={impl})", ours, ours=True),
        Contender("nn.LSTM, oneDNN on", theirs),
        Contender("nn.LSTM, oneDNN off", theirs, context=lambda: _onednn(False)),
    ]
    if compiled:
        contenders.append(
            Contender("nn.LSTM, torch.compile", lambda: _compiled(shape, step, dtype))
        )
    truth = functools.cache(functools.partial(_truth, step, shape))
    return Work(group, str(shape), vars(shape), tuple(contenders), lambda _: truth(), dtype)


def works(preset: str) -> list[Work]:
    return [
        lstm_work(group, shape, compiled=preset == "full")
        for shape in LSTM_SHAPES[preset]
        for group in STEPS
    ]


def test_lstm(race: Race) -> None:
    race()

"""What the LSTM's benchmarks share: the steps, their cost, and the contenders.

``forward``: y, h_T and c_T without a graph. ``forward+backward``: the gradients of x and of the
weights for a given cotangent of y. ``WGAN-GP step``: scores from a linear head over the mean of y,
their gradient in x with ``create_graph``, the penalty of its norms, and the gradients of the
penalty in the weights. ``WGAN-GP critic step``: the whole of it, the critic's loss of real and fake
samples with that penalty between them, and its gradients in the weights.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import ganlstm_fast
from benchmarks.cases import LSTMShape
from benchmarks.measure.environment import precision
from benchmarks.measure.harness import Answer, Call, Contender, Unsupported, Work
from ganlstm_fast.ops.backends import resolve

Step = Callable[[nn.Module, Tensor, Tensor], Answer]
Layer = Callable[..., nn.Module]


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
    penalty = _penalty(scores, x)
    return penalty, *torch.autograd.grad(penalty, tuple(lstm.parameters()))


def _penalty(scores: Tensor, x: Tensor) -> Tensor:
    """Time comes first: a sample's norm is over dimensions 0 and 2. The same code for all."""
    (grad,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return (grad.square().sum((0, 2)).sqrt() - 1).square().mean()


def _critic_step(
    lstm: nn.Module,
    x: Tensor,
    cotangent: Tensor,
    twice: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Answer:
    """``twice`` is entered around the forward that is to be differentiated twice."""
    real, head = x.detach(), cotangent[0, 0]
    fake = 0.5 * real.flip(0)
    both = lstm(torch.cat([real, fake], 1))[0].mean(0) @ head
    mix = torch.linspace(0, 1, x.size(1), dtype=x.dtype, device=x.device)
    between = torch.lerp(fake, real, mix[:, None]).requires_grad_()
    with twice():
        scores = lstm(between)[0].mean(0) @ head
    of_real, of_fake = both.chunk(2)
    loss = of_fake.mean() - of_real.mean() + 10 * _penalty(scores, between)
    return loss, *torch.autograd.grad(loss, tuple(lstm.parameters()))


STEPS: dict[str, Step] = {
    "LSTM forward": _forward,
    "LSTM forward+backward": _forward_backward,
    "LSTM WGAN-GP step": _wgan_gp,
}
CUDA_STEPS: dict[str, Step] = {
    "LSTM forward": _forward,
    "LSTM forward+backward": _forward_backward,
    "LSTM WGAN-GP critic step": _critic_step,
}
# "auto" is what a user gets.
CUDA_IMPLS = ("auto", "cuda", "triton", "cell", "torch")


def multiply_adds(step: str, shape: LSTMShape, sequence_steps: int | None = None) -> int:
    """The multiply-adds in the matrix products that ``step`` cannot do without.

    Of a layer with input I, in units of T*B*D*4H, a product with [x | h] is I + H:

    - forward: one.
    - forward+backward: two more, for the gradients of [x | h] and of the weights.
    - WGAN-GP step: forward; backward to x, without the weights; the tangent of the forward; the
      tangent of the backward (to h, and to x where a layer is below); two products for the weights,
      dz'^T [x | h] and dz^T [x' | h']. That gives the layer below a gradient of its output, which
      an ordinary backward takes from there, as far as its weights and the layers below need it.
    - WGAN-GP critic step: that; forward and backward of twice the batch, without the gradient of x.

    Args:
        sequence_steps: the valid steps of all sequences together; T*B if None.
    """
    rows = (sequence_steps or shape.T * shape.B) * shape.directions * 4 * shape.H
    total = 0
    for layer in range(shape.layers):
        first, last = layer == 0, layer == shape.layers - 1
        width = shape.I if first else shape.directions * shape.H
        both, against_time = width + shape.H, shape.H + (0 if first else width)
        if step == "LSTM forward":
            total += rows * both
        elif step == "LSTM forward+backward":
            total += rows * 3 * both
        else:
            total += rows * (5 * both + against_time)
            total += 0 if last else rows * (both + against_time)
            if step == "LSTM WGAN-GP critic step":
                total += 2 * rows * (2 * both + against_time)
    return total


@contextlib.contextmanager
def onednn(enabled: bool) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32 acceleration")
        with torch.backends.mkldnn.flags(enabled=enabled):
            yield


def build(layer: Layer, shape: LSTMShape, **options: Any) -> nn.Module:
    options |= {"num_layers": shape.layers, "bidirectional": shape.directions == 2}
    return layer(shape.I, shape.H, **options)


def draw(shape: LSTMShape, dtype: torch.dtype) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Weights, x and the cotangent of y, in values that ``dtype`` has: the same for all."""
    torch.manual_seed(0)
    source = build(nn.LSTM, shape).to(dtype)
    x = torch.randn(shape.T, shape.B, shape.I)
    cotangent = torch.randn(shape.T, shape.B, shape.directions * shape.H)
    return source.state_dict(), x.to(dtype), cotangent.to(dtype)


def prepare(
    layer: Layer,
    step: Step,
    shape: LSTMShape,
    dtype: torch.dtype,
    drawn: torch.dtype | None = None,
    device: str = "cpu",
) -> Call:
    """The call of ``step`` in ``dtype``, on values that were drawn in ``drawn`` (``dtype``)."""
    weights, x, cotangent = draw(shape, drawn or dtype)
    lstm = build(layer, shape).to(device, dtype)
    lstm.load_state_dict(weights)
    x = x.to(device, dtype).requires_grad_(step is not _forward)
    return functools.partial(step, lstm, x, cotangent.to(device, dtype))


def _kernels_only(call: Callable[[], Call], dtype: torch.dtype) -> Call:
    impl = resolve("lstm", None, "cpu", dtype)
    if impl != "cpu":
        raise Unsupported(f"no kernel for {dtype}: impl={impl}")
    return call()


@contextlib.contextmanager
def _dynamo(allow_rnn: bool) -> Iterator[None]:
    """``allow_rnn``: without it, Dynamo leaves an ``nn.LSTM`` to eager execution."""
    import torch._inductor.config as inductor  # here: slow to import, and few runs compile

    # Each shape is compiled for itself, however many there are, and in this run: what the compiler
    # had stored under another instruction set gave wrong answers here.
    dynamo = torch._dynamo.config.patch(allow_rnn=allow_rnn, recompile_limit=1000)
    with dynamo, inductor.patch(force_disable_caches=True):
        yield


def _compiled(
    layer: Layer, step: Step, shape: LSTMShape, dtype: torch.dtype, most_steps: float
) -> Call:
    if step is _forward_backward and most_steps < shape.T:
        raise Unsupported(
            f"the compiler unrolls steps, for minutes: {shape.T}, here at most {most_steps}"
        )
    lstm, *inputs = prepare(layer, step, shape, dtype).args
    # The whole graph, or none: a break would time eager execution under another name.
    call = functools.partial(step, torch.compile(lstm, fullgraph=True, dynamic=False), *inputs)
    try:
        call()
    except Exception as error:  # whatever the compiler lacks here is no failure of the benchmark
        raise Unsupported(f"torch.compile: {str(error).splitlines()[0][:80]}") from error
    return call


def compiled_contenders(
    step: Step, shape: LSTMShape, dtype: torch.dtype, most_steps: int, ours: str
) -> list[Contender]:
    """torch.compile of both. There is no double backward in it.

    Args:
        most_steps: what nn.LSTM's backward is compiled for at most; it takes a minute for 24.
        ours: the name of the contender that ours is put beside.
    """

    def call(layer: Layer, most_steps: float) -> Callable[[], Call]:
        return lambda: _compiled(layer, step, shape, dtype, most_steps)

    return [
        Contender(
            "FastLSTM, compiled",
            call(ganlstm_fast.FastLSTM, float("inf")),
            ours=True,
            beside=ours,
            context=lambda: _dynamo(allow_rnn=False),
        ),
        Contender(
            "nn.LSTM, compiled (allow_rnn)",
            call(nn.LSTM, most_steps),
            context=lambda: _dynamo(allow_rnn=True),
        ),
    ]


def reference(step: Step, shape: LSTMShape, drawn: torch.dtype, device: str = "cpu") -> Answer:
    with ganlstm_fast.use_impl("reference", "lstm"):
        answer = prepare(ganlstm_fast.FastLSTM, step, shape, torch.float64, drawn, device)()
    return [tensor.detach().cpu() for tensor in answer]


def lstm_work(group: str, shape: LSTMShape, compiled_steps: int | None = None) -> Work:
    """FastLSTM against nn.LSTM, in float32.

    Args:
        group: a key of ``STEPS``.
        compiled_steps: as ``most_steps`` of ``compiled_contenders``; None leaves these out.
    """
    step, dtype = STEPS[group], torch.float32
    impl = resolve("lstm", None, "cpu", dtype)
    name = "FastLSTM" if impl == "cpu" else f"FastLSTM (impl={impl})"
    theirs = functools.partial(prepare, nn.LSTM, step, shape, dtype)
    contenders = [
        Contender(
            name,
            functools.partial(prepare, ganlstm_fast.FastLSTM, step, shape, dtype),
            ours=True,
        ),
        Contender("nn.LSTM, oneDNN on", theirs),
        Contender("nn.LSTM, oneDNN off", theirs, context=lambda: onednn(False)),
    ]
    if compiled_steps is not None and step is not _wgan_gp:
        contenders += compiled_contenders(step, shape, dtype, compiled_steps, ours=name)
    return Work(
        group,
        str(shape),
        vars(shape),
        tuple(contenders),
        _once(lambda: reference(step, shape, dtype)),
        dtype,
        multiply_adds(group, shape),
    )


def bfloat16_work(group: str, shape: LSTMShape) -> Work:
    """FastLSTM in bfloat16 against itself in float32, and against nn.LSTM in bfloat16."""
    step, half, ours = STEPS[group], torch.bfloat16, ganlstm_fast.FastLSTM

    def call(layer: Layer, dtype: torch.dtype) -> Callable[[], Call]:
        return functools.partial(prepare, layer, step, shape, dtype, half)

    return Work(
        f"{group}, bf16",
        str(shape),
        vars(shape),
        (
            Contender(
                "FastLSTM, bfloat16",
                lambda: _kernels_only(call(ours, half), half),
                ours=True,
                beside="FastLSTM, float32",
            ),
            Contender("FastLSTM, float32", call(ours, torch.float32), ours=True),
            Contender("nn.LSTM, bfloat16, oneDNN on", call(nn.LSTM, half)),
        ),
        _once(lambda: reference(step, shape, half)),
        half,
        multiply_adds(group, shape),
    )


class FlashRNN(nn.LSTM):
    """``nn.LSTM`` of one layer and direction on the package flashrnn, without a state to start."""

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if importlib.util.find_spec("flashrnn") is None:
            raise Unsupported("the package flashrnn is not installed")
        from flashrnn import flashrnn

        steps, batch, hidden = *x.shape[:2], self.hidden_size
        products = nn.functional.linear(x, self.weight_ih_l0)
        states, last = flashrnn(
            products.view(steps, batch, 4, 1, hidden).transpose(0, 1),
            self.weight_hh_l0.view(4, 1, hidden, hidden),
            (self.bias_ih_l0 + self.bias_hh_l0).view(4, 1, hidden),
            function="lstm",
            backend="cuda_fused",
            dtype=str(x.dtype).removeprefix("torch."),
        )
        h, c = (state.reshape(1, batch, hidden) for state in last)
        return states[0].reshape(batch, steps, hidden).transpose(0, 1), (h, c)


def cuda_work(
    group: str,
    shape: LSTMShape,
    dtype: torch.dtype,
    tf32: bool | None = None,
    *,
    impls: Sequence[str] = CUDA_IMPLS,
    recompute: bool = False,
) -> Work:
    """FastLSTM on a GPU, by each of its implementations, against nn.LSTM and plain PyTorch.

    Args:
        group: a key of ``CUDA_STEPS``.
        tf32: see ``Work``.
        impls: which implementations.
        recompute: of a forward+backward, with these once more as ``recompute=True``.
    """
    step, ours = CUDA_STEPS[group], ganlstm_fast.FastLSTM

    def contender(
        name: str, layer: Layer, step: Step = step, cudnn: bool = True, **options: Any
    ) -> Contender:
        return Contender(
            name,
            functools.partial(prepare, layer, step, shape, dtype, device="cuda"),
            context=functools.partial(precision, tf32, cudnn),
            **options,
        )

    contenders = [
        contender(f"FastLSTM, {impl}", functools.partial(ours, impl=impl), ours=True)
        for impl in impls
    ]
    if recompute and step is _forward_backward:
        contenders += [
            contender(
                f"FastLSTM, {impl}, recompute",
                functools.partial(ours, impl=impl, recompute=True),
                ours=True,
                beside=f"FastLSTM, {impl}",
            )
            for impl in impls
            if impl not in ("auto", "torch")
        ]
    if step is _critic_step:
        # cuDNN's LSTM has no double backward: without it for the penalty alone, or for all.
        native = functools.partial(precision, tf32, False)
        mixed = functools.partial(_critic_step, twice=native)
        contenders += [
            contender("nn.LSTM, cuDNN off for the penalty", nn.LSTM, mixed),
            contender("nn.LSTM, cuDNN off", nn.LSTM, cudnn=False),
        ]
    else:
        contenders.append(contender("nn.LSTM, cuDNN", nn.LSTM))
        if dtype.itemsize == 2:
            contenders.append(contender("FlashRNN", FlashRNN))
    if shape.T <= 256:
        plain = functools.partial(ours, impl="reference")
        contenders.append(contender("plain PyTorch, step by step", plain))
    kind = {torch.float16: "fp16", torch.bfloat16: "bf16"}.get(dtype, "tf32" if tf32 else "fp32")
    return Work(
        f"CUDA {group}, {kind}",
        str(shape),
        vars(shape),
        tuple(contenders),
        _once(lambda: reference(step, shape, dtype, "cuda")),
        dtype,
        multiply_adds(group, shape),
        "cuda",
        tf32,
    )


def _once(truth: Callable[[], Answer]) -> Callable[[Answer], Answer]:
    known = functools.cache(truth)
    return lambda _: known()

"""The LSTM layer as a function: forward, backward and double backward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ganlstm_fast.ops import backends
from ganlstm_fast.ops.functions import records
from ganlstm_fast.ops.lstm import (
    autograd,
    fit,
    gpu,  # noqa: F401  (registers the operators for CUDA tensors)
    reference,
    torch_impl,
)
from ganlstm_fast.ops.validation import check_lengths, check_tensor, describe

__all__ = ["lstm", "lstm_cell", "work_of"]


def lstm(
    x: Tensor,
    weights: Sequence[Sequence[Tensor]],
    h0: Tensor | None = None,
    c0: Tensor | None = None,
    *,
    lengths: Tensor | Sequence[int] | None = None,
    recompute: bool = False,
    impl: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One LSTM layer over a whole sequence, in one or two directions.

    Differentiable twice with respect to ``x``, ``h0``, ``c0`` and the weights; a third derivative
    raises ``RuntimeError`` (``impl="reference"`` has every order). The equations are those of
    ``torch.nn.LSTM``, see :func:`ganlstm_fast.ops.lstm.reference.lstm`.

    Args:
        x: (T, B, I), T >= 1; float32, float64 or bfloat16 for the compiled kernels, any floating
            dtype else. bfloat16 is summed in float32.
        weights: for each of the D = 1 or 2 directions ``(weight_ih, weight_hh)`` or ``(weight_ih,
            weight_hh, bias_ih, bias_hh)`` of shapes (4H, I), (4H, H), (4H,), (4H,). The second
            direction reads the sequence backwards.
        h0: (D, B, H); zeros if None.
        c0: (D, B, H); zeros if None.
        lengths: (B,) integers in 1..T: valid steps of each sequence. Later steps are not read,
            their outputs and gradients are 0, and the second direction starts at the last valid
            step.
            Lengths on a GPU are not checked, which would synchronise.
        recompute: keep no gates for the backward, which then computes them again, a few time steps
            at a time: the same numbers in a fraction of the memory, for the time of one more
            forward. (Bit for bit, unless there are fewer rows than threads or T * B <= 16.) A
            backward that is itself recorded (``create_graph=True``) computes them all at once,
            keeps them, and takes the memory that it takes without. Of the compiled kernels only:
            where another implementation is to be differentiated, it warns once and keeps
            everything.
        impl: see :mod:`ganlstm_fast.ops.backends`; None is the default in force.

    Returns:
        y (T, B, D*H), h_T (D, B, H), c_T (D, B, H): the outputs, and the state after the last valid
        step of each direction.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, dtype or device.
        RuntimeError: ``impl`` cannot serve the call.
    """
    check_tensor("x", x, (None, None, None), expected="(T, B, I)")
    if x.size(0) == 0:
        raise ValueError("x: expected at least one time step, got shape " + str(tuple(x.shape)))
    flat = _check_weights(x, weights)
    directions, hidden = len(weights), weights[0][1].size(1)
    state = (directions, x.size(1), hidden)
    h0 = _state("h0", h0, state, x)
    c0 = _state("c0", c0, state, x)
    if lengths is not None:
        lengths = check_lengths(lengths, x.size(1), x.size(0))
    return _run(x, weights, flat, h0, c0, lengths, recompute, impl)


def lstm_cell(
    x: Tensor,
    weights: Sequence[Tensor],
    h: Tensor,
    c: Tensor,
    *,
    impl: str | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of an LSTM: x (B, I), h and c (B, H) to the next h and c (B, H).

    ``weights`` are ``(weight_ih, weight_hh)`` or these with ``bias_ih, bias_hh``. Orders of
    differentiation and errors as for :func:`lstm`; but ``impl="torch"`` is ``torch.lstm_cell``,
    which has every order. ``"auto"`` takes it too where a gradient is recorded: one step is too
    little work to make up for what recording a fused one costs.
    """
    check_tensor("x", x, (None, None), expected="(B, I)")
    step = x.unsqueeze(0)
    flat = _check_weights(step, [weights])
    state = (x.size(0), weights[1].size(1))
    check_tensor("h", h, state, like=x)
    check_tensor("c", c, state, like=x)
    name = backends.resolve("lstm", impl, x.device, x.dtype)
    is_auto = backends.is_auto("lstm", impl, x.device)
    if name == "torch" or (is_auto and records(x, h, c, *flat)):
        return torch.lstm_cell(x, (h, c), *flat)
    _, h_next, c_next = _run(
        step, [weights], flat, h.unsqueeze(0), c.unsqueeze(0), None, False, name
    )
    return h_next.squeeze(0), c_next.squeeze(0)


def _run(
    x: Tensor,
    weights: Sequence[Sequence[Tensor]],
    flat: list[Tensor],
    h0: Tensor,
    c0: Tensor,
    lengths: Tensor | None,
    recompute: bool,
    impl: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    recorded = records(x, h0, c0, *flat)
    name = fit.choose(impl, x, h0.size(2), work_of(recorded, recompute, lengths))
    is_torch = name in ("reference", "torch")
    if recompute and is_torch and recorded:
        backends.warn_once(
            f"ganlstm_fast: recompute=True saves no memory with lstm's {name!r} implementation, "
            f"which runs for {x.dtype} on {x.device.type}; torch.utils.checkpoint does"
        )
    if name == "reference":
        return reference.lstm(x, weights, h0, c0, lengths)
    if name == "torch":
        return torch_impl.lstm_forward(x, flat, h0, c0, lengths)
    if lengths is not None:
        lengths = lengths.to(x.device, non_blocking=x.is_cuda)  # to a CPU it has to arrive
    return autograd.lstm_forward(
        x=x.contiguous(),
        weights=[w.contiguous() for w in flat],
        h0=h0.contiguous(),
        c0=c0.contiguous(),
        lengths=lengths,
        recompute=recompute,
        impl=name,
    )


def work_of(recorded: bool, recompute: bool, lengths: Tensor | None) -> str:
    """The kind of work that ``fit.choose`` chooses an implementation for.

    torch's LSTM cannot compute its gates again, and reads lengths on the host, which waits for the
    device.
    """
    if (recompute and recorded) or (lengths is not None and lengths.is_cuda):
        return fit.SECOND_ORDER
    return fit.TRAINING if recorded else fit.FORWARD


def _state(name: str, value: Tensor | None, shape: tuple[int, ...], x: Tensor) -> Tensor:
    if value is None:
        return x.new_zeros(shape)
    check_tensor(name, value, shape, like=x)
    return value


def _check_weights(x: Tensor, weights: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """The weights of all directions in one list, after checking them."""
    if len(weights) not in (1, 2) or not all(len(w) in (2, 4) for w in weights):
        raise ValueError(
            "weights: expected (weight_ih, weight_hh[, bias_ih, bias_hh]) for one or two "
            f"directions, got {[len(w) for w in weights]} tensors"
        )
    if len(weights[0]) != len(weights[-1]):
        raise ValueError("weights: expected biases in both directions or in neither")
    recurrent = weights[0][1]
    if not isinstance(recurrent, Tensor) or recurrent.dim() != 2:
        raise ValueError(f"weights[0][1]: expected shape (4H, H), got {describe(recurrent)}")
    hidden = recurrent.size(1)
    shapes = ((4 * hidden, x.size(2)), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,))
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    for direction, of_direction in enumerate(weights):
        for name, shape, value in zip(names, shapes, of_direction, strict=False):
            check_tensor(f"weights[{direction}] {name}", value, shape, like=x)
    return [w for of_direction in weights for w in of_direction]

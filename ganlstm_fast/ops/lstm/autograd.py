"""The autograd Functions of the LSTM: three orders, the last of which raises.

``LSTMFunction`` differentiates once through ``LSTMBackwardFunction`` when the backward is itself
recorded (``create_graph=True``), that one through ``LSTMDoubleBackwardFunction``, and that one only
for the cotangents that it is linear in, as ``torch.autograd.functional.hvp`` does; for anything
else its backward raises. ``torch.autograd.function.once_differentiable`` would not do, since a
sum of a third-order term and an ordinary one backpropagates through it with the former silently
missing.

The operators ``torch.ops.ganlstm_fast.lstm_*`` have these Functions as their Autograd
implementation, so that ``torch.compile`` and callers of the bare operators get the same gradients.

With a ``window`` the forward keeps neither gates nor cell states but those between windows of so
many time steps. A backward computes a window again when it gets there; one that is recorded
computes all steps again at once, since the double backward needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ganlstm_fast.ops import backends
from ganlstm_fast.ops.functions import (
    Function,
    added,
    are_tensors,
    contiguous,
    records,
    refuse_unless_linear,
    wanted_inputs,
)
from ganlstm_fast.ops.lstm import gpu

_ops = torch.ops.ganlstm_fast

# Steps. What is kept is then an eighth of c, and what is computed again at a time is small beside
# it in a long sequence.
RECOMPUTE_WINDOW = 8
# A GPU needs more at a time to be busy.
RECOMPUTE_WINDOW_GPU = 64

THIRD_ORDER = (
    "ganlstm_fast: the fused LSTM is differentiable twice, and a third derivative was asked for; "
    'use impl="reference", which is differentiable to any order'
)


def _forward_kernel(*arguments: Any) -> tuple[Tensor, ...]:
    with torch._C._AutoDispatchBelowAutograd():
        return _ops.lstm_forward.default(*arguments)


def _backward_kernel(*arguments: Any) -> tuple[Any, ...]:
    with torch._C._AutoDispatchBelowAutograd():
        return _ops.lstm_backward.default(*arguments)


def _double_backward_kernel(*arguments: Any) -> tuple[Any, ...]:
    with torch._C._AutoDispatchBelowAutograd():
        return _ops.lstm_double_backward.default(*arguments)


def _all_steps(
    x: Tensor,
    weights: Sequence[Tensor],
    h0: Tensor,
    c0: Tensor,
    lengths: Tensor | None,
    gates: Tensor,
    c: Tensor,
    window: int,
    impl: str,
) -> tuple[Tensor, Tensor]:
    """Gates and cell states of the whole sequence, computed again if a window kept them away."""
    if window == 0:
        return gates, c
    with torch.no_grad():
        gates, c = _ops.lstm_forward(x, weights, h0, c0, lengths, True, 0, impl)[3:]
    return gates, c


def _absent_if_empty(tensor: Tensor, wanted: bool) -> Tensor | None:
    return tensor if wanted else None


def _grouped(needs: Sequence[bool], per_direction: int) -> list[bool]:
    """[weight_ih, weight_hh, bias] wanted in any direction, from the weights in flat order."""

    def any_of(kind: int) -> bool:
        return any(needs[kind::per_direction])

    return [any_of(0), any_of(1), per_direction == 4 and (any_of(2) or any_of(3))]


def _flat(values: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor | None]:
    return [value if need else None for value, need in zip(values, needs, strict=True)]


class LSTMFunction(Function):
    """(x, h0, c0, lengths, window, impl, *weights) -> y, h_T, c_T, saved gates and cell states."""

    @staticmethod
    def forward(
        x: Tensor,
        h0: Tensor,
        c0: Tensor,
        lengths: Tensor | None,
        window: int,
        impl: str,
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        return _forward_kernel(x, weights, h0, c0, lengths, True, window, impl)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, h0, c0, lengths, ctx.window, ctx.impl, *weights = inputs
        y, _, _, gates, c = output
        ctx.mark_non_differentiable(gates, c)
        ctx.set_materialize_grads(False)
        ctx.are_tensors = are_tensors(inputs)
        ctx.save_for_backward(x, h0, c0, lengths, y, gates, c, *weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_y, grad_h, grad_c = (contiguous(g) for g in grads[:3])
        x, h0, c0, lengths, y, gates, c, *weights = ctx.saved_tensors
        if grad_y is None and grad_h is None and grad_c is None:
            return (None,) * (6 + len(weights))
        needs = wanted_inputs(ctx, ctx.are_tensors, 6)
        per_direction = len(weights) // h0.size(0)
        wanted = [*needs[:3], *_grouped(needs[6:], per_direction)]
        # y is a function of the inputs, but its share of the second derivative is in the double
        # backward's equations: seen from there it is a constant.
        inputs = (x, h0, c0, lengths, y.detach())
        if torch.is_grad_enabled():
            saved = _all_steps(x, weights, h0, c0, lengths, gates, c, ctx.window, ctx.impl)
            outputs = LSTMBackwardFunction.apply(
                grad_y, grad_h, grad_c, *inputs, *saved, wanted, ctx.impl, *weights
            )
            grad_x, grad_h0, grad_c0, _, _, *grad_weights = outputs
        else:
            grad_x, grad_h0, grad_c0, grad_weights, _, _ = _backward_kernel(
                *(grad_y, grad_h, grad_c, x, weights, *inputs[1:], gates, c),
                *(wanted, False, ctx.window, ctx.impl),
            )
        return (
            _absent_if_empty(grad_x, needs[0]),
            _absent_if_empty(grad_h0, needs[1]),
            _absent_if_empty(grad_c0, needs[2]),
            *(None,) * 3,
            *_flat(grad_weights, needs[6:]),
        )


class LSTMBackwardFunction(Function):
    """(grad_y, grad_h_T, grad_c_T, x, h0, c0, lengths, y, gates, c, wanted, impl, *weights).

    Returns grad_x, grad_h0, grad_c0, dz, d, *grad_weights; what is not wanted is empty.
    h0, c0 and the biases are inputs although the backward hardly reads them: second-order
    gradients flow to them.
    """

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        grad_y, grad_h, grad_c, x, h0, c0, lengths, y, gates, c, wanted, impl, *weights = inputs
        grad_x, grad_h0, grad_c0, grad_weights, dz, d = _backward_kernel(
            *(grad_y, grad_h, grad_c, x, weights, h0, c0, lengths, y, gates, c),
            *(wanted, True, 0, impl),
        )
        return grad_x, grad_h0, grad_c0, dz, d, *grad_weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        grad_y, grad_h, grad_c, x, h0, c0, lengths, y, gates, c, _, ctx.impl, *weights = inputs
        dz, d = output[3:5]
        ctx.mark_non_differentiable(dz, d)
        ctx.set_materialize_grads(False)
        ctx.are_tensors = are_tensors(inputs)
        # The second order reads these two through dz and d, which have no graph; a third order
        # must still find its way to the error.
        through = [g if g is not None and g.requires_grad else None for g in (grad_y, grad_h)]
        ctx.save_for_backward(*through, grad_c, x, h0, c0, lengths, y, gates, c, dz, d, *weights)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        v_x, v_h0, v_c0, _, _, *v_weights = (contiguous(v) for v in cotangents)
        grad_y, grad_h, grad_c, x, h0, c0, lengths, y, gates, c, dz, d, *weights = ctx.saved_tensors
        if v_x is None and v_h0 is None and v_c0 is None and all(v is None for v in v_weights):
            return (None,) * (12 + len(weights))
        needs = wanted_inputs(ctx, ctx.are_tensors, 12)
        per_direction = len(weights) // h0.size(0)
        wanted = [*needs[:6], *_grouped(needs[12:], per_direction)]
        arguments = (grad_c, x, h0, c0, lengths, y, gates, c, dz, d)
        if torch.is_grad_enabled():
            outputs = LSTMDoubleBackwardFunction.apply(
                v_x,
                v_h0,
                v_c0,
                *arguments,
                wanted,
                ctx.impl,
                len(weights),
                *v_weights,
                *weights,
                grad_y,
                grad_h,
            )
        else:
            outputs = _double_backward(
                v_x, v_h0, v_c0, v_weights, arguments, weights, wanted, ctx.impl
            )
        return (
            *_flat(outputs[:6], needs[:6]),
            *(None,) * 6,
            *_flat(outputs[6:], needs[12:]),
        )


class LSTMDoubleBackwardFunction(Function):
    """Second-order gradients as a node of the graph, so that a third order meets an error.

    (v_x, v_h0, v_c0, grad_c, x, h0, c0, lengths, y, gates, c, dz, d, wanted, impl, count,
    *v_weights, *weights, *unread) -> the gradients of grad_y, grad_h_T, grad_c_T, x, h0, c0,
    *weights. ``unread`` are what dz and d stand for.
    """

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        v_x, v_h0, v_c0, *arguments = inputs[:13]
        wanted, impl, count = inputs[13:16]
        v_weights, weights = inputs[16 : 16 + count], inputs[16 + count : 16 + 2 * count]
        return _double_backward(v_x, v_h0, v_c0, v_weights, arguments, weights, wanted, impl)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, ctx.impl, ctx.count = inputs[13:16]
        ctx.set_materialize_grads(False)
        ctx.are_tensors = are_tensors(inputs)
        ctx.save_for_backward(*inputs[3:13], *inputs[16 + ctx.count :])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        count = ctx.count
        grad_c, x, h0, c0, lengths, y, gates, c, dz, d, *rest = ctx.saved_tensors
        weights, unread = rest[:count], rest[count:]
        linear = (0, 1, 2, *range(16, 16 + count))
        needs = refuse_unless_linear(ctx, ctx.are_tensors, linear, THIRD_ORDER)
        w_grads, w_inputs = (
            [contiguous(w) for w in part] for part in (cotangents[:3], cotangents[3:])
        )
        needs = [needs[index] for index in linear]
        found: list[Tensor | None] = [None] * len(needs)
        wanted = [*needs[:3], *_grouped(needs[3:], count // h0.size(0))]
        if any(w is not None for w in w_grads):
            grad_x, grad_h0, grad_c0, _, _, *grad_weights = LSTMBackwardFunction.apply(
                *(*w_grads, x, h0, c0, lengths, y, gates, c, wanted, ctx.impl, *weights)
            )
            found = _flat([grad_x, grad_h0, grad_c0, *grad_weights], needs)
        if any(w is not None for w in w_inputs):
            v_x, v_h0, v_c0, *v_weights = w_inputs
            arguments = (grad_c, x, h0, c0, lengths, y, gates, c, dz, d)
            outputs = LSTMDoubleBackwardFunction.apply(
                *(v_x, v_h0, v_c0, *arguments, [False] * 3 + wanted, ctx.impl, count),
                *(*v_weights, *weights, *unread),
            )
            second = _flat(outputs[3:], needs)
            found = [added(a, b) for a, b in zip(found, second, strict=True)]
        return *found[:3], *(None,) * 13, *found[3:], *(None,) * (count + len(unread))


def _double_backward(
    v_x: Tensor | None,
    v_h0: Tensor | None,
    v_c0: Tensor | None,
    v_weights: Sequence[Tensor | None],
    arguments: Sequence[Any],
    weights: Sequence[Tensor],
    wanted: list[bool],
    impl: str,
) -> tuple[Tensor, ...]:
    grad_c, x, *rest = arguments
    *outputs, weight_outputs = _double_backward_kernel(
        v_x, v_h0, v_c0, v_weights, grad_c, x, weights, *rest, wanted, impl
    )
    return (*outputs, *weight_outputs)


def lstm_forward(
    x: Tensor,
    weights: Sequence[Tensor],
    h0: Tensor,
    c0: Tensor,
    lengths: Tensor | None,
    recompute: bool = False,
    impl: str = "",
) -> tuple[Tensor, Tensor, Tensor]:
    """The fused layer: y, h_T, c_T; recorded only where a gradient can be asked for.

    ``impl``: one of the device's; "" leaves it to the operator.
    """
    window = RECOMPUTE_WINDOW_GPU if x.is_cuda else RECOMPUTE_WINDOW
    window = window if recompute else 0
    if torch.compiler.is_compiling():
        save = records(x, h0, c0, *weights)
        return _ops.lstm_forward(x, weights, h0, c0, lengths, save, window, impl)[:3]
    if records(x, h0, c0, *weights):
        outputs = LSTMFunction.apply(x, h0, c0, lengths, window, impl, *weights)[:3]
        # A hook on an output of a node with several is called with None where the loss does not
        # use that output; on an alias it is not called at all.
        y, h, c = (output.view_as(output) for output in outputs)
        return y, h, c
    return _forward_kernel(x, weights, h0, c0, lengths, False, 0, impl)[:3]


def _forward_autograd(
    x: Tensor,
    weights: list[Tensor],
    h0: Tensor,
    c0: Tensor,
    lengths: Tensor | None,
    save: bool,
    window: int = 0,
    impl: str = "",
) -> tuple[Tensor, ...]:
    if records(x, h0, c0, *weights):
        return LSTMFunction.apply(x, h0, c0, lengths, window, impl, *weights)
    return _forward_kernel(x, weights, h0, c0, lengths, save, window, impl)


def _backward_autograd(
    grad_y: Tensor | None,
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    x: Tensor,
    weights: list[Tensor],
    h0: Tensor,
    c0: Tensor,
    lengths: Tensor | None,
    y: Tensor,
    gates: Tensor,
    c: Tensor,
    wanted: list[bool],
    save: bool,
    window: int = 0,
    impl: str = "",
) -> tuple[Any, ...]:
    if records(grad_y, grad_h, grad_c, x, h0, c0, y, gates, c, *weights):
        saved = _all_steps(x, weights, h0, c0, lengths, gates, c, window, impl)
        grad_x, grad_h0, grad_c0, dz, d, *grad_weights = LSTMBackwardFunction.apply(
            grad_y, grad_h, grad_c, x, h0, c0, lengths, y, *saved, wanted, impl, *weights
        )
        return grad_x, grad_h0, grad_c0, grad_weights, dz, d
    return _backward_kernel(
        *(grad_y, grad_h, grad_c, x, weights, h0, c0, lengths, y, gates, c),
        *(wanted, save, window, impl),
    )


def _double_backward_autograd(
    v_x: Tensor | None,
    v_h0: Tensor | None,
    v_c0: Tensor | None,
    v_weights: list[Tensor | None],
    grad_c: Tensor | None,
    x: Tensor,
    weights: list[Tensor],
    h0: Tensor,
    c0: Tensor,
    lengths: Tensor | None,
    y: Tensor,
    gates: Tensor,
    c: Tensor,
    dz: Tensor,
    d: Tensor,
    wanted: list[bool],
    impl: str = "",
) -> tuple[Any, ...]:
    # A bare call: dz and d are constants, since it is not told which cotangents they stand for.
    saved = (h0, c0, lengths, y, gates, c, dz, d)
    if records(v_x, v_h0, v_c0, *v_weights, grad_c, x, *saved, *weights):
        outputs = LSTMDoubleBackwardFunction.apply(
            *(v_x, v_h0, v_c0, grad_c, x, *saved, wanted, impl, len(weights)),
            *(*v_weights, *weights),
        )
        return (*outputs[:6], list(outputs[6:]))
    return _double_backward_kernel(
        v_x, v_h0, v_c0, v_weights, grad_c, x, weights, *saved, wanted, impl
    )


def _wanted_like(tensors: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor]:
    return [t.new_empty(t.shape if want else (0,)) for t, want in zip(tensors, wanted, strict=True)]


def _weights_like(
    weights: Sequence[Tensor], directions: int, wanted: Sequence[bool]
) -> list[Tensor]:
    kinds = [wanted[0], wanted[1], wanted[2], wanted[2]][: len(weights) // directions]
    return _wanted_like(weights, kinds * directions)


def _saved_dtype(x: Tensor) -> torch.dtype:
    """Of the gates and states that one pass saves for the next."""
    return torch.float32 if x.dtype.itemsize == 2 else x.dtype


def _steps_like(x: Tensor, h0: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """gates, in a dtype, and c of all steps; dz and d are of the same shapes."""
    directions, batch, hidden = h0.shape
    states = (x.size(0), batch, directions)
    c = x.new_empty(*states, hidden, dtype=_saved_dtype(x))
    return x.new_empty(*states, 4 * hidden, dtype=dtype), c


def _forward_fake(
    x: Tensor,
    weights: list[Tensor],
    h0: Tensor,
    c0: Tensor,
    lengths: Tensor | None,
    save: bool,
    window: int = 0,
    impl: str = "",
) -> tuple[Tensor, ...]:
    directions, batch, hidden = h0.shape
    gates, c = _steps_like(x, h0, _saved_dtype(x))
    if window > 0:
        c = c.new_empty((x.size(0) - 1) // window, *h0.shape)
    return (
        x.new_empty(x.size(0), batch, directions * hidden),
        h0.new_empty(h0.shape),
        c0.new_empty(c0.shape),
        *_wanted_like((gates, c), (save and window == 0, save)),
    )


def _backward_fake(
    grad_y: Tensor | None,
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    x: Tensor,
    weights: list[Tensor],
    h0: Tensor,
    c0: Tensor,
    lengths: Tensor | None,
    y: Tensor,
    gates: Tensor,
    c: Tensor,
    wanted: list[bool],
    save: bool,
    window: int = 0,
    impl: str = "",
) -> tuple[Any, ...]:
    return (
        *_wanted_like((x, h0, c0), wanted[:3]),
        _weights_like(weights, h0.size(0), wanted[3:]),
        *_wanted_like(_steps_like(x, h0, x.dtype), (save, save)),
    )


def _double_backward_fake(
    v_x: Tensor | None,
    v_h0: Tensor | None,
    v_c0: Tensor | None,
    v_weights: list[Tensor | None],
    grad_c: Tensor | None,
    x: Tensor,
    weights: list[Tensor],
    h0: Tensor,
    c0: Tensor,
    lengths: Tensor | None,
    y: Tensor,
    gates: Tensor,
    c: Tensor,
    dz: Tensor,
    d: Tensor,
    wanted: list[bool],
    impl: str = "",
) -> tuple[Any, ...]:
    return (
        *_wanted_like((y, h0, c0, x, h0, c0), wanted[:6]),
        _weights_like(weights, h0.size(0), wanted[6:]),
    )


def _register() -> torch.library.Library:
    library = torch.library.Library("ganlstm_fast", "IMPL")
    for name, autograd, fake in (
        ("lstm_forward", _forward_autograd, _forward_fake),
        ("lstm_backward", _backward_autograd, _backward_fake),
        ("lstm_double_backward", _double_backward_autograd, _double_backward_fake),
    ):
        library.impl(name, autograd, "Autograd")
        library.impl(name, getattr(gpu, name), "CUDA")
        torch.library.register_fake(f"ganlstm_fast::{name}", fake, lib=library)
    return library


# Kept for the life of the process: the registrations end with the object.
_library = _register() if backends.is_loaded("cpu") else None

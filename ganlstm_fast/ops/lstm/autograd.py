"""The autograd Functions of the LSTM: three orders; the last one raises.

``LSTMFunction`` differentiates through ``LSTMBackwardFunction`` where the backward is itself
recorded (``create_graph=True``), and that one through ``LastOrder``, which differentiates only the
cotangents that the double backward is linear in, and raises for anything else.

The operators ``torch.ops.ganlstm_fast.lstm_*`` have these Functions as their Autograd
implementation, so that ``torch.compile`` and callers of the bare operators get the same gradients.

With a ``window`` the forward keeps neither gates nor cell states, except the states between windows
of so many time steps. A backward computes a window again when it gets there; one that is recorded
computes all steps again at once, since the double backward needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ganlstm_fast.ops.functions import (
    Function,
    LastOrder,
    Layout,
    SecondOrder,
    all_added,
    are_tensors,
    contiguous,
    double_backward,
    if_wanted,
    records,
    wanted_inputs,
)
from ganlstm_fast.ops.lstm import operators
from ganlstm_fast.ops.lstm.operators import (
    BackwardArguments,
    DoubleBackwardArguments,
    ForwardArguments,
    Wanted,
    WantedAgain,
)

# Time steps per window: keeps 1/8 of c, and the recomputed window is small compared with the
# sequence.
RECOMPUTE_WINDOW = 8
# A GPU needs more at a time to be busy.
RECOMPUTE_WINDOW_GPU = 64


FORWARD = Layout(ForwardArguments, "weights")
BACKWARD = Layout(BackwardArguments, "weights")
DOUBLE_BACKWARD = Layout(DoubleBackwardArguments, "v_weights", "weights")


def _all_steps(a: BackwardArguments) -> BackwardArguments:
    """With gates and cell states of the whole sequence, computed again if a window was kept."""
    if a.window == 0:
        return a
    forward = ForwardArguments(a.x, a.weights, a.h0, a.c0, a.lengths, save=True, impl=a.impl)
    with torch.no_grad():
        _, _, _, gates, c = operators.lstm_forward.dispatch(forward)
    return a._replace(gates=gates, c=c, window=0)


def _weights_wanted(needs: Sequence[bool], directions: int) -> tuple[bool, bool, bool]:
    """weight_ih, weight_hh, bias: wanted in any direction, from the weights in flat order."""
    kinds = [needs[kind :: len(needs) // directions] for kind in range(len(needs) // directions)]
    weight_ih, weight_hh, *biases = map(any, kinds)
    return weight_ih, weight_hh, any(biases)


class LSTMFunction(Function):
    """``ForwardArguments`` with ``save``, flat -> y, h_T, c_T, saved gates and cell states."""

    @staticmethod
    def forward(*flat: Any) -> tuple[Tensor, ...]:
        return operators.lstm_forward(FORWARD.of(flat))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        a = FORWARD.of(inputs)
        ctx.window, ctx.impl = a.window, a.impl
        y, _, _, gates, c = output
        ctx.mark_non_differentiable(gates, c)
        ctx.set_materialize_grads(False)
        ctx.are_tensors = are_tensors(inputs)
        ctx.save_for_backward(a.x, a.h0, a.c0, a.lengths, y, gates, c, *a.weights)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_y, grad_h, grad_c, _, _ = cotangents
        x, h0, c0, lengths, y, gates, c, *weights = ctx.saved_tensors
        if grad_y is None and grad_h is None and grad_c is None:
            return FORWARD.gradients(len(weights))
        needs = wanted_inputs(ctx, FORWARD)
        is_recorded = torch.is_grad_enabled()
        a = BackwardArguments(
            grad_y=contiguous(grad_y),
            grad_h_last=contiguous(grad_h),
            grad_c_last=contiguous(grad_c),
            x=x,
            weights=weights,
            h0=h0,
            c0=c0,
            lengths=lengths,
            # y depends on the inputs, but the double backward's equations contain that share of
            # the second derivative, so y is a constant there.
            y=y.detach(),
            gates=gates,
            c=c,
            wanted=Wanted(needs.x, needs.h0, needs.c0, *_weights_wanted(needs.weights, h0.size(0))),
            save=is_recorded,
            window=ctx.window,
            impl=ctx.impl,
        )
        grad_x, grad_h0, grad_c0, grad_weights, _, _ = (
            _recorded_backward(a) if is_recorded else operators.lstm_backward(a)
        )
        return FORWARD.gradients(
            len(weights),
            x=grad_x if needs.x else None,
            h0=grad_h0 if needs.h0 else None,
            c0=grad_c0 if needs.c0 else None,
            weights=if_wanted(grad_weights, needs.weights),
        )


class LSTMBackwardFunction(Function):
    """``BackwardArguments`` with ``save``, flat -> grad_x, grad_h0, grad_c0, dz, d, *grad_weights.

    What is not wanted is empty. h0, c0 and the biases are inputs although the backward hardly reads
    them: second-order gradients flow to them.
    """

    @staticmethod
    def forward(*flat: Any) -> tuple[Tensor, ...]:
        results = operators.lstm_backward(BACKWARD.of(flat))
        grad_x, grad_h0, grad_c0, grad_weights, dz, d = results
        return grad_x, grad_h0, grad_c0, dz, d, *grad_weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        a = BACKWARD.of(inputs)
        ctx.impl = a.impl
        _, _, _, dz, d, *_ = output
        ctx.mark_non_differentiable(dz, d)
        ctx.set_materialize_grads(False)
        ctx.are_tensors = are_tensors(inputs)
        grads = (a.grad_y, a.grad_h_last)
        through = [g if g is not None and g.requires_grad else None for g in grads]
        saved = (a.x, a.h0, a.c0, a.lengths, a.y, a.gates, a.c, dz, d)
        ctx.save_for_backward(*through, a.grad_c_last, *saved, *a.weights)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        v_x, v_h0, v_c0, _, _, *v_weights = map(contiguous, cotangents)
        grad_y, grad_h, grad_c, x, h0, c0, lengths, y, gates, c, dz, d, *weights = ctx.saved_tensors
        if v_x is None and v_h0 is None and v_c0 is None and all(v is None for v in v_weights):
            return BACKWARD.gradients(len(weights))
        needs = wanted_inputs(ctx, BACKWARD)
        a = DoubleBackwardArguments(
            v_x=v_x,
            v_h0=v_h0,
            v_c0=v_c0,
            v_weights=v_weights,
            grad_c_last=grad_c,
            x=x,
            weights=weights,
            h0=h0,
            c0=c0,
            lengths=lengths,
            y=y,
            gates=gates,
            c=c,
            dz=dz,
            d=d,
            wanted=WantedAgain(
                needs.grad_y,
                needs.grad_h_last,
                needs.grad_c_last,
                needs.x,
                needs.h0,
                needs.c0,
                *_weights_wanted(needs.weights, h0.size(0)),
            ),
            impl=ctx.impl,
        )
        g_grad_y, g_grad_h, g_grad_c, g_x, g_h0, g_c0, *g_weights = double_backward(
            SECOND_ORDER, a, unread=(grad_y, grad_h)
        )
        return BACKWARD.gradients(
            len(weights),
            grad_y=g_grad_y if needs.grad_y else None,
            grad_h_last=g_grad_h if needs.grad_h_last else None,
            grad_c_last=g_grad_c if needs.grad_c_last else None,
            x=g_x if needs.x else None,
            h0=g_h0 if needs.h0 else None,
            c0=g_c0 if needs.c0 else None,
            weights=if_wanted(g_weights, needs.weights),
        )


def _run_double_backward(a: DoubleBackwardArguments) -> tuple[Tensor, ...]:
    *results, g_weights = operators.lstm_double_backward(a)
    return *results, *g_weights


def _transposed(
    a: DoubleBackwardArguments,
    cotangents: Sequence[Tensor | None],
    needs: DoubleBackwardArguments,
    unread: Sequence[Tensor | None],
) -> dict[str, Any]:
    """See ``SecondOrder.transposed``."""
    w_grad_y, w_grad_h, w_grad_c, *w_inputs = map(contiguous, cotangents)
    flat_needs = [needs.v_x, needs.v_h0, needs.v_c0, *needs.v_weights]
    wanted = Wanted(
        needs.v_x, needs.v_h0, needs.v_c0, *_weights_wanted(needs.v_weights, a.h0.size(0))
    )
    found: list[Tensor | None] = [None] * len(flat_needs)
    if any(w is not None for w in (w_grad_y, w_grad_h, w_grad_c)):
        grad_x, grad_h0, grad_c0, grad_weights, _, _ = _recorded_backward(
            BackwardArguments(
                grad_y=w_grad_y,
                grad_h_last=w_grad_h,
                grad_c_last=w_grad_c,
                x=a.x,
                weights=a.weights,
                h0=a.h0,
                c0=a.c0,
                lengths=a.lengths,
                y=a.y,
                gates=a.gates,
                c=a.c,
                wanted=wanted,
                save=True,
                impl=a.impl,
            )
        )
        found = if_wanted([grad_x, grad_h0, grad_c0, *grad_weights], flat_needs)
    if any(w is not None for w in w_inputs):
        v_x, v_h0, v_c0, *v_weights = w_inputs
        again = a._replace(
            v_x=v_x,
            v_h0=v_h0,
            v_c0=v_c0,
            v_weights=v_weights,
            wanted=WantedAgain(False, False, False, *wanted),
        )
        _, _, _, *results = double_backward(SECOND_ORDER, again, unread)
        found = all_added(found, if_wanted(results, flat_needs))
    of_x, of_h0, of_c0, *of_weights = found
    return {"v_x": of_x, "v_h0": of_h0, "v_c0": of_c0, "v_weights": of_weights}


SECOND_ORDER = SecondOrder(
    what="LSTM",
    layout=DOUBLE_BACKWARD,
    linear=("v_x", "v_h0", "v_c0", "v_weights"),
    run=_run_double_backward,
    transposed=_transposed,
)


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
    save = records(x, h0, c0, *weights)
    window = (RECOMPUTE_WINDOW_GPU if x.is_cuda else RECOMPUTE_WINDOW) if recompute and save else 0
    a = ForwardArguments(x, weights, h0, c0, lengths, save=save, window=window, impl=impl)
    if torch.compiler.is_compiling():
        y, h, c, _, _ = operators.lstm_forward.dispatch(a)
    elif save:
        y, h, c, _, _ = LSTMFunction.apply(*FORWARD.flat(a))
        # A hook on an output of a node with several is called with None where the loss does not
        # use that output; on an alias it is not called at all.
        y, h, c = (output.view_as(output) for output in (y, h, c))
    else:
        y, h, c, _, _ = operators.lstm_forward(a)
    return y, h, c


@operators.lstm_forward.differentiate
def _recorded_forward(a: ForwardArguments) -> tuple[Tensor, ...]:
    return LSTMFunction.apply(*FORWARD.flat(a._replace(save=True)))


@operators.lstm_backward.differentiate
def _recorded_backward(a: BackwardArguments) -> tuple[Any, ...]:
    outputs = LSTMBackwardFunction.apply(*BACKWARD.flat(_all_steps(a)._replace(save=True)))
    grad_x, grad_h0, grad_c0, dz, d, *grad_weights = outputs
    return grad_x, grad_h0, grad_c0, grad_weights, dz, d


@operators.lstm_double_backward.differentiate
def _recorded_double_backward(a: DoubleBackwardArguments) -> tuple[Any, ...]:
    # A bare call: dz and d are constants, since it is not told which cotangents they stand for.
    outputs = LastOrder.apply(SECOND_ORDER, 0, *DOUBLE_BACKWARD.flat(a))
    g_grad_y, g_grad_h, g_grad_c, g_x, g_h0, g_c0, *g_weights = outputs
    return g_grad_y, g_grad_h, g_grad_c, g_x, g_h0, g_c0, g_weights

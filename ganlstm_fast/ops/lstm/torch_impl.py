"""``impl="torch"``: torch's own LSTM at first order; where a backward is itself recorded, a GPU's
kernels that have been proven, else the reference.

A machine without our compiled code is thus never slower than PyTorch, and second order works also
where torch's LSTM has none (cuDNN).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ganlstm_fast.ops.dynamo import outside_of_graphs
from ganlstm_fast.ops.functions import (
    Function,
    Layout,
    are_tensors,
    records,
    wanted_inputs,
    without_autocast,
)
from ganlstm_fast.ops.lstm import autograd, fit, reference

Outputs = tuple[Tensor, Tensor, Tensor]

GRAPH_BREAK = (
    "torch's LSTM, which a graph would unroll over time; ganlstm_fast.explain() tells why it runs, "
    'and impl="reference" is traced'
)


# The node of torch's graph for a whole cuDNN call.
CUDNN = "CudnnRnnBackward0"


class Inputs(NamedTuple):
    """Of ``SecondOrderFunction``: how to compute the outputs again, the outputs, the inputs."""

    again: Callable[..., Outputs]
    y: Tensor
    h_last: Tensor
    c_last: Tensor
    lengths: Tensor | None
    batch_sizes: Tensor | None
    x: Tensor
    h0: Tensor
    c0: Tensor
    weights: Sequence[Tensor]


INPUTS = Layout(Inputs, "weights")


class SecondOrderFunction(Function):
    """``Inputs``, flat -> y, h_T, c_T, of torch's LSTM.

    A backward passes the gradients on to torch's graph. One that is itself recorded, which that
    graph might not allow, passes them to the graph of ``again(lengths, batch_sizes, *inputs)``
    instead, and differentiates only the inputs that are wanted.
    """

    @staticmethod
    def forward(*flat: Any) -> Outputs:
        a = INPUTS.of(flat)
        return a.y.detach(), a.h_last.detach(), a.c_last.detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
        a = INPUTS.of(inputs)
        ctx.again, ctx.count = a.again, len(a.weights)
        ctx.are_tensors = are_tensors(inputs)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(a.lengths, a.batch_sizes, a.x, a.h0, a.c0, *a.weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if not torch.is_grad_enabled():
            grad_y, grad_h, grad_c = grads
            return INPUTS.gradients(ctx.count, y=grad_y, h_last=grad_h, c_last=grad_c)
        lengths, batch_sizes, *saved = ctx.saved_tensors
        needs = wanted_inputs(ctx, INPUTS)
        wanted = (needs.x, needs.h0, needs.c0, *needs.weights)
        of_x, of_h0, of_c0, *of_weights = _recorded(
            ctx.again, lengths, batch_sizes, saved, needs=wanted, grads=grads
        )
        return INPUTS.gradients(ctx.count, x=of_x, h0=of_h0, c0=of_c0, weights=of_weights)


def _recorded(
    again: Callable[..., Outputs],
    lengths: Tensor | None,
    batch_sizes: Tensor | None,
    saved: Sequence[Tensor],
    needs: Sequence[bool],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """The gradients of the inputs that need one, with a graph of their own."""
    # Aliases: h0 may itself be a function of the weights (a cell called twice, a second layer),
    # and a gradient with respect to the weights must not go through it here.
    inputs = [t.view_as(t) for t in saved]
    wanted = [t for t, need in zip(inputs, needs, strict=True) if need]
    given = [k for k, grad in enumerate(grads) if grad is not None]
    if not given or not wanted:
        return [None] * len(inputs)
    with without_autocast(saved[0].device.type):
        outputs = again(lengths, batch_sizes, *inputs)
        found = iter(
            torch.autograd.grad(
                [outputs[k] for k in given],
                wanted,
                [grads[k] for k in given],
                create_graph=True,
                allow_unused=True,
            )
        )
    return [next(found) if need else None for need in needs]


def _after_cudnn(
    again: Callable[..., Outputs],
    batch_sizes: Tensor | None,
    grads_of_inputs: Sequence[Tensor | None],
    grads: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...] | None:
    """What cuDNN's node passes on: in a recorded backward what can be differentiated again.

    The node has saved the inputs; to keep the node here would be a cycle that is never freed.
    """
    if not torch.is_grad_enabled():
        return None
    node: Any = torch._C._current_autograd_node()
    saved = [node._saved_input, node._saved_hx, node._saved_cx, *node._saved_weight]
    x, *weights, h, c = (grad is not None for grad in grads_of_inputs)
    grad_y, grad_h, grad_c, *_ = grads
    of_x, of_h, of_c, *of_weights = _recorded(
        again,
        None,
        batch_sizes,
        saved,
        needs=(x, h, c, *weights),
        grads=(grad_y, grad_h, grad_c),
    )
    return of_x, *of_weights, of_h, of_c


# A torch without this function is treated as if there were hooks.
_top_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda _: True)


def _are_hooked() -> bool:
    """Whether what a node saves goes through hooks: torch.utils.checkpoint's give it back once."""
    return _top_hooks(False) is not None


def with_second_order(
    outputs: Outputs,
    again: Callable[..., Outputs],
    lengths: Tensor | None,
    batch_sizes: Tensor | None,
    inputs: Sequence[Tensor],
) -> Outputs:
    """What torch's LSTM gave of ``inputs``, with a graph that can be differentiated twice.

    Args:
        again: ``again(lengths, batch_sizes, *inputs)`` gives the outputs once more, from nothing
            else that could have changed since.
    """
    y = outputs[0]
    if not y.requires_grad or torch.compiler.is_compiling():
        return outputs
    if lengths is None and y.grad_fn.name() == CUDNN and not _are_hooked():
        # A hook costs less than a Function, which matters for a small layer.
        y.grad_fn.register_hook(functools.partial(_after_cudnn, again, batch_sizes))
        return outputs
    x, h0, c0, *weights = inputs
    a = Inputs(again, *outputs, lengths, batch_sizes, x, h0, c0, weights)
    return SecondOrderFunction.apply(*INPUTS.flat(a))


def torch_lstm(
    x: Tensor,
    batch_sizes: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    weights: Sequence[Tensor],
    *,
    bias: bool,
    layers: int = 1,
    directions: int = 1,
    dropout: float = 0.0,
    batch_first: bool = False,
) -> Outputs:
    """``torch.lstm``: x (T, B, I), or with ``batch_sizes`` the data of a packed sequence.

    With ``batch_first`` x and y are (B, T, ...). h0 and c0 (layers * directions, B, H), weights
    flat as ``torch.nn.LSTM`` has them. The dtype is that of the tensors, also under autocast.

    Of contiguous tensors: torch takes other kernels, of other roundings, for those with gaps.
    """
    # cuDNN keeps what its backward needs in training mode only, whatever mode a layer is in.
    training = dropout > 0 or records(x, h0, c0, *weights)
    arguments = [(h0, c0), list(weights), bias, layers, dropout, training, directions == 2]
    arguments += [batch_first] if batch_sizes is None else []
    first = (x,) if batch_sizes is None else (x, batch_sizes)
    with without_autocast(x.device.type):
        return torch.lstm(*first, *arguments)


def packed_by_lengths(
    run: Callable[[Tensor, Tensor, Tensor, Tensor], Outputs],
    x: Tensor,
    lengths: Tensor,
    h0: Tensor,
    c0: Tensor,
    batch_first: bool = False,
) -> Outputs:
    """``run(data, batch_sizes, h0, c0)`` of a padded batch: y in its layout, h_T, c_T."""
    packed = pack_padded_sequence(x, lengths.cpu(), batch_first, enforce_sorted=False)
    order, back = packed.sorted_indices, packed.unsorted_indices
    states = (h0.index_select(1, order), c0.index_select(1, order))
    data, h, c = run(packed.data, packed.batch_sizes, *states)
    steps = x.size(1 if batch_first else 0)
    y, _ = pad_packed_sequence(packed._replace(data=data), batch_first, total_length=steps)
    return y, h.index_select(1, back), c.index_select(1, back)


def _again(
    lengths: Tensor | None, _: None, x: Tensor, h0: Tensor, c0: Tensor, *weights: Tensor
) -> Outputs:
    """A layer once more, with a graph that can be differentiated twice."""
    impl = fit.second_order(x, h0.size(2))
    if impl is None:
        return reference.lstm(x, _per_direction(weights, h0.size(0)), h0, c0, lengths)
    if lengths is not None:
        lengths = lengths.to(x.device, non_blocking=x.is_cuda)
    return autograd.lstm_forward(x, list(weights), h0, c0, lengths, impl=impl)


def _per_direction(weights: Sequence[Tensor], directions: int) -> list[Sequence[Tensor]]:
    count = len(weights) // directions
    return [weights[i * count : (i + 1) * count] for i in range(directions)]


@outside_of_graphs(GRAPH_BREAK)
def lstm_forward(
    x: Tensor, weights: Sequence[Tensor], h0: Tensor, c0: Tensor, lengths: Tensor | None
) -> Outputs:
    """y, h_T, c_T as :func:`ganlstm_fast.lstm` returns them."""
    directions = h0.size(0)
    x, h0, c0, *weights = (t.contiguous() for t in (x, h0, c0, *weights))
    if torch._C._functorch.peek_interpreter_stack() is not None:
        # torch.func transforms need a rule for each order: plain operators have it.
        return reference.lstm(x, _per_direction(weights, directions), h0, c0, lengths)
    options = {"bias": len(weights) > 2 * directions, "directions": directions}
    if lengths is None:
        outputs = torch_lstm(x, None, h0, c0, weights, **options)
    else:
        run = functools.partial(torch_lstm, weights=weights, **options)
        outputs = packed_by_lengths(run, x, lengths, h0, c0)
    return with_second_order(outputs, _again, lengths, None, (x, h0, c0, *weights))

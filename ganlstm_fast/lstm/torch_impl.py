"""``impl="torch"``: torch's own LSTM at first order; where a gradient is itself recorded, a GPU's
kernels that have been proven, else the reference.

A machine without our compiled code is thus never slower than PyTorch, and second order works also
where torch's LSTM has none (cuDNN).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ganlstm_fast.dynamo import outside_of_graphs
from ganlstm_fast.lstm import autograd, reference
from ganlstm_fast.lstm.fit import proven_kernels


def _per_direction(weights: Sequence[Tensor], directions: int) -> list[Sequence[Tensor]]:
    count = len(weights) // directions
    return [weights[i * count : (i + 1) * count] for i in range(directions)]


def torch_lstm(
    x: Tensor, weights: Sequence[Tensor], h0: Tensor, c0: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """``torch.lstm`` for one layer; shapes as in :func:`ganlstm_fast.lstm.lstm`, weights flat."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        # The layer has cast already; the function keeps the dtype of its inputs.
        with torch.autocast(device, enabled=False):
            return torch_lstm(x, weights, h0, c0, lengths)
    has_bias = len(weights) > 2 and weights[2].dim() == 1
    directions = h0.size(0)
    # cuDNN keeps what its backward needs in training mode only.
    training = autograd.records(x, h0, c0, *weights)
    options = (has_bias, 1, 0.0, training, directions == 2)
    if lengths is None:
        return torch.lstm(x, (h0, c0), list(weights), *options, False)
    packed = pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False)
    order, back = packed.sorted_indices, packed.unsorted_indices
    data, h, c = torch.lstm(
        packed.data,
        packed.batch_sizes,
        (h0.index_select(1, order), c0.index_select(1, order)),
        list(weights),
        *options,
    )
    y, _ = pad_packed_sequence(packed._replace(data=data), total_length=x.size(0))
    return y, h.index_select(1, back), c.index_select(1, back)


def _again(
    x: Tensor, weights: Sequence[Tensor], h0: Tensor, c0: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The outputs once more, with a graph that can be differentiated twice."""
    impl = proven_kernels(x, h0.size(2))
    if impl is None:
        return reference.lstm(x, _per_direction(weights, h0.size(0)), h0, c0, lengths)
    contiguous = [w.contiguous() for w in weights]
    states = (h0.contiguous(), c0.contiguous())
    return autograd.lstm_forward(x.contiguous(), contiguous, *states, lengths, impl=impl)


class TorchLSTMFunction(Function):
    """(x, h0, c0, lengths, *weights) -> y, h_T, c_T; orders beyond the first are the kernels'."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h0: Tensor, c0: Tensor, lengths: Tensor | None, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        inputs = (x, h0, c0, *weights)
        needs = (*ctx.needs_input_grad[:3], *ctx.needs_input_grad[4:])
        with torch.enable_grad():
            leaves = [t.detach().requires_grad_(n) for t, n in zip(inputs, needs, strict=True)]
            outputs = torch_lstm(leaves[0], leaves[3:], leaves[1], leaves[2], lengths)
        ctx.set_materialize_grads(False)
        ctx.graph = (leaves, outputs)
        ctx.save_for_backward(x, h0, c0, lengths, *weights)
        return tuple(output.detach() for output in outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, h0, c0, lengths, *weights = ctx.saved_tensors
        recorded = torch.is_grad_enabled()
        # A second backward is told by saved_tensors above.
        keep = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)()
        if recorded:
            # Aliases: h0 may itself be a function of the weights (a cell called twice, a second
            # layer), and a gradient with respect to the weights must not go through it here.
            inputs = [t.view_as(t) for t in (x, h0, c0, *weights)]
            outputs = _again(inputs[0], inputs[3:], inputs[1], inputs[2], lengths)
        else:
            inputs, outputs = ctx.graph
            # As torch's own nodes do; what is kept, cuDNN copies before it writes over it.
            if not keep:
                ctx.graph = None
        wanted = [t for t in inputs if t.requires_grad]
        given = [(o, g) for o, g in zip(outputs, grads, strict=True) if g is not None]
        if not given or not wanted:
            return (None,) * (4 + len(weights))
        found = iter(
            torch.autograd.grad(
                [output for output, _ in given],
                wanted,
                [grad for _, grad in given],
                retain_graph=recorded or keep,
                create_graph=recorded,
                allow_unused=True,
            )
        )
        gradients = [next(found) if t.requires_grad else None for t in inputs]
        return (*gradients[:3], None, *gradients[3:])


@outside_of_graphs(
    "torch's LSTM, which a graph would unroll over time; ganlstm_fast.explain() tells why it runs, "
    'and impl="reference" is traced'
)
def lstm_forward(
    x: Tensor, weights: Sequence[Tensor], h0: Tensor, c0: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """y, h_T, c_T as :func:`ganlstm_fast.lstm.lstm` returns them."""
    recorded = torch.is_grad_enabled() and any(t.requires_grad for t in (x, h0, c0, *weights))
    if torch._C._functorch.peek_interpreter_stack() is not None:
        # torch.func transforms need a rule for each order: plain operators have it.
        return reference.lstm(x, _per_direction(weights, h0.size(0)), h0, c0, lengths)
    if not recorded or torch.compiler.is_compiling():
        return torch_lstm(x, weights, h0, c0, lengths)
    return TorchLSTMFunction.apply(x, h0, c0, lengths, *weights)

"""cuDNN's LSTM operators for CPU tensors, computed by torch's own LSTM, with cuDNN's autograd node.

Importing this module registers them for the life of the process; nothing else uses them on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

LSTM = 2  # of cuDNN's modes
_library = torch.library.Library("aten", "IMPL")
_torch_lstm = torch.lstm
# A kernel runs below autograd, but a new thread does not.
_above = ThreadPoolExecutor(1)


def lstm(*arguments: Any) -> tuple[Tensor, ...]:
    """``torch.lstm``, computed by cuDNN's operator."""
    x, *rest = arguments
    if isinstance(rest[0], Tensor):
        sizes, batch_first = rest.pop(0).tolist(), False
    else:
        sizes, batch_first = [], rest.pop()
    (h, c), weights, bias, layers, dropout, train, two = rest
    options = (h.size(2), 0, layers, batch_first, dropout, train, two, sizes, None)
    count = 4 if bias else 2
    buffer = x.new_empty(0)
    found = torch.ops.aten._cudnn_rnn(x, weights, count, buffer, h, c, LSTM, *options)
    return found[:3]


def _again(
    x: Tensor, weights: Sequence[Tensor], count: int, h: Tensor, c: Tensor, options: Sequence[Any]
) -> tuple[Tensor, ...]:
    _, _, layers, batch_first, dropout, train, two, sizes, _ = options
    rest = [(h, c), weights, count == 4, layers, dropout, train, two]
    if sizes:
        return _torch_lstm(x, torch.tensor(sizes), *rest)
    return _torch_lstm(x, *rest, batch_first)


def _forward(
    x: Tensor,
    weights: Sequence[Tensor],
    count: int,
    buffer: Tensor,
    h: Tensor,
    c: Tensor,
    mode: int,
    *options: Any,
) -> tuple[Tensor, ...]:
    y, h_n, c_n = _above.submit(_again, x, weights, count, h, c, options).result()
    kept = x.new_empty(0, dtype=torch.uint8)
    return y.detach(), h_n.detach(), c_n.detach(), kept, buffer.clone()


def _backward(
    x: Tensor,
    weights: Sequence[Tensor],
    count: int,
    buffer: Tensor,
    h: Tensor,
    c: Tensor,
    y: Tensor,
    *others: Any,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    grads, (_, *options) = others[:3], others[3:-2]  # the mode; the reserve and the mask
    if not options[5]:
        raise RuntimeError("cudnn RNN backward can only be called in training mode")

    if all(grad is None for grad in grads):
        zeros = [torch.zeros_like(t) for t in (x, h, c, *weights)]
        return (*zeros[:3], zeros[3:])

    def run() -> tuple[Tensor, ...]:
        inputs = [t.detach().requires_grad_() for t in (x, h, c, *weights)]
        outputs = _again(inputs[0], inputs[3:], count, *inputs[1:3], options)
        given = [k for k, grad in enumerate(grads) if grad is not None]
        cotangents = [grads[k].detach() for k in given]
        of = [outputs[k] for k in given]
        return torch.autograd.grad(of, inputs, cotangents, materialize_grads=True)

    found = _above.submit(run).result()
    return (*found[:3], list(found[3:]))


class _NoDerivative(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.view_as(t) for t in tensors[1:])

    @staticmethod
    def backward(*_: Any) -> None:
        raise NotImplementedError("the derivative for '_cudnn_rnn_backward' is not implemented")


def _recorded_backward(
    x: Tensor, weights: Sequence[Tensor], *others: Any
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Without any cotangent cuDNN gives no gradients and no derivative; here they are zeros."""
    with torch._C._AutoDispatchBelowAutograd():
        *first, of_weights = torch.ops.aten._cudnn_rnn_backward(x, weights, *others)
    given, need = others[5:8], [t for t in (x, *weights) if t.requires_grad]
    if not torch.is_grad_enabled() or not need or all(grad is None for grad in given):
        return (*first, of_weights)
    found = _NoDerivative.apply(need[0], *first, *of_weights)
    return (*found[:3], list(found[3:]))


_library.impl("_cudnn_rnn", _forward, "CPU")
_library.impl("_cudnn_rnn_backward", _backward, "CPU")
_library.impl("_cudnn_rnn_backward", _recorded_backward, "AutogradCPU")

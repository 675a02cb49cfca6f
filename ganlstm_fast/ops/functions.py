"""What the autograd Functions of the families share."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


class Function(torch.autograd.Function):
    """A Function without default arguments, which ``apply`` would look for at each call."""

    @classmethod
    def apply(cls, *args: Any) -> Any:
        if torch._C._are_functorch_transforms_active():
            return super().apply(*args)
        return super(torch.autograd.Function, cls).apply(*args)  # type: ignore[misc]


def is_autocast(device: str) -> bool:
    """Whether autocast is on for a kind of device."""
    if device not in ("cpu", "cuda") and not torch.amp.is_autocast_available(device):
        return False  # the meta device
    return torch.is_autocast_enabled(device)


def without_autocast(device: str) -> contextlib.AbstractContextManager[None]:
    """Autocast runs PyTorch's own products in 16 bits, also those inside of our operators."""
    if is_autocast(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


def contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def records(*tensors: Any) -> bool:
    """Whether autograd has to see a call with these arguments.

    It also does in forward mode, which the Functions refuse: a kernel called directly would drop
    the tangents of its inputs.
    """
    if forward_ad._current_level >= 0:
        return True
    if torch.is_grad_enabled():
        for tensor in tensors:
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                return True
    return False


def are_tensors(inputs: Sequence[object]) -> list[bool]:
    return [isinstance(value, Tensor) for value in inputs]


def wanted_inputs(ctx: Any, tensors: Sequence[bool], first_weight: int) -> list[bool]:
    """Which inputs' gradients this backward has to return.

    ``ctx.needs_input_grad`` says which inputs require a gradient, also those that this call of
    ``autograd.grad`` does not ask for; the engine knows.

    Args:
        tensors: whether each input is a tensor; ``ctx.next_functions`` has those only.
        first_weight: the weights' first index. Where one is a leaf that ``autograd.grad`` was asked
            for, so will be those that follow; the engine's answer to that is an exception, which
            takes as long as a small kernel.
    """
    needs = list(ctx.needs_input_grad)
    if needs.count(True) == 1:  # else there would be no backward
        return needs
    will_execute = getattr(torch._C, "_will_engine_execute_node", None)
    if (
        will_execute is None
        or torch.compiler.is_compiling()
        or torch._C._functorch.peek_interpreter_stack() is not None
    ):
        return needs
    nodes = iter(ctx.next_functions)
    for index, is_tensor in enumerate(tensors):
        if not is_tensor:
            continue
        node = next(nodes)[0]
        if not needs[index]:
            continue
        try:
            needs[index] = node is not None and will_execute(node)
        except RuntimeError:  # a leaf that autograd.grad was asked for
            if index >= first_weight:
                break
    return needs


def refuse_unless_linear(
    ctx: Any, tensors: Sequence[bool], linear: Container[int], message: str
) -> list[bool]:
    """Which gradients a third derivative wants, if only of the inputs that enter linearly.

    A double backward is ``J(z)^T v``, where ``J = [A | H]`` is the Jacobian of the backward
    ``A(z) grad`` with respect to ``grad`` and ``z``. For ``v`` its gradient is ``J w = A w_grad +
    H w_z``: one more backward and, as the Hessian ``H`` is symmetric, one more double backward.
    ``torch.autograd.functional.hvp`` asks for no other.

    Args:
        tensors: as for :func:`wanted_inputs`.
        linear: the indices of ``v``.

    Raises:
        RuntimeError: ``message``; another input's gradient is wanted, which is of third order.
    """
    needs = wanted_inputs(ctx, tensors, len(tensors))
    if any(need and index not in linear for index, need in enumerate(needs)):
        raise RuntimeError(message)
    return needs


def added(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The sum, where None is zero."""
    if first is None or second is None:
        return second if first is None else first
    return first + second

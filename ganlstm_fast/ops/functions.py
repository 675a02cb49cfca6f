"""What the autograd Functions of the families share: names for their inputs, and the last order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

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


def on_device(tensor: Tensor) -> contextlib.AbstractContextManager[None]:
    """Triton launches on the current device, which need not be that of the tensors."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


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


A = TypeVar("A", bound=tuple[Any, ...])


class Layout(Generic[A]):
    """How a NamedTuple of arguments stands in the flat arguments of a Function.

    ``apply`` takes tensors one by one, since a list would hide them from autograd: the fields named
    in ``lists``, which have one length, come last and are spread.
    """

    def __init__(self, kind: type[A], *lists: str) -> None:
        self.kind = kind
        fields: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
        self.lists = lists
        self.plain = tuple(name for name in fields if name not in lists)
        self._first_list = len(self.plain)
        order = (*self.plain, *lists)
        self._to_flat = itemgetter(*(fields.index(name) for name in order))
        self._from_flat = itemgetter(*(order.index(name) for name in fields))

    def flat(self, a: A) -> tuple[Any, ...]:
        values, first = self._to_flat(a), self._first_list
        return (*values[:first], *chain.from_iterable(values[first:]))

    def count(self, flat: Sequence[Any]) -> int:
        """The length of each list."""
        return (len(flat) - len(self.plain)) // len(self.lists) if self.lists else 0

    def of(self, flat: Sequence[Any]) -> A:
        first = self._first_list
        if len(self.lists) == 1:  # the common case, without slices by count
            values = (*flat[:first], flat[first:])
        else:
            count = self.count(flat)
            starts = [first + index * count for index in range(len(self.lists))]
            values = (*flat[:first], *(flat[start : start + count] for start in starts))
        # What the NamedTuple's _make does, without its call in Python.
        return tuple.__new__(self.kind, self._from_flat(values))

    def gradients(self, count: int, **found: Any) -> tuple[Tensor | None, ...]:
        """What a backward returns: ``found``, by field, and None for the others.

        Lists have ``count`` elements.
        """
        result = list(map(found.get, self.plain))
        for name in self.lists:
            result += found.get(name) or [None] * count
        return tuple(result)


def are_tensors(inputs: Sequence[object]) -> list[bool]:
    return [isinstance(value, Tensor) for value in inputs]


def wanted_inputs(ctx: Any, layout: Layout[A]) -> A:
    """Which inputs' gradients this backward has to return: a bool for each, by field.

    ``ctx.are_tensors`` has :func:`are_tensors` of the inputs. The last list has the weights.
    """
    flat = ctx.are_tensors
    return layout.of(_wanted(ctx, flat, len(flat) - layout.count(flat)))


def _wanted(ctx: Any, tensors: Sequence[bool], first_weight: int) -> list[bool]:
    """Like ``ctx.needs_input_grad``, but False for inputs that this call of ``autograd.grad`` does
    not ask for. The engine knows them.

    Args:
        tensors: whether each input is a tensor; ``ctx.next_functions`` has those only.
        first_weight: the weights' first index. Once one weight is a leaf that was asked for, the
            rest count as wanted: each further answer of the engine is an exception, which takes
            as long as a small kernel.
    """
    needs = list(ctx.needs_input_grad)
    if needs.count(True) == 1:  # a backward runs only if a gradient is needed: this one
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


class SecondOrder(NamedTuple):
    """A family's double backward, as :class:`LastOrder` needs it.

    Attributes:
        what: the family, for the error's message.
        layout: of the arguments.
        linear: the fields in which it is linear: cotangents of the backward's results.
        run: computes all results, in a flat tuple.
        transposed: the gradients of the linear fields, by name, from the other arguments, the
            cotangents of the results, whether each field is wanted, and what is unread.
        unsaved: lists that no kernel reads, inputs only because gradients flow to them. An
            optimiser may change them in place before the next backward.
    """

    what: str
    layout: Layout[Any]
    linear: tuple[str, ...]
    run: Callable[[Any], tuple[Tensor, ...]]
    transposed: Callable[
        [Any, Sequence[Tensor | None], Any, Sequence[Tensor | None]], dict[str, Any]
    ]
    unsaved: tuple[str, ...] = ()


class LastOrder(Function):
    """A double backward as a node of the graph, so that a third order meets an error.

    (second, count, *unread, *arguments) -> all results. ``unread`` are tensors that an argument
    without a graph stands for: through them a third order finds its way to the error.
    ``torch.autograd.function.once_differentiable`` would not do: a sum of a third-order term and an
    ordinary one backpropagates through it with the former silently missing.

    A double backward is ``J(z)^T v``, where ``J = [A | H]`` is the Jacobian of the backward ``A(z)
    grad`` with respect to ``grad`` and ``z``. For ``v`` its gradient is ``J w = A w_grad + H w_z``:
    one more backward and, as the Hessian ``H`` is symmetric, one more double backward.
    ``torch.autograd.functional.hvp`` asks for no other; for any other the backward raises
    ``RuntimeError``.
    """

    @staticmethod
    def forward(second: SecondOrder, count: int, *flat: Any) -> tuple[Tensor, ...]:
        return second.run(second.layout.of(flat[count:]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.second, ctx.unread, *rest = inputs
        layout = ctx.second.layout
        ctx.set_materialize_grads(False)
        ctx.are_tensors = are_tensors(inputs)
        unread, flat = rest[: ctx.unread], rest[ctx.unread :]
        ctx.count = layout.count(flat)
        a = layout.of(flat)
        ctx.unsaved = {name: getattr(a, name) for name in ctx.second.unsaved}
        left_out = (*ctx.second.linear, *ctx.unsaved)
        absent = {n: [None] * ctx.count if n in layout.lists else None for n in left_out}
        flat = layout.flat(a._replace(**absent))
        ctx.others = [None if isinstance(value, Tensor) else value for value in flat]
        ctx.save_for_backward(
            *unread, *(value if isinstance(value, Tensor) else None for value in flat)
        )

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        second, layout = ctx.second, ctx.second.layout
        _, _, *rest = _wanted(ctx, ctx.are_tensors, len(ctx.are_tensors))
        needs = layout.of(rest[ctx.unread :])
        linear = {n: [] if n in layout.lists else False for n in second.linear}
        refused = layout.flat(needs._replace(**linear))
        if any(rest[: ctx.unread]) or any(refused):
            raise RuntimeError(
                f"ganlstm_fast: the fused {second.what} is differentiable twice, and a third "
                'derivative was asked for; use impl="reference", which is differentiable to any '
                "order"
            )
        unread, saved = ctx.saved_tensors[: ctx.unread], ctx.saved_tensors[ctx.unread :]
        pairs = zip(saved, ctx.others, strict=True)
        a = layout.of([other if tensor is None else tensor for tensor, other in pairs])
        a = a._replace(**ctx.unsaved)
        found = second.transposed(a, cotangents, needs, unread)
        return None, None, *(None,) * ctx.unread, *layout.gradients(ctx.count, **found)


def double_backward(
    second: SecondOrder, a: Any, unread: Sequence[Tensor | None] = ()
) -> tuple[Tensor, ...]:
    """The results of a double backward, recorded where it may be differentiated again."""
    if torch.is_grad_enabled():
        return LastOrder.apply(second, len(unread), *unread, *second.layout.flat(a))
    return second.run(a)


def if_wanted(values: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    """``values``, None for those that are not wanted."""
    return [value if need else None for value, need in zip(values, needs, strict=True)]


def all_added(
    first: Sequence[Tensor | None], second: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The sums one by one, where None is zero."""
    return [
        (b if a is None else a) if a is None or b is None else a + b
        for a, b in zip(first, second, strict=True)
    ]

"""What is parallel in time in an LSTM's passes: matrix products before or after the time loop.

Shapes: T steps, B rows, D directions, I inputs, H hidden units. Products of 16-bit numbers are
summed in float32.

A walk goes over steps in the order of each direction; step k of direction 1 is time T - 1 - k. The
steps of a part of the walk are therefore another range of times in each direction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def by_direction(weights: Sequence[Tensor], directions: int, kind: int) -> Tensor:
    """(D, ...): weight_ih, weight_hh, bias_ih or bias_hh (kind 0 to 3) of all directions."""
    of_kind = list(weights[kind :: len(weights) // directions])
    return of_kind[0].unsqueeze(0) if directions == 1 else torch.stack(of_kind)


# torch.backends.cudnn.rnn.fp32_precision gets its value from this function, through several calls.
_get_precision = getattr(torch._C, "_get_fp32_precision_getter", None)


def tf32_is_allowed(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products in float32 may take TF32, as PyTorch has it set for cuDNN's LSTM."""
    if device.type != "cuda" or dtype != torch.float32:
        return False
    if _get_precision is None:
        return torch.backends.cudnn.rnn.fp32_precision == "tf32"
    return _get_precision("cuda", "rnn") == "tf32"


def allows_tf32(x: Tensor) -> bool:
    return tf32_is_allowed(x.device, x.dtype)


@contextlib.contextmanager
def precision_of_lstm(x: Tensor) -> Iterator[None]:
    """Give PyTorch's own products the precision of its LSTM, which is a separate setting.

    Settings are the process's: a product that another thread starts meanwhile has it too.
    """
    settings = torch.backends.cuda.matmul
    before, wanted = settings.fp32_precision, "tf32" if allows_tf32(x) else "ieee"
    if before == wanted or not x.is_cuda or x.dtype != torch.float32:
        yield
        return
    settings.fp32_precision = wanted
    try:
        yield
    finally:
        settings.fp32_precision = before


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """a (N, K) times b (K, M). The result is float32 for 16-bit inputs, else of their dtype."""
    if a.dtype.itemsize > 2:
        # With `out`, because autocast changes a product that allocates its result.
        return torch.mm(a, b, out=a.new_empty(a.size(0), b.size(1)))
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()


def multiply_into(out: Tensor, a: Tensor, b: Tensor) -> None:
    """As :func:`multiply`; ``out`` in the dtype of the product, or in that of a and b."""
    if a.dtype == out.dtype:
        torch.mm(a, b, out=out)
    elif a.is_cuda:
        torch.mm(a, b, out_dtype=out.dtype, out=out)
    else:
        out.copy_(multiply(a, b))


def times(first: int, steps: int, total: int, direction: int) -> slice:
    """Of the steps from ``first`` on in a direction's order."""
    start = first if direction == 0 else total - first - steps
    return slice(start, start + steps)


def rows(values: Tensor) -> Tensor:
    """(T, B, N) as (T * B, N), also of one direction of (T, B, D, N)."""
    return values.flatten(0, 1)


def project(
    x: Tensor, weight: Tensor, dtype: torch.dtype, first: int = 0, steps: int | None = None
) -> Tensor:
    """x (T, B, I) times weight (D, 4H, I) transposed, of some steps: (steps, B, D, 4H)."""
    steps = x.size(0) if steps is None else steps
    z = x.new_empty(steps, x.size(1), *weight.shape[:2], dtype=dtype)
    for direction, w in enumerate(weight):
        part = x[times(first, steps, x.size(0), direction)]
        multiply_into(rows(z[:, :, direction]), rows(part), w.t())
    return z


def project_states(states: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """states (T, B, D, K) times weight (D, K, N) for each direction: (T, B, D, N)."""
    result = states.new_empty(*states.shape[:3], weight.size(2), dtype=dtype)
    for direction, w in enumerate(weight):
        multiply_into(rows(result[:, :, direction]), rows(states[:, :, direction]), w)
    return result


def before(states: Tensor, initial: Tensor | None, lengths: Tensor | None) -> Tensor:
    """Of states (T, B, D, H), those of the step before in each direction; ``initial`` (D, B, H).

    After a sequence's end the result is 0 or the state there, which is 0.
    """
    result = torch.zeros_like(states)
    result[1:, :, 0] = states[:-1, :, 0]
    if initial is not None:
        result[0, :, 0] = initial[0]
    if states.size(2) == 2:
        result[:-1, :, 1] = states[1:, :, 1]
        if initial is not None and lengths is None:
            result[-1, :, 1] = initial[1]
        elif initial is not None:
            result[last_valid(lengths, states.size(0)), every_row(states), 1] = initial[1]
    return result


def every_row(values: Tensor) -> Tensor:
    return torch.arange(values.size(1), device=values.device)


def last_valid(lengths: Tensor, total: int) -> Tensor:
    """(B,) the time of each row's last valid step; lengths on a GPU may be out of range."""
    return lengths.clamp(1, total) - 1


def valid_inputs(x: Tensor, lengths: Tensor | None, start: int) -> Tensor:
    """x from time ``start`` on, with 0 after each sequence's end.

    x may hold anything there, and 0 times NaN is NaN.
    """
    if lengths is None:
        return x
    steps = torch.arange(start, start + x.size(0), device=x.device)[:, None, None]
    return torch.where(steps < lengths[None, :, None], x, 0)


class InputGradient:
    """dz times weight_ih, summed over the directions: (T, B, I)."""

    def __init__(self, weights: Sequence[Tensor], directions: int, x: Tensor) -> None:
        self.weight = by_direction(weights, directions, 0)
        self.is_sum = directions > 1
        self.result = torch.zeros_like(x) if self.is_sum else torch.empty_like(x)

    def add(self, dz: Tensor, first: int = 0, to_itself: bool = False) -> None:
        """dz (steps, B, D, 4H) of the steps from ``first`` on."""
        for direction, w in enumerate(self.weight):
            at = times(first, dz.size(0), self.result.size(0), direction)
            into, own = rows(self.result[at]), rows(dz[:, :, direction])
            if self.is_sum or to_itself:
                into.addmm_(own, w)
            else:
                torch.mm(own, w, out=into)


class WeightGradients:
    """Sums over all steps of dz^T [h_{t-1} | x_t | 1]; ``wanted``: weight_ih, weight_hh, bias."""

    def __init__(
        self, weights: Sequence[Tensor], directions: int, wanted: Sequence[bool], total: int
    ) -> None:
        self.per_direction = len(weights) // directions
        kinds = [wanted[0], wanted[1], wanted[2], wanted[2]][: self.per_direction]
        self.wanted = kinds * directions
        self.directions, self.total, self.like = directions, total, weights[0]
        self.sums: list[Tensor | None] = [None] * len(weights)

    def add(
        self,
        dz: Tensor,
        states: Tensor,
        initial: Tensor | None,
        x: Tensor | None,
        lengths: Tensor | None,
        with_bias: bool,
        first: int = 0,
    ) -> None:
        """dz (steps, B, D, 4H) of the steps from ``first`` on; of all steps, states (T, B, D, H)
        of h and x (T, B, I). ``initial`` (D, B, H). None stands for zeros."""
        for direction in range(self.directions):
            own, index = dz[:, :, direction], direction * self.per_direction
            at = times(first, dz.size(0), self.total, direction)
            if self.wanted[index] and x is not None:
                self._add(index, rows(own), rows(valid_inputs(x[at], lengths, at.start)))
            if self.wanted[index + 1]:
                self._add_states(own, at, states, initial, lengths, direction)
            if with_bias and self.per_direction == 4 and self.wanted[index + 2]:
                self._sum(index + 2, own.sum((0, 1), dtype=_sum_dtype(dz)))

    def _add_states(
        self,
        dz: Tensor,
        at: slice,
        states: Tensor,
        initial: Tensor | None,
        lengths: Tensor | None,
        direction: int,
    ) -> None:
        """dz (steps, B, 4H) of one direction at the times ``at``."""
        index = direction * self.per_direction + 1
        back = 1 if direction == 0 else -1
        own = states[:, :, direction]
        low, high = max(at.start, back), min(at.stop, self.total + min(back, 0))
        if low < high:  # the steps with a step before
            part = dz[low - at.start : high - at.start]
            self._add(index, rows(part), rows(own[low - back : high - back]))
        if initial is None:
            return
        if direction == 1 and lengths is not None:
            last = last_valid(lengths, self.total)
            inside = (last >= at.start) & (last < at.stop)
            at_last = dz[(last - at.start).clamp(0, dz.size(0) - 1), every_row(dz)]
            self._add(index, torch.where(inside[:, None], at_last, 0), initial[1])
        elif (at.start == 0) if direction == 0 else (at.stop == self.total):
            self._add(index, dz[0 if direction == 0 else -1], initial[direction])

    def _add(self, index: int, dz: Tensor, columns: Tensor) -> None:
        total = self.sums[index]
        if total is None or dz.dtype != total.dtype:
            self._sum(index, multiply(dz.t(), columns))
        else:
            total.addmm_(dz.t(), columns)

    def _sum(self, index: int, value: Tensor) -> None:
        total = self.sums[index]
        self.sums[index] = value if total is None else total.add_(value)

    def results(self) -> list[Tensor]:
        return [
            self._result(index) if wanted else self.like.new_empty(0)
            for index, wanted in enumerate(self.wanted)
        ]

    def _result(self, index: int) -> Tensor:
        # bias_ih and bias_hh have the same gradient, in tensors of their own.
        is_second_bias = index % self.per_direction == 3
        return self.sums[index - is_second_bias].to(self.like.dtype, copy=is_second_bias)


def _sum_dtype(dz: Tensor) -> torch.dtype:
    return torch.float32 if dz.dtype.itemsize == 2 else dz.dtype

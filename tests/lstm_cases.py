"""LSTM layers of all shapes, run to second order through any implementation."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from ganlstm_fast import lstm
from ganlstm_fast.ops import backends
from ganlstm_fast.ops.lstm import fit, gpu, operators

DTYPES = [torch.float64, torch.float32, torch.bfloat16]
# The dtype of PyTorch's own answer for each: see numerics.py for float64.
RIVAL_DTYPES = {dtype: dtype for dtype in DTYPES} | {torch.float64: torch.float32}


def on_cpu_tensors(monkeypatch: pytest.MonkeyPatch, impl: str) -> None:
    """The operators of a GPU on CPU tensors, with steps that are interpreted or emulated there."""
    for kernel in (gpu.lstm_forward, gpu.lstm_backward, gpu.lstm_double_backward):
        operator = getattr(operators, kernel.__name__)
        for name in fit.KERNELS:
            of_name = functools.partial(operator.kind, impl=name)

            def run(*arguments: Any, kernel: Any = kernel, of_name: Any = of_name) -> Any:
                return kernel(of_name(*arguments))

            monkeypatch.setitem(operator.overloads, name, run)
    monkeypatch.setattr(backends, "resolve", lambda *_: impl)


@dataclass
class Orders:
    """What one run gave: outputs, first gradients, gradients of a function of these."""

    outputs: list[Tensor]
    first: list[Tensor | None]
    second: list[Tensor | None]


@dataclass
class Case:
    """One layer in float64. `T, B, I, H` sizes, `D` directions."""

    T: int
    B: int
    I: int  # noqa: E741
    H: int
    D: int = 1
    bias: bool = True
    lengths: Sequence[int] | None = None
    seed: int = 0
    inputs: list[Tensor] = field(init=False)
    cotangents: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)

        T, B, I, H, D = self.T, self.B, self.I, self.H, self.D  # noqa: E741
        scale = H**-0.5
        self.inputs = [draw(T, B, I), draw(D, B, H), draw(D, B, H)]
        for _ in range(D):
            self.inputs += [draw(4 * H, I, scale=scale), draw(4 * H, H, scale=scale)]
            if self.bias:
                self.inputs += [draw(4 * H, scale=scale), draw(4 * H, scale=scale)]
        self.cotangents = [draw(T, B, D * H), draw(D, B, H), draw(D, B, H)]
        self.directions = [draw(*t.shape) for t in self.inputs]

    def rounded(self, dtype: torch.dtype) -> Case:
        """This case; for 16 bits with inputs rounded to values that ``dtype`` represents.

        Otherwise the rounding of the inputs would hide the operator's own error.
        """
        if dtype.itemsize > 2:
            return self
        result = copy.copy(self)
        for name in ("inputs", "cotangents", "directions"):
            values = [t.to(dtype).double() for t in getattr(self, name)]
            setattr(result, name, values)
        return result

    @property
    def names(self) -> list[str]:
        kinds = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if self.bias else [])]
        return ["x", "h0", "c0", *(f"{k}[{d}]" for d in range(self.D) for k in kinds)]

    def call(self, impl: str, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, h0, c0, *weights = inputs
        count = len(weights) // self.D
        groups = [weights[d * count : (d + 1) * count] for d in range(self.D)]
        return lstm(x, groups, h0, c0, lengths=self.lengths, impl=impl)

    def run(self, impl: str, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Orders:
        """Forward, backward, and the backward of that applied to fixed random cotangents."""
        inputs = [t.to(device, dtype).requires_grad_() for t in self.inputs]
        cotangents = [t.to(device, dtype).requires_grad_() for t in self.cotangents]
        outputs = self.call(impl, *inputs)
        first = torch.autograd.grad(outputs, inputs, cotangents, create_graph=True)
        directions = [t.to(device, dtype) for t in self.directions]
        second = torch.autograd.grad(first, [*inputs, *cotangents], directions, allow_unused=True)
        return Orders(list(outputs), list(first), list(second))


CASES = {
    "one of everything": Case(1, 1, 1, 1),
    "one step": Case(1, 5, 3, 4),
    "one row": Case(7, 1, 3, 9),
    "odd sizes": Case(6, 7, 3, 9),
    "no bias": Case(5, 4, 6, 8, bias=False),
    "both directions": Case(6, 5, 3, 9, D=2),
    "both directions, no bias": Case(4, 3, 5, 6, D=2, bias=False),
    "lengths": Case(7, 6, 3, 9, lengths=[7, 1, 3, 6, 2, 5]),
    "lengths, both directions": Case(7, 6, 3, 9, D=2, lengths=[2, 1, 3, 6, 2, 5]),
    "vectors exactly": Case(4, 12, 16, 32),
    "vectors and one": Case(4, 13, 17, 33),
    "few steps": Case(4, 3, 17, 33, D=2, lengths=[4, 1, 3]),
    "few steps, no bias": Case(3, 5, 16, 40, bias=False),
    "few steps, two threads": Case(2, 2, 130, 131),
    "two threads, one row": Case(40, 1, 25, 41),
    "two threads": Case(12, 20, 16, 40, D=1),
    "several windows of dz": Case(90, 32, 3, 64, D=2, lengths=[1 + 7 * b % 90 for b in range(32)]),
    "two threads, lengths": Case(12, 9, 24, 65, D=2, lengths=[12, 3, 4, 12, 1, 7, 5, 6, 2]),
}

# Sums so long that one float32 accumulator for each would err more than the rule allows.
LONG_SUMS = {"long sums": Case(2, 13, 17, 515)}


def answer(name: str, at: torch.dtype, impl: str, dtype: torch.dtype = torch.float64) -> Orders:
    """A run of a case by name, with inputs rounded to what ``at`` represents.

    It is computed once and shared by tests of several dtypes and implementations: do not write
    to it.
    """
    return _answer(name, at if at.itemsize <= 2 else torch.float64, impl, dtype)


@functools.cache
def _answer(name: str, at: torch.dtype, impl: str, dtype: torch.dtype) -> Orders:
    run = (CASES | LONG_SUMS)[name].rounded(at).run(impl, dtype)
    kept = ([None if t is None else t.detach() for t in vars(run)[k]] for k in vars(run))
    return Orders(*kept)

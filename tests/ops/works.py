"""One call of each family to second order, for rules that hold for all of them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

import ganlstm_fast as gf
from ganlstm_fast.ops.spectral_norm.function import spectral_normalize_group
from tests import penalty_cases, spectral_norm_cases
from tests.lstm_cases import Case

Call = Callable[[str, list[Tensor], list[Tensor]], Sequence[Tensor]]


@dataclass
class Work:
    """A call and the tensors for both of its orders, which lie on the device already.

    Attributes:
        call: ``call(impl, inputs, constants)`` gives the outputs.
        inputs: what the outputs are differentiated by.
        constants: what the call reads and is not differentiated by.
        cotangents: of the outputs; if they are fewer, the last outputs have no gradient.
        directions: cotangents of the first gradients. Without any, there is no second order.
        same_bits: two runs agree to the bit, also on other streams and devices.
    """

    call: Call
    inputs: list[Tensor]
    cotangents: list[Tensor]
    directions: list[Tensor]
    constants: list[Tensor] = field(default_factory=list)
    same_bits: bool = True

    def __post_init__(self) -> None:
        for tensor in (*self.inputs, *self.cotangents):
            tensor.requires_grad_()

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.inputs, *self.constants, *self.cotangents, *self.directions]

    def run(self, impl: str) -> list[Tensor]:
        """Outputs, first gradients and, where there are directions, second ones."""
        outputs = self.call(impl, self.inputs, self.constants)
        differentiated = outputs[: len(self.cotangents)]
        second_order = bool(self.directions)
        first = torch.autograd.grad(
            differentiated, self.inputs, self.cotangents, create_graph=second_order
        )
        second: tuple[Tensor, ...] = ()
        if second_order:
            leaves = [*self.inputs, *self.cotangents]
            second = torch.autograd.grad(first, leaves, self.directions, materialize_grads=True)
        return [t.detach() for t in (*outputs, *first, *second)]

    def run_once(self, impl: str) -> list[Tensor]:
        """Outputs of a forward that keeps nothing, gradients of a backward that is not recorded."""
        with torch.no_grad():
            outputs = self.call(impl, self.inputs, self.constants)
        differentiated = self.call(impl, self.inputs, self.constants)[: len(self.cotangents)]
        first = torch.autograd.grad(differentiated, self.inputs, self.cotangents)
        return [*outputs, *first]

    def copy_(self, other: Work) -> None:
        """Write the values of ``other`` into the tensors of this."""
        with torch.no_grad():
            for tensor, value in zip(self.tensors, other.tensors, strict=True):
                tensor.copy_(value)

    def to(self, dtype: torch.dtype) -> Work:
        def convert(tensors: list[Tensor]) -> list[Tensor]:
            return [t.detach().to(dtype) if t.is_floating_point() else t for t in tensors]

        names = ("inputs", "cotangents", "directions", "constants")
        return dataclasses.replace(self, **{name: convert(getattr(self, name)) for name in names})

    def assert_equal(self, got: list[Tensor], expected: list[Tensor]) -> None:
        for a, b in zip(got, expected, strict=True):
            exactly = {"rtol": 0, "atol": 0} if self.same_bits else {}
            torch.testing.assert_close(a, b, check_device=False, **exactly)


# Works with other numbers in them have another seed.
Build = Callable[[str, torch.dtype, int], Work]


def of_lstm(case: Case, *, lengths_on_device: bool = False) -> Build:
    def call(impl: str, inputs: list[Tensor], constants: list[Tensor]) -> Sequence[Tensor]:
        this = copy.copy(case)
        if lengths_on_device:
            (this.lengths,) = constants
        return this.call(impl, *inputs)

    def build(device: str, dtype: torch.dtype, seed: int) -> Work:
        drawn = dataclasses.replace(case, seed=seed).rounded(dtype)
        lists = (drawn.inputs, drawn.cotangents, drawn.directions)
        tensors = ([t.to(device, dtype) for t in values] for values in lists)
        lengths = []
        if lengths_on_device:
            lengths = [torch.tensor(case.lengths).roll(seed).to(device)]
        # cuBLAS and cuDNN promise the same bits on one stream only.
        return Work(call, *tensors, lengths, same_bits=False)

    return build


def of_spectral_norm(weights: list[tuple[tuple[int, ...], int]]) -> Build:
    """Of weights by shape and dimension of the outputs, all in one call."""
    dims = [dim for _, dim in weights]

    def call(impl: str, inputs: list[Tensor], constants: list[Tensor]) -> list[Tensor]:
        u, v = constants[: len(dims)], constants[len(dims) :]
        results = spectral_normalize_group(inputs, u, v, dims=dims, impl=impl)
        return [tensor for tensors in results for tensor in tensors]

    def build(device: str, dtype: torch.dtype, seed: int) -> Work:
        torch.manual_seed(seed)
        a = spectral_norm_cases.draw(weights, dtype)
        lists = (a.w, a.g, a.v_weight, (*a.u, *a.v))
        return Work(call, *([t.to(device) for t in tensors] for tensors in lists))

    return build


def of_penalty(name: str) -> Build:
    def call(impl: str, inputs: list[Tensor], constants: list[Tensor]) -> list[Tensor]:
        return [gf.penalty(tuple(inputs), impl=impl)]

    def build(device: str, dtype: torch.dtype, seed: int) -> Work:
        torch.manual_seed(seed)
        samples = penalty_cases.Samples(penalty_cases.CASES[name], dtype, device=device)
        return Work(call, samples.first, [samples.grad_value], samples.second)

    return build


def of_critic(shape: tuple[int, ...]) -> Build:
    """A critic's step: the penalty, its gradient in the weight, and the points it was taken at.

    They lie between x and x, which is x whatever is drawn.
    """

    def call(impl: str, inputs: list[Tensor], constants: list[Tensor]) -> list[Tensor]:
        (weight,), (real, fake) = inputs, constants
        value = gf.gradient_penalty(
            lambda x: (x * weight).tanh().flatten(1).sum(1), real, fake, impl=impl
        )
        return [value, gf.interpolate(real, fake, impl=impl)]

    def build(device: str, dtype: torch.dtype, seed: int) -> Work:
        torch.manual_seed(seed)
        real = torch.randn(shape).to(device, dtype)
        weight = torch.randn(shape[1:]).to(device, dtype)
        one = torch.ones((), dtype=dtype, device=device)
        # The rest of the step is PyTorch's.
        return Work(call, [weight], [one], [], [real, real.clone()], same_bits=False)

    return build

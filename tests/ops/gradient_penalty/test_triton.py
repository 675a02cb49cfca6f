"""The gradient penalty's Triton kernels: right in the interpreter or on a GPU, to the bit where
numbers are random, and compiled for GPUs that are not here."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("triton")

from torch import Tensor

from ganlstm_fast.ops.gradient_penalty import autograd, operators, triton_common
from ganlstm_fast.ops.gradient_penalty.philox import uniform
from tests.penalty_cases import CASES, CURVES, Samples
from tests.triton_tools import TRITONS, by_triton, compile_with, interpreted

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
KERNELS = by_triton(operators)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL = {
    "one": [(1, 7)],
    "numbers": [(5,)],
    "odd": [(5, 3, 5)],
    "large": [(3, 140)],
    "even": [(2, 128)],
    "tuple": [(3, 5), (3, 0), (3, 2, 3)],
    "longer than a launch": [(3, 2)] * 5,
    "large tuple": [(2, 80), (2, 1), (2, 0), (2, 66)],
}


@pytest.fixture
def on_this_device() -> Iterator[None]:
    """A GPU where there is one, else the CPU with Triton's interpreter."""
    with interpreted(operators) if DEVICE == "cpu" else contextlib.nullcontext():
        yield


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small limits, so that tiny samples have several parts and short lists several launches."""
    for name, value in (("ELEMENTS_OF_PART", 64), ("TILE", 32), ("MOST_TENSORS", 3)):
        monkeypatch.setattr(triton_common, name, value)


def draw(shapes, dtype: torch.dtype, **options) -> Samples:
    return Samples(shapes, dtype, device=DEVICE, **options)


def seed_of(value: int) -> Tensor:
    return torch.tensor([value], device=DEVICE)


@pytest.mark.usefixtures("poison", "small_tiles")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_equals_reference(name: str, dtype: torch.dtype) -> None:
    samples = draw(SMALL[name], dtype)
    # All dtypes of 16 bits are summed in float32.
    for curve in CURVES if dtype.itemsize > 2 else CURVES[:1]:
        samples.check_penalty(KERNELS, *curve)
    samples.check_interpolate(KERNELS, seed_of(2**60 + 7))


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["sequences", "tuple", "one large", "empty samples"])
def test_equals_reference_in_tiles_as_they_are(name: str, dtype: torch.dtype) -> None:
    samples = draw(CASES[name], dtype)
    samples.check_penalty(KERNELS, 1.0, False)
    samples.check_interpolate(KERNELS, seed_of(-3))


@pytest.mark.usefixtures("poison", "small_tiles")
@pytest.mark.parametrize("absent", [[0], [2], [0, 3]])
@pytest.mark.parametrize("name", ["longer than a launch", "large tuple"])
def test_absent_cotangents(name: str, absent: list[int]) -> None:
    draw(SMALL[name], torch.float32, absent=absent).check_penalty(KERNELS, 1.0, False)


@pytest.mark.usefixtures("poison", "small_tiles")
def test_channels_last() -> None:
    samples = draw([(2, 3, 4, 5), (2, 6)], torch.float32, channels_last=True)
    assert not samples.first[0].is_contiguous()
    samples.check_penalty(KERNELS, 1.0, False)
    samples.check_interpolate(KERNELS, seed_of(0))


@pytest.mark.usefixtures("poison", "small_tiles")
@pytest.mark.parametrize("name", ["tuple", "large tuple"])
@pytest.mark.parametrize("center", [0.0, 1.0])
def test_only_what_is_wanted(center: float, name: str) -> None:
    draw(SMALL[name], torch.float32).check_wanted(KERNELS, center)


@pytest.mark.usefixtures("poison", "small_tiles")
@pytest.mark.parametrize("shape", [(4, 9), (4, 100)])
@pytest.mark.parametrize(("center", "one_sided"), [*CURVES, (0.0, True)])
def test_zero_gradients(center: float, one_sided: bool, shape: tuple[int, ...]) -> None:
    samples = draw([shape], torch.float32)
    samples.first[0][1] = 0
    samples.check_penalty(KERNELS, center, one_sided)


@pytest.mark.usefixtures("poison", "small_tiles")
def test_at_the_center() -> None:
    draw([(3, 9)], torch.float32).check_at_the_center(KERNELS)


@pytest.mark.usefixtures("poison", "small_tiles")
@pytest.mark.parametrize("shape", [(2, 9), (2, 100)])
@pytest.mark.parametrize("scale", [1e-18, 1e17])
def test_tiny_and_huge_gradients(scale: float, shape: tuple[int, ...]) -> None:
    draw([shape], torch.float32).check_scaled(KERNELS, scale)


def test_extreme_factors() -> None:
    draw([(2, 9)], torch.float32).check_extremes(KERNELS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**63), 0x0123456789ABCDEF])
def test_numbers_are_those_of_philox(seed: int, dtype: torch.dtype) -> None:
    ones = torch.ones(40, dtype=dtype, device=DEVICE)
    a = KERNELS.interpolate(ones, None, seed_of(seed))
    assert torch.equal(a, uniform(seed_of(seed), 40, dtype))


@pytest.mark.usefixtures("on_this_device", "small_tiles")
@pytest.mark.parametrize(("center", "one_sided"), CURVES)
def test_penalty_to_second_order(center: float, one_sided: bool) -> None:
    samples = draw([(2, 3, 2), (2, 1)], torch.float64)
    grads = [g.requires_grad_() for g in samples.first]

    def run(*grads: Tensor) -> Tensor:
        return autograd.penalty(grads, center, one_sided, "triton")

    assert torch.autograd.gradcheck(run, grads)
    assert torch.autograd.gradgradcheck(run, grads, fast_mode=True)
    first = torch.autograd.grad(run(*grads), grads, create_graph=True)
    second = torch.autograd.grad(first[0].square().sum(), grads, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable twice, and a third derivative"):
        (second[0].square().sum() + grads[0].sum()).backward()


@pytest.mark.usefixtures("on_this_device")
def test_interpolate_is_its_own_derivative() -> None:
    pair = torch.randn(2, 3, 2, dtype=torch.float64, device=DEVICE, requires_grad=True).unbind()
    run = functools.partial(autograd.interpolate, seed=seed_of(5), impl="triton")
    assert torch.autograd.gradcheck(run, pair)
    assert torch.autograd.gradgradcheck(run, pair)


@pytest.mark.usefixtures("on_this_device")
def test_operators() -> None:
    ops = torch.ops.ganlstm_fast
    x, y = (torch.randn(3, 4, device=DEVICE, requires_grad=True) for _ in range(2))
    torch.library.opcheck(ops.interpolate.triton, (x, y, seed_of(1)))
    torch.library.opcheck(ops.penalty_forward.triton, ([x, y], 1.0, False))
    s, norms = torch.ones((), device=DEVICE), torch.ones(3, device=DEVICE)
    x, y = x.detach(), y.detach()
    arguments = (s, [x], norms, 1.0, False)
    torch.library.opcheck(ops.penalty_backward.triton, arguments)
    for wanted in ([True, True], [True, False]):
        torch.library.opcheck(ops.penalty_double_backward.triton, ([y], *arguments, wanted))


def test_no_samples() -> None:
    empty = torch.ones(0, 3, device=DEVICE)
    assert KERNELS.interpolate(empty, empty, seed_of(0)).shape == (0, 3)


COMPILE = """
import sys
import torch
from tests.triton_tools import compile_only, resources
from tests.triton_tools import by_triton
from ganlstm_fast.ops.gradient_penalty import operators

globals().update(vars(by_triton(operators)))

CURVES = [(1.0, False), (1.0, True), (0.0, False)]


def points(first):
    for pair in ((first, first), (first, None), (None, first)):
        interpolate(*pair, torch.zeros(1, dtype=torch.int64))


def penalty(first, curves):
    second = [None, *first[1:]] if len(first) > 1 else first
    for curve in curves:
        value, norms = penalty_forward(first, *curve)
        penalty_backward(value, first, norms, *curve)
        for wanted in ([True, True], [False, True], [True, False]):
            penalty_double_backward(second, value, first, norms, *curve, wanted)


for dtype, architecture in (word.split(":") for word in sys.argv[1:]):
    # What the kernels are compiled for beside the dtype is in all dtypes the same.
    every = dtype == "float32"
    found = compile_only(int(architecture))

    def zeros(*shapes):
        return [torch.zeros(shape, dtype=getattr(torch, dtype)) for shape in shapes]

    whole, parts = zeros((64, 32, 28)), zeros((4, 3, 128, 128))
    points(whole[0])
    penalty(whole, CURVES if every else CURVES[:1])
    penalty(parts, CURVES[::2] if every else CURVES[:1])
    assert all(".v4.b" in this.asm["ptx"] or ".v2.b64" in this.asm["ptx"]
               for this, name in found.items() if name != "penalty_value_kernel")
    if every:
        odd, one = zeros((5, 3), (5, 0), (5, 24, 31)), zeros((1, 1))
        for first in (odd, one):
            points(first[0])
        for first in (odd, one, zeros(*[(3, 700)] * 9)):
            penalty(first, CURVES[:1])
    for this, name in found.items():
        print(dtype, name, *resources(this))
"""
# Both Tritons, sm_80 and sm_90, and each dtype of the sums; the kernels do not ask for the GPU.
COMPILED = {
    "installed": ["float32:90", "bfloat16:80", "float64:90"],
    "lowest": ["float32:80", "float64:90"],
}


@pytest.mark.parametrize("triton", TRITONS)
def test_compiles_without_a_gpu(triton: str) -> None:
    """No register is spilled, and loads of aligned samples take several elements at once."""
    lines = compile_with(triton, COMPILE, *COMPILED[triton])
    assert len({(dtype, name) for dtype, name, *_ in lines}) == 5 * len(COMPILED[triton])
    for _, name, shared, stack in lines:
        assert int(shared) <= 48 << 10, name
        assert int(stack) == 0, f"{name} has spilled registers"

"""The GPU's kernels of the gradient penalty, on a GPU or emulated: all passes, many shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from ganlstm_fast.ops.gradient_penalty.philox import uniform
from tests import emulation
from tests.penalty_cases import CASES, CURVES, Samples

DTYPES = [torch.float64, torch.float32, torch.bfloat16]
# Elements between an aligned address and the samples, in the first and the second list.
OFFSETS = [(1, 1), (3, 0)]
GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@dataclass
class Kernels:
    ops: Any
    device: str

    def samples(self, shapes, dtype: torch.dtype, **options: Any) -> Samples:
        return Samples(shapes, dtype, device=self.device, **options)

    def seed(self, value: int = 1234567890123456789) -> Tensor:
        return torch.tensor([value], device=self.device)


@pytest.fixture(scope="module", params=["emulated", pytest.param("cuda", marks=GPU)])
def ops(request: pytest.FixtureRequest) -> Kernels:
    if request.param == "cuda":
        return Kernels(torch.ops.ganlstm_fast, "cuda")
    emulation.load("binding_gradient_penalty")
    return Kernels(torch.ops.ganlstm_fast_emulated, "cpu")


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("center", "one_sided"), CURVES)
@pytest.mark.parametrize("name", CASES)
def test_penalty_equals_reference(
    ops: Kernels, name: str, center: float, one_sided: bool, dtype: torch.dtype
) -> None:
    ops.samples(CASES[name], dtype).check_penalty(ops.ops, center, one_sided)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["tuple", "odd", "large"])
@pytest.mark.parametrize("offsets", OFFSETS)
def test_misaligned_samples(
    ops: Kernels, offsets: tuple[int, int], name: str, dtype: torch.dtype
) -> None:
    samples = ops.samples(CASES[name], dtype, offsets=offsets)
    samples.check_penalty(ops.ops, 1.0, False)
    samples.check_interpolate(ops.ops, ops.seed())


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_interpolate_equals_reference(ops: Kernels, name: str, dtype: torch.dtype) -> None:
    ops.samples(CASES[name], dtype).check_interpolate(ops.ops, ops.seed())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63), 0x0123456789ABCDEF])
def test_numbers_are_those_of_philox(ops: Kernels, seed: int, dtype: torch.dtype) -> None:
    """Equal to the bit: the point of real = 1 without a fake is the random number itself."""
    ones = torch.ones(40, dtype=dtype, device=ops.device)
    seed = ops.seed(seed)
    a = uniform(seed, 40, dtype)
    assert torch.equal(ops.ops.interpolate(ones, None, seed), a)
    assert torch.equal(ops.ops.interpolate(None, ones, seed), 1 - a)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 5, 9, 7), (3, 6, 27, 31)])
def test_channels_last(ops: Kernels, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    samples = ops.samples([shape, shape[:2]], dtype, channels_last=True)
    assert not samples.first[0].is_contiguous()
    samples.check_penalty(ops.ops, 1.0, False)
    samples.check_interpolate(ops.ops, ops.seed())


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("absent", [[0], [1], [0, 3]])
@pytest.mark.parametrize("name", ["tuple", "large tuple"])
def test_absent_cotangents(ops: Kernels, name: str, absent: list[int], dtype: torch.dtype) -> None:
    samples = ops.samples(CASES[name], dtype, absent=absent)
    samples.check_penalty(ops.ops, 1.0, False)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("name", ["tuple", "large tuple"])
@pytest.mark.parametrize("center", [0.0, 1.0])
def test_only_what_is_wanted(ops: Kernels, center: float, name: str) -> None:
    ops.samples(CASES[name], torch.float32).check_wanted(ops.ops, center)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("blocks", ["1", "2", "7"])
@pytest.mark.parametrize("name", ["many", "odd", "large", "large tuple"])
def test_any_number_of_blocks_gives_the_same_bits(
    ops: Kernels, name: str, blocks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = ops.samples(CASES[name], torch.float32)

    def run() -> list[Tensor]:
        got = samples.by_kernels(ops.ops, 1.0, False)
        points = ops.ops.interpolate(samples.first[0], samples.second[0], ops.seed())
        return [got["value"], got["norms"], *got["backward"], got["of s"], *got["of g"], points]

    usual = run()
    monkeypatch.setenv("GANLSTM_TEST_BLOCKS", blocks)
    assert all(torch.equal(a, b) for a, b in zip(run(), usual, strict=True))


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize(("center", "one_sided"), CURVES)
@pytest.mark.parametrize("shape", [(2, 3), (2, 50)])
def test_more_tensors_than_a_launch_takes(
    ops: Kernels, shape: tuple[int, ...], center: float, one_sided: bool
) -> None:
    samples = ops.samples([shape] * 150, torch.float64, absent=[0, 80])
    samples.check_penalty(ops.ops, center, one_sided)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("shape", [(4, 9), (4, 5000)])
@pytest.mark.parametrize(("center", "one_sided"), [*CURVES, (0.0, True)])
def test_zero_gradients(
    ops: Kernels, center: float, one_sided: bool, shape: tuple[int, ...]
) -> None:
    samples = ops.samples([shape], torch.float32)
    samples.first[0][1] = 0
    samples.first[0][3] = 0
    samples.check_penalty(ops.ops, center, one_sided)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("shape", [(4, 9), (2, 5000)])
def test_at_the_center(ops: Kernels, shape: tuple[int, ...]) -> None:
    ops.samples([shape], torch.float32).check_at_the_center(ops.ops)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("shape", [(2, 9), (2, 5000)])
@pytest.mark.parametrize("scale", [1e-18, 1e17])
def test_tiny_and_huge_gradients(ops: Kernels, scale: float, shape: tuple[int, ...]) -> None:
    ops.samples([shape], torch.float32).check_scaled(ops.ops, scale)


@pytest.mark.parametrize("shape", [(2, 9), (2, 5000)])
def test_extreme_factors(ops: Kernels, shape: tuple[int, ...]) -> None:
    ops.samples([shape], torch.float32).check_extremes(ops.ops)


def test_no_samples(ops: Kernels) -> None:
    samples = ops.samples([(0, 3)], torch.float32)
    got = ops.ops.interpolate(samples.first[0], samples.second[0], ops.seed())
    assert got.shape == (0, 3)


def test_checks(ops: Kernels) -> None:
    x, seed = torch.randn(4, 6, device=ops.device), ops.seed()
    norms, s = x.new_ones(4), x.new_ones(())
    interpolate, forward = ops.ops.interpolate, ops.ops.penalty_forward
    backward, double_backward = ops.ops.penalty_backward, ops.ops.penalty_double_backward
    for call, message in (
        (lambda: interpolate(None, None, seed), "real: expected a tensor where fake is absent"),
        (lambda: interpolate(x, x[:, :3], seed), r"fake: expected shape \(4, 6\) of real"),
        (lambda: interpolate(x, x.double(), seed), "fake: expected torch.float32 as real has"),
        (lambda: interpolate(x, x.T.contiguous().T, seed), "fake: expected the strides of"),
        (lambda: interpolate(None, x[:, ::2], seed), "fake: expected samples that are dense"),
        (lambda: interpolate(x, x, seed.int()), "seed: expected one torch.int64, got"),
        (lambda: interpolate(x.int(), None, seed), "real: expected torch.float32, torch.float64"),
        (lambda: forward([x, x[:2]], 1.0, False), r"grads: expected shape \(4, ...\)"),
        (lambda: forward([x[:0]], 1.0, False), r"grads: expected shape \(1 or more, ...\)"),
        (lambda: forward([x, x.double()], 1.0, False), "grads: expected torch.float32 as the"),
        (lambda: forward([x.int()], 1.0, False), "grads: expected torch.float32, torch.float64"),
        (lambda: forward([x[:, ::2]], 1.0, False), "grads: expected samples that are dense"),
        (lambda: backward(s, [x], norms[:2], 1.0, False), "norms: expected 4 values, contiguous"),
        (lambda: backward(s.double(), [x], norms, 1.0, False), "grad_value: expected torch.flo"),
        (
            lambda: double_backward([], s, [x], norms, 1.0, False, [True, True]),
            "v_grads: expected 1 as there are grads, got 0",
        ),
        (
            lambda: double_backward([x], s, [x], norms, 1.0, False, [True]),
            "wanted: expected 2 values, got 1",
        ),
    ):
        with pytest.raises(RuntimeError, match=message):
            call()

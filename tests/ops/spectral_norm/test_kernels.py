"""The GPU's kernels of the spectral norm, on a GPU, emulated or interpreted: lists of weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ganlstm_fast.ops.spectral_norm import operators, reference
from tests import emulation
from tests.numerics import assert_close_to_reference
from tests.ops.works import of_spectral_norm
from tests.spectral_norm_cases import EPS, WEIGHTS, draw
from tests.triton_tools import interpreted, operators_of

FEW_WEIGHTS = [((9, 3, 2, 2), 0), ((5, 9, 2, 2), 1), ((12, 130), 0)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]


@dataclass
class Kernels:
    ops: Any
    device: str
    is_interpreted: bool = False  # which takes long

    @property
    def weights(self) -> list[tuple[tuple[int, ...], int]]:
        return FEW_WEIGHTS if self.is_interpreted else WEIGHTS

    def of(self, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
        return [None if t is None else t.to(self.device) for t in tensors]


def triton_kernels(device: str, **options: bool) -> Kernels:
    found = {this.name: this.overloads["triton"] for this in operators_of(operators)}
    return Kernels(SimpleNamespace(**found), device, **options)


GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


# Interpreted where there is no GPU.
TRITON = pytest.param("triton", marks=GPU if torch.cuda.is_available() else ())


@pytest.fixture(scope="module", params=["emulated", pytest.param("cuda", marks=GPU), TRITON])
def ops(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    if request.param == "cuda":
        yield Kernels(torch.ops.ganlstm_fast, "cuda")
    elif request.param == "triton":
        pytest.importorskip("triton")
        if torch.cuda.is_available():
            yield triton_kernels("cuda")
            return
        with interpreted(operators):
            yield triton_kernels("cpu", is_interpreted=True)
    else:
        emulation.load("binding_spectral_norm")
        yield Kernels(torch.ops.ganlstm_fast_emulated, "cpu")


def by_kernels(ops, a, iterations: int, training: bool) -> list[list[Tensor]]:
    """For each weight: normalised, u, v, the gradient, and the second-order ones of G and W."""
    w, u, v, g, v_weight = (ops.of(tensors) for tensors in (a.w, a.u, a.v, a.g, a.v_weight))
    kernels = ops.ops
    normalized, vectors = kernels.spectral_norm_forward(w, u, v, a.dims, iterations, EPS, training)
    grads, inner = kernels.spectral_norm_backward(g, normalized, vectors, a.dims, EPS)
    g_grads, g_weights = kernels.spectral_norm_double_backward(
        v_weight, g, normalized, vectors, inner, a.dims, EPS, [True, True]
    )
    sizes = [t.numel() for pair in zip(a.u, a.v, strict=True) for t in pair]
    parts = vectors[: sum(sizes)].split(sizes)
    columns = (normalized, parts[::2], parts[1::2], grads, g_grads, g_weights)
    return [[t.cpu() for t in values] for values in zip(*columns, strict=True)]


def by_reference(a, iterations: int, training: bool, dtype: torch.dtype) -> list[list[Tensor]]:
    results = []
    for w, u, v, g, v_weight, dim in zip(a.w, a.u, a.v, a.g, a.v_weight, a.dims, strict=True):
        w, g = (t.to(dtype, copy=True).requires_grad_() for t in (w, g))
        normalized, new_u, new_v = reference.spectral_normalize(
            w,
            *(u.to(dtype), v.to(dtype)),
            n_power_iterations=iterations,
            eps=EPS,
            dim=dim,
            training=training,
        )
        (grad,) = torch.autograd.grad(normalized, w, g, create_graph=True)
        g_grad, g_weight = torch.autograd.grad(grad, [g, w], v_weight.to(dtype), allow_unused=True)
        results.append([normalized, new_u, new_v, grad, g_grad, g_weight])
    return results


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("iterations", "training"), [(1, True), (5, True), (1, False)])
def test_equals_reference(ops, iterations: int, training: bool, dtype: torch.dtype) -> None:
    a = draw(ops.weights, dtype)
    truth = by_reference(a, iterations, training, torch.float64)
    rival = by_reference(a, iterations, training, torch.float32 if dtype.itemsize > 2 else dtype)
    got = by_kernels(ops, a, iterations, training)
    names = ("normalized", "u", "v", "gradient", "of G", "of W")
    for index, rows in enumerate(zip(got, truth, rival, strict=True)):
        for name, out, true, other in zip(names, *rows, strict=True):
            other = other.detach() if dtype != torch.bfloat16 or name not in "uv" else None
            assert_close_to_reference(out, true.detach(), other, f"{name}[{index}]")


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("blocks", ["1", "2", "7"])
def test_any_number_of_blocks_gives_the_same_bits(
    ops, blocks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ops.is_interpreted:
        pytest.skip("Triton has no grid of blocks that stay")
    a = draw(ops.weights, torch.float32)
    usual = by_kernels(ops, a, 2, True)
    monkeypatch.setenv("GANLSTM_TEST_BLOCKS", blocks)
    for got, expected in zip(by_kernels(ops, a, 2, True), usual, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(got, expected, strict=True))


def test_more_weights_than_a_launch_takes(ops) -> None:
    a = draw([((3, 4), 0)] * (66 if ops.is_interpreted else 150), torch.float64)
    truth = by_reference(a, 1, True, torch.float64)
    for index, (got, true) in enumerate(zip(by_kernels(ops, a, 1, True), truth, strict=True)):
        torch.testing.assert_close(got, [t.detach() for t in true], msg=f"weight {index}")


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scale", [0.0, 1e-16, 1e25])
def test_zero_tiny_and_huge_weights(ops, scale: float, training: bool) -> None:
    """A zero weight keeps u and v. W^T (W v) leaves float32's range; u and v do not."""
    a = draw([((24, 5, 3, 3), 0), ((7, 6), 1)], torch.float32)
    a.w = [w * scale for w in a.w]
    truth = by_reference(a, 1, training, torch.float64)
    for got, true in zip(by_kernels(ops, a, 1, training), truth, strict=True):
        for out, expected in zip(got[:4], true[:4], strict=True):
            assert_close_to_reference(out, expected.detach(), expected.float().detach())


@pytest.mark.parametrize("shape", [(100_000, 2), (4, 300_000)], ids=["tall", "wide"])
def test_long_sums(ops, shape: tuple[int, ...]) -> None:
    """Sums of thousands of parts stay below the floor of the rule, without PyTorch's error."""
    if ops.is_interpreted:
        pytest.skip("Triton's sums are trees, and its interpreter takes minutes")
    a = draw([(shape, 0)], torch.float32)
    (truth,) = by_reference(a, 1, True, torch.float64)
    (got,) = by_kernels(ops, a, 1, True)
    for name, out, true in zip(("normalized", "u", "v"), got, truth, strict=False):
        assert_close_to_reference(out, true.detach(), what=name)


def test_a_weight_without_a_cotangent_is_left_out(ops) -> None:
    a = draw([((5, 7), 0), ((4, 3), 0)], torch.float64)
    truth = by_reference(a, 1, True, torch.float64)
    w, u, v, g, v_weight = (ops.of(t) for t in (a.w, a.u, a.v, [None, a.g[1]], a.v_weight))
    normalized, vectors = ops.ops.spectral_norm_forward(w, u, v, a.dims, 1, EPS, True)
    grads, inner = ops.ops.spectral_norm_backward(g, normalized, vectors, a.dims, EPS)
    assert grads[0].shape == (0,)
    torch.testing.assert_close(grads[1].cpu(), truth[1][3].detach())
    g_grads, g_weights = ops.ops.spectral_norm_double_backward(
        [None, v_weight[1]], g, normalized, vectors, inner, a.dims, EPS, [False, True]
    )
    assert [t.numel() for t in (*g_grads, *g_weights)] == [0, 0, 0, 12]
    torch.testing.assert_close(g_weights[1].cpu(), truth[1][5].detach())


@pytest.mark.parametrize("scale", [0.0, 1.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_vectors_are_overwritten_where_it_says_so(ops, dtype: torch.dtype, scale: float) -> None:
    a = draw(ops.weights, dtype)
    w, u, v = ops.of([t * scale for t in a.w]), ops.of(a.u), ops.of(a.v)
    u[0] = u[0].to(torch.promote_types(dtype, torch.float32))
    before = [t.clone() for t in (*u, *v)]
    normalized, vectors = ops.ops.spectral_norm_forward(w, u, v, a.dims, 2, EPS, True)
    assert all(torch.equal(x, y) for x, y in zip((*u, *v), before, strict=True))
    again, same = ops.ops.spectral_norm_forward_(w, u, v, a.dims, 2, EPS)
    assert torch.equal(vectors, same)
    assert all(torch.equal(x, y) for x, y in zip(normalized, again, strict=True))
    new = vectors.split([t.numel() for pair in zip(u, v, strict=True) for t in pair] + [len(w)])
    for values, expected in zip((*u, *v), (*new[:-1:2], *new[1:-1:2]), strict=True):
        # The interpreter cuts off what bfloat16 does not hold.
        cut_off = ops.is_interpreted and values.dtype == torch.bfloat16
        rtol = torch.finfo(dtype).eps if cut_off else 0
        torch.testing.assert_close(values, expected.to(values.dtype), rtol=rtol, atol=0)


def test_nan_is_as_in_the_reference(ops) -> None:
    a = draw([((5, 7), 0), ((4, 3), 0)], torch.float32)
    a.w[0][1, 2] = torch.nan
    truth = by_reference(a, 1, True, torch.float32)
    for got, true in zip(by_kernels(ops, a, 1, True), truth, strict=True):
        torch.testing.assert_close(got[0], true[0].detach(), equal_nan=True)
        torch.testing.assert_close(got[1], true[1], equal_nan=True)


def test_checks(ops) -> None:
    a = draw([((5, 7), 0)], torch.float32)

    def forward(**change):
        args = {"w": a.w, "u": a.u, "v": a.v, "dims": [0], "n": 1} | change
        vectors = [ops.of(args[name]) for name in "wuv"]
        return ops.ops.spectral_norm_forward(*vectors, args["dims"], args["n"], EPS, True)

    for change, message in (
        ({"w": []}, "weights: expected a tensor or more, got none"),
        ({"u": []}, "u: expected 1 as there are weights, got 0"),
        ({"u": [a.v[0]]}, r"u: expected shape one dimension = \(5\), got \(7,\)"),
        ({"v": [a.v[0].double()]}, "v: expected torch.float32, got torch.float64"),
        ({"dims": [2]}, r"dims: expected values in 0..1, got 2"),
        ({"n": 0}, "n_power_iterations: expected a positive number, got 0"),
    ):
        with pytest.raises(RuntimeError, match=message):
            forward(**change)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("impl", ["cuda", "triton"])
def test_large_weights(impl: str) -> None:
    """They have more parts than a program adds up at once, and several blocks a part."""
    weights = [((70_000, 40), 0), ((30, 90_000), 0), ((3, 512, 3000), 1), ((2000, 5000), 1)]
    work = of_spectral_norm(weights)("cuda", torch.float32, 0)
    truth = work.to(torch.float64).run("reference")
    assert_close_to_reference(work.run(impl), truth, work.run("reference"))

"""The gradient penalty's public functions on a GPU: every implementation, to second order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import ganlstm_fast as gf
from ganlstm_fast.losses.penalty import KINDS
from tests.gpu_cases import capture
from tests.numerics import assert_close_to_reference
from tests.penalty_cases import CASES, CURVES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DEVICE = "cuda"
IMPLS = ["cuda", "triton"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
F64 = torch.float64


def rival_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype == F64 else dtype


def draw(name: str, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients with norms on both sides of 1, and cotangents of theirs."""
    shapes = CASES[name]
    norm = sum(torch.Size(shape[1:]).numel() for shape in shapes) ** 0.5
    grads, directions = [], []
    for shape in shapes:
        scale = torch.linspace(0.4, 3, shape[0], dtype=F64).view(-1, *[1] * (len(shape) - 1))
        grad = torch.randn(shape, dtype=F64) * scale / max(norm, 1)
        direction = torch.randn(shape, dtype=F64) + 2 * grad.sign()
        grads.append(grad.to(DEVICE, dtype))
        directions.append(direction.to(DEVICE, dtype))
    return grads, directions


def three_orders(
    impl: str, given: tuple[list[Tensor], list[Tensor]], dtype: torch.dtype, *curve: float | bool
) -> list[Tensor]:
    grads, directions = ([t.to(dtype, copy=True) for t in tensors] for tensors in given)
    grads = [grad.requires_grad_() for grad in grads]
    value = gf.penalty(tuple(grads), center=curve[0], one_sided=curve[1], impl=impl)
    # A loss is often scaled, so the cotangent is not 1.
    scale = torch.tensor(0.7, dtype=value.dtype, device=value.device, requires_grad=True)
    first = torch.autograd.grad(scale * value, grads, create_graph=True)
    second = torch.autograd.grad(first, [scale, *grads], directions, materialize_grads=True)
    return [value, *first, *second]


# Every case once, and one case with every dtype and curve. The full product would find nothing
# more, and Triton compiles for each row.
PENALTIES = [
    *((name, CURVES[k % 3], DTYPES[k % 4], impl) for k, name in enumerate(CASES) for impl in IMPLS),
    *(("large tuple", curve, dtype, "cuda") for curve in CURVES for dtype in DTYPES),
    *(("tuple", CURVES[k % 3], dtype, "triton") for k, dtype in enumerate(DTYPES)),
]


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize(("name", "curve", "dtype", "impl"), PENALTIES)
def test_penalty_to_second_order(
    name: str, curve: tuple[float, bool], dtype: torch.dtype, impl: str
) -> None:
    given = draw(name, dtype)
    got = three_orders(impl, given, dtype, *curve)
    truth = three_orders("reference", given, F64, *curve)
    rival = three_orders("reference", given, rival_dtype(dtype), *curve)
    assert_close_to_reference(got, truth, rival)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("center", "one_sided"), CURVES)
def test_gradcheck_and_gradgradcheck(center: float, one_sided: bool, impl: str) -> None:
    grads = [g.requires_grad_() for g in draw("tuple", F64)[0]]
    grads = [grads[0], grads[1][:, :2, :3].detach().contiguous().requires_grad_()]

    def run(*grads: Tensor) -> Tensor:
        return gf.penalty(grads, center=center, one_sided=one_sided, impl=impl)

    assert torch.autograd.gradcheck(run, grads)
    assert torch.autograd.gradgradcheck(run, grads)


@pytest.mark.parametrize("impl", IMPLS)
def test_third_order_raises(impl: str) -> None:
    x = torch.randn(3, 4, device=DEVICE, requires_grad=True)
    (first,) = torch.autograd.grad(gf.penalty(x, impl=impl), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable twice, and a third derivative"):
        (second.square().sum() + x.square().sum()).backward()


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        *(((33, 24, 28), dtype) for dtype in DTYPES),
        *(((5,), torch.float32), ((3, 5, 7), torch.float16), ((4, 3, 64, 64), torch.bfloat16)),
        *(((70_000, 2), torch.float32), ((0, 3), torch.float32), ((4, 0), torch.float32)),
    ],
    ids=str,
)
def test_interpolate(shape: tuple[int, ...], dtype: torch.dtype, impl: str) -> None:
    """To first order; the same generator gives the same numbers to all, to the bit."""
    real, fake, cotangent = (torch.randn(shape).to(DEVICE, dtype) for _ in range(3))

    def run(impl: str, dtype: torch.dtype) -> list[Tensor]:
        pair = [t.to(dtype, copy=True).requires_grad_() for t in (real, fake)]
        generator = torch.Generator(DEVICE).manual_seed(5)
        points = gf.interpolate(*pair, generator=generator, impl=impl)
        return [points, *torch.autograd.grad(points, pair, cotangent.to(dtype))]

    wide = torch.promote_types(dtype, torch.float32)
    # Random numbers have 24 bits; those of float64 have 53 and differ.
    truth = [t.double() for t in run("reference", wide)]
    rival = run("reference", rival_dtype(dtype)) if dtype != F64 else None
    assert_close_to_reference(run(impl, dtype), truth, rival)
    if dtype == wide:
        one = torch.ones(shape, device=DEVICE, dtype=dtype)
        numbers = [
            gf.interpolate(
                one, 0 * one, generator=torch.Generator(DEVICE).manual_seed(9), impl=which
            )
            for which in (impl, "reference")
        ]
        assert torch.equal(*numbers)


@pytest.mark.parametrize("impl", IMPLS)
def test_interpolate_is_its_own_derivative(impl: str) -> None:
    pair = torch.randn(2, 3, 4, dtype=F64, device=DEVICE, requires_grad=True).unbind()

    def run(real: Tensor, fake: Tensor) -> Tensor:
        generator = torch.Generator(DEVICE).manual_seed(5)
        return gf.interpolate(real, fake, generator=generator, impl=impl)

    assert torch.autograd.gradcheck(run, pair)
    assert torch.autograd.gradgradcheck(run, pair)


@pytest.mark.parametrize("impl", IMPLS)
def test_tensors_share_their_numbers(impl: str) -> None:
    ones = torch.ones(6, 3, 5, device=DEVICE), torch.ones(6, 7, device=DEVICE)
    zeros = tuple(torch.zeros_like(t) for t in ones)
    first, second = gf.interpolate(ones, zeros, impl=impl)
    assert torch.equal(first[:, 0, 0], second[:, 0])
    again = gf.interpolate(ones, zeros, impl=impl)
    assert not torch.equal(first, again[0])


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_layouts(dtype: torch.dtype, impl: str) -> None:
    """Channels last stays; expanded or strided inputs are copied."""
    grad = torch.randn(4, 6, 9, 5, device=DEVICE, dtype=dtype)
    strided = torch.stack([grad, torch.full_like(grad, torch.nan)], -1)[..., 0]
    last = grad.contiguous(memory_format=torch.channels_last)

    def run(x: Tensor) -> list[Tensor]:
        x = x.detach().requires_grad_()
        (first,) = torch.autograd.grad(gf.penalty(x, impl=impl), x, create_graph=True)
        return [first, *torch.autograd.grad(first.sum(), x)]

    expected = run(grad)
    for other in (strided, last, grad.transpose(1, 3).contiguous().transpose(1, 3)):
        torch.testing.assert_close(run(other), expected)
    first = run(last)[0]
    assert first.is_contiguous(memory_format=torch.channels_last)
    expanded = torch.tensor(0.5, device=DEVICE, requires_grad=True)
    value = gf.penalty(expanded.expand(3, 16), impl=impl)
    assert torch.autograd.grad(value, expanded)[0].item() == pytest.approx(8)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("offset", "dtype"),
    [*((1, dtype) for dtype in DTYPES), (2, torch.bfloat16), (3, torch.float32)],
)
def test_misaligned_samples(dtype: torch.dtype, offset: int, impl: str) -> None:
    """Kernels load 16 bytes at a time only where addresses allow it."""
    flat = torch.randn(4 * 1027 + offset, device=DEVICE).to(dtype)
    values = flat[offset:].view(4, 1027)
    truth = gf.penalty(values.double(), impl="reference")
    rival = gf.penalty(values.to(rival_dtype(dtype)), impl="reference")
    assert_close_to_reference(gf.penalty(values, impl=impl), truth, rival)


@pytest.mark.parametrize("impl", IMPLS)
def test_float16_does_not_overflow(impl: str) -> None:
    grad = torch.full((2, 50), 1e4, dtype=torch.float16, device=DEVICE)
    expected = (1e4 * 50**0.5 - 1) ** 2
    assert gf.penalty(grad, impl=impl).item() == pytest.approx(expected, rel=1e-3)
    real = torch.full((2, 4), 6e4, device=DEVICE).half()
    assert torch.isfinite(gf.interpolate(real, -real, impl=impl)).all()


def critic() -> nn.Module:
    layers = nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 32), nn.Softplus(), nn.Linear(32, 1)
    return nn.Sequential(nn.Flatten(), *layers)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("kind", "dtype"), [*((kind, torch.float32) for kind in KINDS), ("wgan-gp", F64)]
)
def test_gradient_penalty_of_a_critic(kind: str, dtype: torch.dtype, impl: str) -> None:
    exact = critic().double().to(DEVICE)
    # At points between x and x, which is x whatever is drawn.
    real = fake = 2 * torch.randn(16, 4, 3, device=DEVICE)

    def run(impl: str, dtype: torch.dtype) -> list[Tensor]:
        model = critic().to(DEVICE, dtype)
        model.load_state_dict(exact.state_dict())
        value = gf.gradient_penalty(
            model, real.to(dtype), fake.to(dtype), kind=kind, noise=0.0, impl=impl
        )
        found = torch.autograd.grad(value, tuple(model.parameters()), allow_unused=True)
        return [value, *(g for g in found if g is not None)]

    rival = run("reference", torch.float32)
    assert_close_to_reference(run(impl, dtype), run("reference", F64), rival)


def _step(impl: str, real: Tensor, fake: Tensor, weight: Tensor) -> list[Tensor]:
    """A critic's step: the penalty of (x * weight) at points between, and its gradient."""
    value = gf.gradient_penalty(lambda x: (x * weight).tanh().flatten(1).sum(1), real, fake,
                                impl=impl)  # fmt: skip
    return [value, *torch.autograd.grad(value, weight)]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("shape", [(16, 24, 28), (4, 3, 64, 64)], ids=str)
def test_each_replay_of_a_graph_draws_new_numbers(shape: tuple[int, ...], impl: str) -> None:
    real, fake = torch.randn(2, *shape, device=DEVICE).unbind()
    weight = torch.randn(shape[1:], device=DEVICE, requires_grad=True)

    def run() -> list[Tensor]:
        return [*_step(impl, real, fake, weight), gf.interpolate(real, fake, impl=impl)]

    graph, captured = capture(run)
    graph.replay()
    first = [t.clone() for t in captured]
    graph.replay()
    for a, b in zip(first, captured, strict=True):
        assert torch.isfinite(b).all()
        assert not torch.equal(a, b)
    fake.copy_(real)  # at points between x and x, which is x whatever is drawn
    graph.replay()
    for a, b in zip(captured, run(), strict=True):
        torch.testing.assert_close(a, b)
    assert torch.equal(captured[-1], real)


def _peak(run: Callable[[], list[Tensor]]) -> int:
    run()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("impl", IMPLS)
def test_peak_memory(impl: str) -> None:
    """Only the two results, of first and of second order, are as large as the gradients."""
    given = tuple([torch.randn(32, 3, 128, 128, device=DEVICE)] for _ in range(2))

    def run() -> list[Tensor]:
        (x,), (direction,) = given
        x = x.detach().requires_grad_()
        (first,) = torch.autograd.grad(gf.penalty(x, impl=impl), x, create_graph=True)
        return [first, *torch.autograd.grad(first, x, direction)]

    size = given[0][0].numel() * 4
    assert _peak(run) <= 2.1 * size


@pytest.mark.slow
def test_offsets_of_more_than_32_bits() -> None:
    """The last samples get what they get in a batch without the others."""
    if torch.cuda.mem_get_info()[0] < 32 * 2**30:
        pytest.skip("needs 32 GiB of free memory on the device")
    size = 2**16 + 24
    x = torch.randn(2**15 + 8, size, device=DEVICE, dtype=torch.bfloat16) / 128  # norms of 2
    assert x.numel() > 2**31
    for impl in IMPLS:
        x.requires_grad_()
        (first,) = torch.autograd.grad(gf.penalty(x, impl=impl), x, create_graph=True)
        (second,) = torch.autograd.grad(first, x, x.detach())
        last = x.detach()[-8:].clone().requires_grad_()
        (alone,) = torch.autograd.grad(gf.penalty(last, impl=impl), last, create_graph=True)
        (second_alone,) = torch.autograd.grad(alone, last, last.detach())
        share = 8 / len(x)
        for got, expected in ((first, alone), (second, second_alone)):
            scaled = expected.detach().double() * share
            torch.testing.assert_close(got.detach()[-8:].double(), scaled, rtol=1e-2, atol=1e-9)
        points = gf.interpolate(
            x.detach(), x.detach(), generator=torch.Generator(DEVICE), impl=impl
        )
        assert torch.equal(points[-8:], x.detach()[-8:])
        del first, second, points
        torch.cuda.empty_cache()

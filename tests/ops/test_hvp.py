"""Hessian-vector products: torch.autograd.functional.hvp differentiates a double backward again."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hvp, vhp

import ganlstm_fast as gf
from ganlstm_fast.ops.gradient_penalty import autograd as penalties
from ganlstm_fast.ops.spectral_norm.function import spectral_normalize
from tests.numerics import assert_close_to_reference

F64 = torch.float64
LENGTHS = torch.tensor([5, 3])


def _layers(impl: str, **options: bool) -> gf.FastLSTM:
    torch.manual_seed(0)
    return gf.FastLSTM(3, 4, 2, bidirectional=True, dtype=F64, impl=impl, **options)


def _lstm(impl: str) -> Callable[..., Tensor]:
    layer = _layers(impl)
    return lambda x: layer(x)[0].sin().square().sum()


def _lstm_of_lengths(impl: str) -> Callable[..., Tensor]:
    layer = _layers(impl)

    def loss(x: Tensor, h: Tensor) -> Tensor:
        y, (last, cell) = layer(x, (h, h.sin()), lengths=LENGTHS)
        return y.sin().sum() + last.square().sum() + cell.exp().sum()

    return loss


def _recompute(impl: str) -> Callable[..., Tensor]:
    layer = _layers(impl, recompute=impl == "cpu")
    return lambda x: layer(x)[0].sin().square().sum()


def _weights(impl: str) -> Callable[..., Tensor]:
    layer = gf.FastLSTM(3, 4, dtype=F64, impl=impl)
    x = torch.randn(5, 2, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    names = [name for name, _ in layer.named_parameters()]

    def loss(*values: Tensor) -> Tensor:
        weights = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, weights, (x,))[0].sin().square().sum()

    return loss


def _spectral_norm(impl: str) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(1)
    u, v = (torch.randn(n, dtype=F64, generator=generator) for n in (3, 4))

    def loss(weight: Tensor, x: Tensor) -> Tensor:
        normalized, _, _ = spectral_normalize(weight, u, v, training=False, impl=impl)
        return (x @ normalized.T).sin().sum()

    return loss


def _penalty(impl: str) -> Callable[..., Tensor]:
    def loss(a: Tensor, b: Tensor) -> Tensor:
        if impl == "reference":
            norms = torch.cat([a.flatten(1), b.flatten(1)], 1).norm(dim=1)
            return (norms - 1.0).square().mean().exp()
        return penalties.penalty([a.sin().asin(), b], 1.0, False, impl).exp()

    return loss


CASES: dict[str, tuple[Callable[[str], Callable[..., Tensor]], list[tuple[int, ...]]]] = {
    "lstm": (_lstm, [(5, 2, 3)]),
    "lengths and states": (_lstm_of_lengths, [(5, 2, 3), (4, 2, 4)]),
    "recompute": (_recompute, [(20, 2, 3)]),
    "lstm's weights": (_weights, [(16, 3), (16, 4), (16,), (16,)]),
    "spectral norm": (_spectral_norm, [(3, 4), (2, 4)]),
    "penalty": (_penalty, [(4, 3), (4, 2, 2)]),
}


@pytest.mark.parametrize("case", CASES)
def test_hvp_is_that_of_the_reference(case: str) -> None:
    make, shapes = CASES[case]
    generator = torch.Generator().manual_seed(3)
    inputs, vectors = (
        tuple(0.4 * torch.randn(s, dtype=F64, generator=generator) for s in shapes)
        for _ in range(2)
    )
    value, product = hvp(make("cpu"), inputs, vectors)
    expected_value, expected = hvp(make("reference"), inputs, vectors)
    single = [t.float() for t in expected]
    assert_close_to_reference(value, expected_value, expected_value.float())
    assert_close_to_reference(list(product), list(expected), single)
    assert_close_to_reference(list(vhp(make("cpu"), inputs, vectors)[1]), list(expected), single)
    assert all(p.any() for p in product)


def test_hvp_of_a_critic_with_a_spectral_norm() -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(
        gf.SNConv1d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), gf.SNLinear(24, 1)
    )
    critic.double().eval()
    rival = copy.deepcopy(critic)
    gf.to_torch(rival)
    x, v = torch.randn(2, 2, 3, 6, dtype=F64)
    products = [hvp(lambda x, m=m: m(x).sin().sum(), x, v)[1] for m in (critic, rival)]
    torch.testing.assert_close(products[0], products[1])


def test_newton_by_conjugate_gradients() -> None:
    """A product with a known answer: H (H^-1 b) = b, with H^-1 b from hvp alone."""
    loss = CASES["lstm"][0]("cpu")
    x = 0.3 * torch.randn(5, 2, 3, dtype=F64, generator=torch.Generator().manual_seed(0))

    def product(v: Tensor) -> Tensor:
        return hvp(loss, x, v)[1] + 0.5 * v

    b = torch.ones_like(x)
    solution, residual = torch.zeros_like(x), b.clone()
    direction, before = residual.clone(), residual.square().sum()
    for _ in range(60):
        step = product(direction)
        size = before / (direction * step).sum()
        solution += size * direction
        residual -= size * step
        after = residual.square().sum()
        direction, before = residual + after / before * direction, after
    torch.testing.assert_close(product(solution), b)


def _double_backward(x: Tensor, v: Tensor) -> Tensor:
    loss = CASES["lstm"][0]("cpu")
    (grad,) = torch.autograd.grad(loss(x), x, create_graph=True)
    (double,) = torch.autograd.grad(grad, x, v, create_graph=True)
    return double


def test_only_what_is_linear_has_a_third_derivative() -> None:
    x = torch.randn(5, 2, 3, dtype=F64, requires_grad=True)
    v = torch.randn(5, 2, 3, dtype=F64, requires_grad=True)
    double = _double_backward(x, v)
    (product,) = torch.autograd.grad(double.sum(), v, retain_graph=True, create_graph=True)
    for wanted in (x, [x, v]):
        with pytest.raises(RuntimeError, match="a third derivative was asked for"):
            torch.autograd.grad(double.sum(), wanted, retain_graph=True)
    with pytest.raises(RuntimeError, match="a third derivative was asked for"):
        torch.autograd.grad(product.sum(), x, retain_graph=True)
    with pytest.raises(RuntimeError, match="a third derivative was asked for"):
        (double.square().sum() + x.sum()).backward()


def test_a_vector_that_depends_on_x_needs_the_third_order() -> None:
    """With v = x the derivative has a third-order part, which must not be left out silently."""
    x = torch.randn(5, 2, 3, dtype=F64, requires_grad=True)
    with pytest.raises(RuntimeError, match="a third derivative was asked for"):
        torch.autograd.grad(_double_backward(x, x.sin()).sum(), x)


@pytest.mark.parametrize("function", [hvp, vhp], ids=["hvp", "vhp"])
def test_a_gradient_of_a_product_is_right_or_raises(function: Callable[..., object]) -> None:
    """The head scales the LSTM's cotangents, so the product depends on the head."""
    lstm = _layers("cpu").requires_grad_(False)
    head = nn.Linear(8, 1, dtype=F64)
    x, v = torch.randn(2, 5, 2, 3, dtype=F64)

    def score(x: Tensor) -> Tensor:
        return head(lstm(x)[0]).sum()

    grads = {}
    for impl in ("reference", "cpu"):
        lstm.impl = impl
        product = function(score, x, v, create_graph=True)[1]
        loss = product.square().sum() - score(x)
        if impl == "cpu":
            with pytest.raises(RuntimeError, match="a third derivative was asked for"):
                torch.autograd.grad(loss, head.weight)
        else:
            (grads[impl],) = torch.autograd.grad(loss, head.weight)
    assert grads["reference"].any()


@pytest.mark.parametrize("where", ["grad_y", "grad_h", "grad_c"])
def test_what_scales_a_cotangent_reaches_the_third_order(where: str) -> None:
    """d and dz stand for the cotangents in the kernels; the graph knows where they come from."""
    layer = gf.FastLSTM(3, 4, dtype=F64, impl="cpu").requires_grad_(False)
    x = torch.randn(5, 2, 3, dtype=F64, requires_grad=True)
    v, w = torch.randn(5, 2, 3, dtype=F64, requires_grad=True), torch.randn(5, 2, 3, dtype=F64)
    scale = torch.tensor(2.0, dtype=F64, requires_grad=True)
    y, (h, c) = layer(x)
    total = {"grad_y": y, "grad_h": h, "grad_c": c}[where].sum()
    (grad,) = torch.autograd.grad(scale * total, x, create_graph=True)
    (double,) = torch.autograd.grad(grad, x, v, create_graph=True)
    (product,) = torch.autograd.grad(double, v, w, create_graph=True)
    with pytest.raises(RuntimeError, match="a third derivative was asked for"):
        torch.autograd.grad(product.sum() + scale, scale)

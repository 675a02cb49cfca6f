"""Gradient penalty: closed forms, derivatives, extreme inputs, several inputs, errors."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

import ganlstm_fast as gf
from ganlstm_fast.losses.penalty import KINDS
from ganlstm_fast.ops.gradient_penalty.function import interpolate, penalty
from ganlstm_fast.ops.gradient_penalty.philox import uniform
from tests.numerics import assert_close_to_reference

F64 = torch.float64


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _usual_penalty(grad: torch.Tensor, center: float = 1.0) -> torch.Tensor:
    return ((grad.flatten(1).norm(dim=1) - center) ** 2).mean()


@pytest.mark.parametrize("shape", [(5,), (4, 3), (3, 6, 2), (2, 3, 4, 4), (1, 7), (0, 3)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
def test_interpolate_lies_between_with_one_number_a_sample(shape, dtype):
    real, fake = torch.randn(2, *shape, dtype=F64).to(dtype)
    out = interpolate(real, fake, generator=_generator())
    seed = torch.empty(1, dtype=torch.int64).random_(generator=_generator())
    a = uniform(seed, shape[0], F64 if dtype == F64 else torch.float32).double()
    a = a.view(-1, *[1] * (len(shape) - 1))
    assert out.dtype == dtype
    assert_close_to_reference(out, a * real.double() + (1 - a) * fake.double())
    torch.testing.assert_close(out, interpolate(real, fake, generator=_generator()), rtol=0, atol=0)
    if out.numel():
        assert not torch.equal(out, interpolate(real, fake, generator=_generator(1)))


def test_interpolate_draws_from_the_default_generator():
    real, fake = torch.zeros(4, 3), torch.ones(4, 3)
    torch.manual_seed(7)
    first = interpolate(real, fake)
    torch.manual_seed(7)
    assert torch.equal(first, interpolate(real, fake))
    assert not torch.equal(first, interpolate(real, fake))


def test_interpolate_is_differentiable_and_takes_tuples():
    real, fake = torch.randn(2, 3, 2, dtype=F64, requires_grad=True).unbind()

    def run(r, f):
        return interpolate(r, f, generator=_generator())

    assert torch.autograd.gradcheck(run, (real, fake))
    assert torch.autograd.gradgradcheck(run, (real, fake))
    single = run(real, fake)
    both = interpolate((real, real[:, 0]), (fake, fake[:, 0]), generator=_generator())
    assert isinstance(both, tuple)
    torch.testing.assert_close(both, (single, single[:, 0]))


@pytest.mark.parametrize("center", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, F64])
def test_penalty_equals_the_usual_code(center, dtype):
    grad = torch.randn(6, 5, 3).to(dtype)
    out = penalty(grad, center=center)
    assert out.dtype == (F64 if dtype == F64 else torch.float32)
    rival = _usual_penalty(grad.to(out.dtype), center)
    assert_close_to_reference(out, _usual_penalty(grad.double(), center), rival)


def test_one_sided_penalty_takes_only_what_is_above():
    grad = torch.tensor([[0.5, 0.0], [0.0, 3.0], [0.0, 0.0]])
    assert penalty(grad, one_sided=True).item() == pytest.approx(4 / 3)
    assert penalty(grad).item() == pytest.approx((0.25 + 4 + 1) / 3)


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("center", [0.0, 1.0])
def test_penalty_to_second_order(center, one_sided):
    torch.manual_seed(0)
    grad = (2 * torch.randn(4, 3, 2, dtype=F64)).requires_grad_()
    run = functools.partial(penalty, center=center, one_sided=one_sided)
    assert torch.autograd.gradcheck(run, grad)
    assert torch.autograd.gradgradcheck(run, grad)


@pytest.mark.parametrize("one_sided", [False, True])
def test_zero_gradient_has_zero_and_finite_derivatives(one_sided):
    values = torch.randn(3, 4)
    values[1] = 0
    values.requires_grad_()
    out = penalty(values, one_sided=one_sided)
    (first,) = torch.autograd.grad(out, values, create_graph=True)
    assert torch.equal(first[1], torch.zeros(4))
    (second,) = torch.autograd.grad(first.sum(), values)
    assert torch.isfinite(second).all()


def test_zero_gradient_keeps_its_curvature_around_zero():
    values = torch.zeros(2, 3, requires_grad=True)
    (first,) = torch.autograd.grad(penalty(values, center=0.0), values, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), values)
    torch.testing.assert_close(second, torch.ones(2, 3))  # d2/dg2 of ||g||^2 / 2 samples


def test_float16_does_not_overflow():
    grad = torch.full((2, 50), 1e4, dtype=torch.float16)
    expected = (1e4 * 50**0.5 - 1) ** 2
    assert penalty(grad).item() == pytest.approx(expected, rel=1e-3)
    real, fake = torch.full((2, 4), 6e4).half(), torch.full((2, 4), -6e4).half()
    assert torch.isfinite(interpolate(real, fake)).all()
    weight = torch.full((4,), 2.0, dtype=torch.float16, requires_grad=True)
    value = gf.gradient_penalty(lambda x: x.mul(weight).sum(1), real, real)
    assert value.item() == pytest.approx(90)
    assert torch.isfinite(torch.autograd.grad(value, weight)[0]).all()


def test_expanded_and_non_contiguous_gradients():
    base = torch.randn(4, 5, 3, dtype=F64)
    expected = penalty(base.transpose(0, 2).contiguous())
    torch.testing.assert_close(penalty(base.transpose(0, 2)), expected)
    expanded = torch.tensor(0.5, dtype=F64, requires_grad=True)
    value = penalty(expanded.expand(3, 16))  # every norm is 4 * 0.5
    assert value.item() == pytest.approx(1)
    assert torch.autograd.grad(value, expanded)[0].item() == pytest.approx(8)


def test_tuple_makes_one_norm():
    grads = torch.tensor([[3.0]]), torch.tensor([[[4.0]]])
    assert penalty(grads).item() == pytest.approx(16)


# What each kind gives for a critic whose gradient has norm n everywhere.
CLOSED_FORMS = {
    "wgan-gp": lambda n: (n - 1) ** 2,
    "wgan-lp": lambda n: max(0.0, n - 1) ** 2,
    "r1": lambda n: n**2 / 2,
    "r2": lambda n: n**2 / 2,
    "dragan": lambda n: (n - 1) ** 2,
    "zero-centered": lambda n: n**2,
}


@pytest.mark.parametrize("norm", [0.4, 2.5])
@pytest.mark.parametrize("shape", [(4,), (1, 3), (4, 3), (3, 2, 4), (2, 3, 2, 2)])
@pytest.mark.parametrize("kind", list(KINDS))
def test_linear_critic_has_its_closed_form(kind, shape, norm):
    weight = torch.randn(shape[1:], dtype=F64)
    weight = (norm * weight / weight.norm()).requires_grad_()

    def critic(x):
        return (x * weight).flatten(1).sum(1) if x.dim() > 1 else x * weight

    real, fake = torch.randn(2, *shape, dtype=F64)
    value = gf.gradient_penalty(critic, real, fake, kind=kind, lambda_=3.0)
    assert value.item() == pytest.approx(3 * CLOSED_FORMS[kind](norm), abs=1e-12)
    (grad,) = torch.autograd.grad(value, weight)
    direction = (weight / norm).detach()
    slope = {"r1": norm, "r2": norm, "zero-centered": 2 * norm, "wgan-lp": 2 * max(0, norm - 1)}
    torch.testing.assert_close(grad, 3 * slope.get(kind, 2 * (norm - 1)) * direction)


@pytest.mark.parametrize("kind", ["r1", "r2"])
def test_quadratic_critic(kind):
    """D(x) = a ||x||^2 / 2 has gradient a x: the penalty is lambda/2 a^2 E||x||^2."""
    real, fake = torch.randn(2, 5, 3, dtype=F64)
    a = torch.tensor(1.5, dtype=F64, requires_grad=True)
    value = gf.gradient_penalty(
        lambda x: a * x.square().sum(1) / 2, real, fake, kind=kind, lambda_=4.0
    )
    mean = (real if kind == "r1" else fake).square().sum(1).mean()
    torch.testing.assert_close(value, 2 * a**2 * mean)
    torch.testing.assert_close(torch.autograd.grad(value, a)[0], (4 * a * mean).detach())


def test_points_of_each_kind():
    """A critic that records where it is asked."""
    real, fake = torch.randn(2, 4, 3, dtype=F64)
    seen = []

    def critic(x):
        seen.append(x.detach().clone())
        return x.sum(1)

    for kind in KINDS:
        gf.gradient_penalty(critic, real, fake, kind=kind, generator=_generator(), noise=0.1)
    points = dict(zip(KINDS, seen, strict=True))
    between = interpolate(real, fake, generator=_generator())
    for kind in ("wgan-gp", "wgan-lp", "zero-centered"):
        assert torch.equal(points[kind], between)
    assert torch.equal(points["r1"], real)
    assert torch.equal(points["r2"], fake)
    noise = torch.randn(4, 3, generator=_generator(), dtype=F64)
    torch.testing.assert_close(points["dragan"], real + 0.1 * real.std(correction=0) * noise)


def test_only_what_a_kind_needs():
    real = torch.randn(4, 3)
    for kind in ("r1", "dragan"):
        gf.gradient_penalty(lambda x: x.sum(1), real, kind=kind)
    gf.gradient_penalty(lambda x: x.sum(1), None, real, kind="r2")
    for kind, given, missing in (("wgan-gp", (real, None), "fake"), ("r1", (None, real), "real")):
        with pytest.raises(ValueError, match=f"{missing}: this kind of penalty needs it"):
            gf.gradient_penalty(lambda x: x.sum(1), *given, kind=kind)


class _LSTMCritic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = gf.FastLSTM(3, 5, batch_first=True)
        self.head = nn.Linear(5, 1)

    def forward(self, x):
        return self.head(self.lstm(x)[0])


def _mlp():
    return nn.Sequential(
        nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Softplus(), nn.Linear(8, 1)
    )


def _spectral_conv():
    """In eval mode, because in training mode each call changes u and v."""
    layers = gf.SNConv1d(3, 4, 3), nn.Tanh(), nn.Flatten(), gf.SNLinear(12, 1)
    return nn.Sequential(*layers).eval()


CRITICS = [
    pytest.param(_mlp, (4,), id="mlp"),
    pytest.param(_LSTMCritic, (5, 3), id="lstm"),
    pytest.param(_spectral_conv, (3, 5), id="spectral-conv"),
]


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(("build", "shape"), CRITICS)
def test_critics_against_finite_differences(build, shape, kind):
    torch.manual_seed(0)
    critic = build().double()
    real, fake = 2 * torch.randn(2, 6, *shape, dtype=F64)
    parameters = list(critic.parameters())
    for parameter in parameters:
        parameter.data.mul_(2)

    def value():
        return gf.gradient_penalty(critic, real, fake, kind=kind, generator=_generator())

    grads = torch.autograd.grad(value(), parameters, allow_unused=True)
    if kind != "wgan-lp":
        assert max(g.abs().max() for g in grads if g is not None) > 1e-3
    step = 1e-6
    for parameter, grad in zip(parameters, grads, strict=True):
        direction, ends = torch.randn_like(parameter), []
        for sign in (1, -1):
            parameter.data.add_(direction, alpha=sign * step)
            ends.append(value().item())
            parameter.data.add_(direction, alpha=-sign * step)
        slope = (ends[0] - ends[1]) / (2 * step)
        found = 0.0 if grad is None else (grad * direction).sum().item()
        assert found == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_agrees_with_the_usual_code_and_reaches_only_the_critic():
    critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    parameters = list(critic.parameters())
    real, fake = torch.randn(2, 6, 4, requires_grad=True).unbind()
    value = gf.gradient_penalty(critic, real, fake, generator=_generator())
    x = interpolate(real, fake, generator=_generator()).detach().requires_grad_()
    (grad,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    usual = 10 * _usual_penalty(grad)
    torch.testing.assert_close(value, usual)
    ours, theirs = (
        torch.autograd.grad(v, parameters, allow_unused=True, retain_graph=True)
        for v in (value, usual)
    )
    torch.testing.assert_close(ours[:-1], theirs[:-1])
    assert torch.autograd.grad(value, (real, fake), allow_unused=True) == (None, None)


def test_several_inputs_outputs_and_arguments():
    real, fake = torch.randn(2, 4, 3, dtype=F64)
    second = real[:, :2] * 2
    scale = torch.tensor([3.0], dtype=F64)

    def critic(x, y, factor, *, bias):
        return (factor * x).view(4, 3, 1), [factor * y.sum(1) + bias][0]

    value = gf.gradient_penalty(
        critic,
        (real, second),
        (fake, second),
        lambda_=1.0,
        critic_args=(scale,),
        critic_kwargs={"bias": 5},
    )
    assert value.item() == pytest.approx((3 * 5**0.5 - 1) ** 2)


def test_no_grad_gives_the_value_alone():
    critic = nn.Linear(3, 1)
    real, fake = torch.randn(2, 4, 3)
    expected = gf.gradient_penalty(critic, real, fake)
    with torch.no_grad():
        value = gf.gradient_penalty(critic, real, fake)
    assert not value.requires_grad
    torch.testing.assert_close(value, expected.detach())
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode"):
        gf.gradient_penalty(critic, real, fake)


def test_frozen_critic_has_a_value():
    critic = nn.Linear(3, 1).requires_grad_(False)
    assert torch.isfinite(gf.gradient_penalty(critic, *torch.randn(2, 4, 3)))


def test_errors_of_inputs():
    x = torch.randn(4, 3)
    critic = nn.Linear(3, 1)
    call = functools.partial(gf.gradient_penalty, critic)
    with pytest.raises(ValueError, match=r"fake: expected shape \(4, 3\) of real, got \(2, 3\)"):
        call(x, x[:2])
    with pytest.raises(ValueError, match=r"fake: expected torch\.float32"):
        call(x, x.double())
    with pytest.raises(ValueError, match="fake: expected 1 tensors as real has, got 2"):
        call(x, (x, x))
    with pytest.raises(ValueError, match=r"real\[1\]: expected 4 samples"):
        call((x, x[:2]), (x, x[:2]))
    with pytest.raises(TypeError, match="real: expected a floating-point tensor, got"):
        call(x.long(), x.long())
    with pytest.raises(TypeError, match="real: expected a tensor or a tuple of tensors, got str"):
        call("x", x)
    with pytest.raises(ValueError, match="real: expected a batch dimension first"):
        call(torch.tensor(1.0), torch.tensor(1.0))
    with pytest.raises(ValueError, match="real: expected at least one sample"):
        call(x[:0], x[:0])
    with pytest.raises(ValueError, match="grad: expected at least one sample"):
        penalty(x[:0])
    with pytest.raises(ValueError, match=r"kind: expected one of wgan-gp, .*, got 'gp'"):
        call(x, x, kind="gp")
    with pytest.raises(TypeError, match="lambda_: expected a number, got str"):
        call(x, x, lambda_="10")
    with pytest.raises(ValueError, match="lambda_: expected a finite number, 0 or more, got -1"):
        call(x, x, lambda_=-1)
    with pytest.raises(ValueError, match="center: expected a finite number"):
        penalty(x, center=float("nan"))
    with pytest.raises(RuntimeError, match="impl='torch' cannot run gradient_penalty"):
        call(x, x, impl="torch")


@pytest.mark.parametrize(
    ("critic", "error", "message"),
    [
        (lambda x: x.mean(), ValueError, r"critic: expected scores of shape \(4, \.\.\.\)"),
        (lambda x: x.sum(1)[:2], ValueError, r"for each of the 4 samples, got \(2,\)"),
        (lambda x: x.detach().sum(1), RuntimeError, "does not depend on the critic's input"),
        (lambda x: torch.ones(4, requires_grad=True), RuntimeError, "depend on its input"),
        (lambda x: None, TypeError, "critic: expected floating-point scores, got NoneType"),
        (lambda x: x.sum(1) > 0, TypeError, "critic: expected floating-point scores"),
        (lambda x: (x.sum(1), None), TypeError, "critic: output 1: expected floating-point"),
        (lambda x: [], TypeError, "critic: expected scores, got an empty list"),
    ],
)
def test_errors_of_critics(critic, error, message):
    x = torch.randn(4, 3)
    with pytest.raises(error, match=message):
        gf.gradient_penalty(critic, x, x)


def test_input_that_a_critic_ignores_is_named():
    x = torch.randn(4, 3)
    with pytest.raises(RuntimeError, match="does not depend on input 1"):
        gf.gradient_penalty(lambda a, b: a.sum(1), (x, x), (x, x))

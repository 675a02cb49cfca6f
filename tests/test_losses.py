"""GAN losses: their formulas, extreme scores, dtypes, the registry."""

from __future__ import annotations

import math

import pytest
import torch

from ganlstm_fast import losses
from ganlstm_fast.losses import LOSSES, gan_loss

NAMES = list(LOSSES)


def _log_sigmoid(x: torch.Tensor) -> torch.Tensor:
    return torch.log(1 / (1 + torch.exp(-x)))


FORMULAS = {
    "wgan-gp": (lambda r, f: f.mean() - r.mean(), lambda f: -f.mean()),
    "hinge": (
        lambda r, f: (1 - r).clamp(min=0).mean() + (1 + f).clamp(min=0).mean(),
        lambda f: -f.mean(),
    ),
    "lsgan": (
        lambda r, f: ((r - 1) ** 2).mean() / 2 + (f**2).mean() / 2,
        lambda f: ((f - 1) ** 2).mean() / 2,
    ),
    "minimax": (
        lambda r, f: -_log_sigmoid(r).mean() - _log_sigmoid(-f).mean(),
        lambda f: _log_sigmoid(-f).mean(),
    ),
    "non-saturating": (
        lambda r, f: -_log_sigmoid(r).mean() - _log_sigmoid(-f).mean(),
        lambda f: -_log_sigmoid(f).mean(),
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_equals_its_formula_to_second_order(name):
    critic, generator = FORMULAS[name]
    real = torch.randn(6, 1, dtype=torch.float64, requires_grad=True)
    fake = torch.randn(4, 2, 2, dtype=torch.float64, requires_grad=True)
    loss = gan_loss(name)
    torch.testing.assert_close(loss.critic(real, fake), critic(real, fake))
    torch.testing.assert_close(loss.generator(fake), generator(fake))
    for run, inputs in ((loss.critic, (real, fake)), (loss.generator, (fake,))):
        assert torch.autograd.gradcheck(run, inputs)
        assert torch.autograd.gradgradcheck(run, inputs)


@pytest.mark.parametrize("name", ["minimax", "non-saturating"])
@pytest.mark.parametrize("size", [100.0, 1e4, 3e38])
def test_extreme_scores_are_finite_and_exact(name, size):
    """Far out, softplus(x) is x on one side and 0 on the other."""
    loss = gan_loss(name)
    for sign in (1, -1):
        scores = torch.tensor([sign * size], requires_grad=True)
        value = loss.critic(scores, torch.zeros(1))
        assert value.item() == pytest.approx(max(0, -sign * size) + math.log(2))
        (grad,) = torch.autograd.grad(value, scores)
        assert grad.item() == pytest.approx(0.0 if sign > 0 else -1.0)
        (grad,) = torch.autograd.grad(loss.generator(scores), scores)
        assert torch.isfinite(grad).all()


def test_the_generator_that_does_not_saturate_keeps_its_gradient():
    fake = torch.tensor([-30.0], requires_grad=True)
    (weak,) = torch.autograd.grad(gan_loss("minimax").generator(fake), fake)
    (strong,) = torch.autograd.grad(gan_loss("non-saturating").generator(fake), fake)
    assert abs(weak.item()) < 1e-12
    assert strong.item() == pytest.approx(-1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_scores_are_averaged_in_float32(name, dtype):
    real, fake = (torch.full((300,), x, dtype=dtype, requires_grad=True) for x in (512.0, -300.0))
    loss = gan_loss(name)
    value = loss.critic(real, fake) + loss.generator(fake)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    exact = loss.critic(real.double(), fake.double()) + loss.generator(fake.double())
    assert value.item() == pytest.approx(exact.item(), rel=1e-6)
    value.backward()
    assert real.grad.dtype == dtype
    assert torch.isfinite(real.grad).all()


def test_registry():
    assert {"wgan-gp", "hinge", "lsgan", "minimax"} <= set(LOSSES)
    assert all(gan_loss(name).name == name for name in LOSSES)
    assert gan_loss("wgan-gp").penalty == "wgan-gp"
    assert gan_loss("hinge").penalty is None
    for bad in ("wgan", None, ["hinge"]):
        with pytest.raises(ValueError, match="loss: expected one of wgan-gp, hinge"):
            gan_loss(bad)


@pytest.mark.parametrize(
    "name", [n for n in losses.__all__ if n.endswith(("critic_loss", "generator_loss"))]
)
def test_errors(name):
    run = getattr(losses, name)
    good = torch.randn(3)
    which = ("real_scores", "fake_scores") if "critic" in name else ("fake_scores",)
    count = len(which)
    for index in range(count):
        for bad, error, message in (
            (torch.empty(0), ValueError, "expected at least one score"),
            (torch.arange(3), TypeError, "expected a floating-point tensor"),
            (1.0, TypeError, "expected a tensor, got float 1.0"),
        ):
            args = [good] * count
            args[index] = bad
            with pytest.raises(error, match=f"{which[index]}: {message}"):
                run(*args)

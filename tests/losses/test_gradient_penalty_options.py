"""Options of ``gradient_penalty``: masks, a part of the batch, mixed precision, torch.compile."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ganlstm_fast as gf
from ganlstm_fast.losses.penalty import KINDS

F64 = torch.float64


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -------------------------------------------------------------------------------------- masks


class _ConvCritic(nn.Module):
    """A critic without lengths: it reads the padding like data."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(4, 1, 3, padding=1)

    def forward(self, x):
        return self.second(self.first(x.mT).tanh()).flatten(1).sum(1)


LENGTHS = torch.tensor([5, 2, 3, 1])
MASK = torch.arange(5) < LENGTHS[:, None]


@pytest.mark.parametrize("kind", list(KINDS))
def test_padding_contributes_nothing(kind):
    """The penalty and the critic's gradients are as if the padding were zero."""
    critic = _ConvCritic().double()
    real, fake = torch.randn(2, 4, 5, 3, dtype=F64)
    found = []
    for padding in (0.0, 7.0, float("nan")):
        padded = [x.where(MASK[:, :, None], padding) for x in (real, fake)]
        value = gf.gradient_penalty(critic, *padded, kind=kind, mask=MASK, generator=_generator())
        found.append((value, *torch.autograd.grad(value, list(critic.parameters())[:1])))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-12, atol=1e-12)
    assert found[0][1].abs().max() > 1e-3


def test_masked_norm_is_that_of_the_valid_elements():
    """A linear critic: the gradient of a sample of n steps is the weight, n times."""
    weight = torch.randn(3, dtype=F64)
    real, fake = torch.randn(2, 4, 5, 3, dtype=F64)
    value = gf.gradient_penalty(lambda x: (x * weight).sum(2), real, fake, mask=MASK, lambda_=1.0)
    norms = weight.norm() * LENGTHS.double().sqrt()
    torch.testing.assert_close(value, (norms - 1).square().mean())
    full = gf.gradient_penalty(lambda x: (x * weight).sum(2), real, fake, lambda_=1.0)
    torch.testing.assert_close(full, (weight.norm() * 5**0.5 - 1).square())


def test_mask_of_an_lstm_critic_with_lengths_changes_nothing():
    lstm = gf.FastLSTM(3, 4, batch_first=True).double()
    real, fake = torch.randn(2, 4, 5, 3, dtype=F64)

    def critic(x, lengths):
        return lstm(x, lengths=lengths)[1][0][-1]

    values = [
        gf.gradient_penalty(
            critic, real, fake, mask=mask, critic_args=(LENGTHS,), generator=_generator()
        )
        for mask in (MASK, None)
    ]
    torch.testing.assert_close(*values)


def test_masks_of_several_inputs():
    series, features = torch.randn(4, 5, 3, dtype=F64), torch.randn(4, 2, dtype=F64)

    def critic(x, y):
        return x.flatten(1).sum(1) + y.sum(1)

    value = gf.gradient_penalty(
        critic, (series, features), (series, features), mask=(MASK, None), lambda_=1.0
    )
    norms = (3 * LENGTHS.double() + 2).sqrt()
    torch.testing.assert_close(value, (norms - 1).square().mean())


def test_dragan_s_noise_is_of_the_valid_elements_spread():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.flatten(1).sum(1)

    real = torch.randn(4, 5, 3, dtype=F64)
    real[~MASK] = 1e6
    gf.gradient_penalty(critic, real, kind="dragan", mask=MASK, noise=1.0, generator=_generator())
    valid = real[MASK]
    noise = torch.randn(4, 5, 3, dtype=F64, generator=_generator())
    expected = (real + valid.std(correction=0) * noise)[MASK]
    torch.testing.assert_close(seen[0][MASK], expected)
    assert not seen[0][~MASK].any()


# --------------------------------------------------------------------------- part of the batch


def test_batch_fraction_takes_the_first_samples():
    critic = nn.Bilinear(3, 2, 1).double()
    real, fake, condition = (torch.randn(7, k, dtype=F64) for k in (3, 3, 2))
    part = gf.gradient_penalty(
        critic, real, fake, critic_args=(condition,), batch_fraction=0.4, generator=_generator()
    )
    alone = gf.gradient_penalty(
        critic, real[:3], fake[:3], critic_args=(condition[:3],), generator=_generator()
    )
    torch.testing.assert_close(part, alone)
    seen = []

    def one(x, *, flag, scale):
        seen.append(len(x))
        return x.sum(1) * scale

    named = {"flag": True, "scale": 2.0}
    gf.gradient_penalty(one, real, kind="r1", batch_fraction=1e-9, critic_kwargs=named)
    assert seen == [1]


def test_batch_fraction_cuts_masks_and_tuples():
    real, fake = torch.randn(2, 4, 5, 3, dtype=F64)
    part = gf.gradient_penalty(
        lambda x, y: x.sum(2) + y.sum(2),
        (real, real),
        (fake, fake),
        mask=(MASK, None),
        batch_fraction=0.5,
        lambda_=1.0,
    )
    norms = (3 * LENGTHS[:2].double() + 15).sqrt()
    torch.testing.assert_close(part, (norms - 1).square().mean())


def test_every_sample_s_share_makes_the_same_mean():
    """The expected value over batches is that of the whole batch."""
    critic = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    real = torch.randn(8, 3, dtype=F64)
    whole = gf.gradient_penalty(critic, real, kind="r1")
    parts = [
        gf.gradient_penalty(critic, real.roll(k, 0), kind="r1", batch_fraction=0.25)
        for k in range(0, 8, 2)
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


# ---------------------------------------------------------------------------- mixed precision


class _Shrink(torch.autograd.Function):
    """The identity, with a gradient of 2^-26, which float16 does not hold."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return (grad * 2.0**-26).half().float()


def test_scaler_keeps_gradients_from_vanishing_in_float16():
    weight = torch.full((4,), 3.0)

    def critic(x):
        return _Shrink.apply((x * weight).sum(1))

    real, fake = torch.randn(2, 5, 4)
    unscaled = gf.gradient_penalty(critic, real, fake, kind="zero-centered", lambda_=1.0)
    assert unscaled.item() == 0
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    value = gf.gradient_penalty(
        critic, real, fake, kind="zero-centered", lambda_=1.0, scaler=scaler
    )
    assert value.item() == pytest.approx(36 * 2.0**-52, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_scaler(dtype):
    """A step of mixed precision, against the same in float64."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1))
    exact = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1)).double()
    exact.load_state_dict(critic.state_dict())
    real, fake = torch.randn(2, 16, 6)
    optimizer = torch.optim.SGD(critic.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with torch.autocast("cpu", dtype=dtype):
        value = gf.gradient_penalty(critic, real, fake, generator=_generator(), scaler=scaler)
    assert value.dtype == torch.float32
    scaler.scale(value).backward()
    scaler.unscale_(optimizer)
    points = gf.interpolate(real, fake, generator=_generator()).double().requires_grad_()
    (grad,) = torch.autograd.grad(exact(points).sum(), points, create_graph=True)
    truth = 10 * (grad.norm(dim=1) - 1).square().mean()
    truth.backward()
    assert value.item() == pytest.approx(truth.item(), rel=0.02)
    for ours, theirs in zip(critic.parameters(), exact.parameters(), strict=True):
        if theirs.grad is not None:
            error = (ours.grad.double() - theirs.grad).norm() / theirs.grad.norm().clamp_min(1e-9)
            assert error < 0.05
    scaler.step(optimizer)


def test_scaler_sees_an_overflow():
    """The step is left out, as the scaler does with any infinite gradient."""
    critic = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1))
    real, fake = torch.randn(2, 5, 6)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
    optimizer = torch.optim.SGD(critic.parameters(), lr=1.0)
    before = [p.detach().clone() for p in critic.parameters()]
    with torch.autocast("cpu", dtype=torch.float16):
        value = gf.gradient_penalty(critic, real, fake, scaler=scaler)
    scaler.scale(value).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() < 2.0**30
    assert all(torch.equal(a, b) for a, b in zip(before, critic.parameters(), strict=True))


def test_a_compiled_generator_feeds_it():
    generator = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
    critic = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    noise, real = torch.randn(5, 2), torch.randn(5, 3)
    torch.compiler.reset()
    compiled = torch.compile(generator, backend="aot_eager")
    grads = []
    for run in (generator, compiled):
        value = gf.gradient_penalty(critic, real, run(noise), generator=_generator())
        grads.append(torch.autograd.grad(value, list(critic.parameters())[:3]))
    torch.testing.assert_close(*grads)


# --------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mask": MASK.float()}, TypeError, r"mask: expected a tensor of torch\.bool"),
        ({"mask": MASK[:, :3]}, ValueError, r"mask: expected the leading dimensions .*\(4, 5, 3\)"),
        ({"mask": (MASK, MASK)}, ValueError, "mask: expected 1 as there are inputs, got 2"),
        ({"mask": "no"}, TypeError, "mask: expected a tensor or a tuple of tensors, got str"),
        ({"batch_fraction": 0}, ValueError, "batch_fraction: expected above 0 and up to 1, got 0"),
        ({"batch_fraction": 1.5}, ValueError, "batch_fraction: expected above 0 and up to 1"),
        ({"batch_fraction": "1"}, TypeError, "batch_fraction: expected a number, got str"),
        (
            {"batch_fraction": 0.5, "critic_args": (torch.ones(3),)},
            ValueError,
            r"critic_args\[0\]: with a batch_fraction below 1 expected tensors of 4 samples",
        ),
        (
            {"batch_fraction": 0.5, "critic_kwargs": {"lengths": [1, 2, 3, 4]}},
            ValueError,
            r"critic_kwargs\['lengths'\]: with a batch_fraction below 1",
        ),
    ],
)
def test_errors(options, error, message):
    x = torch.randn(4, 5, 3)
    with pytest.raises(error, match=message):
        gf.gradient_penalty(lambda x, *_, **__: x.flatten(1).sum(1), x, x, **options)

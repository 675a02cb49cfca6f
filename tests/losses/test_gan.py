"""GAN losses: formulas, known values, label smoothing, extreme scores, dtypes, the registry."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
import torch.nn.functional as F

from ganlstm_fast import losses
from ganlstm_fast.losses import LOSSES, gan_loss
from tests.numerics import assert_close_to_reference

NAMES = list(LOSSES)
RELATIVISTIC = [name for name in NAMES if name.startswith("relativistic")]
SMOOTHED = ["lsgan", "minimax", "non-saturating"]


def _log_sigmoid(x: torch.Tensor) -> torch.Tensor:
    return -torch.logaddexp(-x, torch.zeros_like(x))


def _saturating_critic(r, f):
    return -_log_sigmoid(r).mean() - _log_sigmoid(-f).mean()


def _relativistic_average(r, f):
    return -_log_sigmoid(r - f.mean()).mean() - _log_sigmoid(-(f - r.mean())).mean()


def _relativistic_average_hinge(r, f):
    return (1 - (r - f.mean())).clamp(min=0).mean() + (1 + (f - r.mean())).clamp(min=0).mean()


def _relativistic_average_lsgan(r, f):
    return ((r - f.mean() - 1) ** 2).mean() + ((f - r.mean() + 1) ** 2).mean()


# Arguments: critic (r, f), generator (f, r). A relativistic pair is the same function twice.
FORMULAS = {
    "wgan-gp": (lambda r, f: f.mean() - r.mean(), lambda f, r: -f.mean()),
    "hinge": (
        lambda r, f: (1 - r).clamp(min=0).mean() + (1 + f).clamp(min=0).mean(),
        lambda f, r: -f.mean(),
    ),
    "lsgan": (
        lambda r, f: ((r - 1) ** 2).mean() / 2 + (f**2).mean() / 2,
        lambda f, r: ((f - 1) ** 2).mean() / 2,
    ),
    "minimax": (_saturating_critic, lambda f, r: _log_sigmoid(-f).mean()),
    "non-saturating": (_saturating_critic, lambda f, r: -_log_sigmoid(f).mean()),
    "relativistic": (
        lambda r, f: -_log_sigmoid(r - f).mean(),
        lambda f, r: -_log_sigmoid(f - r).mean(),
    ),
    "relativistic-average": (_relativistic_average, _relativistic_average),
    "relativistic-average-hinge": (_relativistic_average_hinge, _relativistic_average_hinge),
    "relativistic-average-lsgan": (_relativistic_average_lsgan, _relativistic_average_lsgan),
}


def _random_scores(name, dtype=torch.float64, scale=1.0):
    """Real and fake scores; unpaired losses take them in different shapes."""
    shapes = ((6, 1), (6, 1)) if name == "relativistic" else ((6, 1), (4, 2, 2))
    return [(scale * torch.randn(s)).to(dtype).requires_grad_() for s in shapes]


def _runs(name):
    """The pair and its formulas, each of (real, fake)."""
    loss, (critic, generator) = gan_loss(name), FORMULAS[name]
    return (
        (loss.critic, critic),
        (lambda r, f: loss.generator(f, r), lambda r, f: generator(f, r)),
    )


def _value_and_gradients(run, inputs):
    value = run(*inputs)
    return [value, *torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_equals_its_formula(name, scale):
    scores = _random_scores(name, scale=scale)
    for run, formula in _runs(name):
        got, want = (_value_and_gradients(r, scores) for r in (run, formula))
        torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_differentiates_to_second_order(name):
    real, fake = _random_scores(name)
    for run, _ in _runs(name):
        assert torch.autograd.gradcheck(run, (real, fake))
        assert torch.autograd.gradgradcheck(run, (real, fake))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_float32_is_as_close_to_the_truth_as_the_formula_is(name, scale):
    scores = _random_scores(name, torch.float32, scale)
    exact = [s.detach().double().requires_grad_() for s in scores]
    for run, formula in _runs(name):
        assert_close_to_reference(
            _value_and_gradients(run, scores),
            _value_and_gradients(formula, exact),
            _value_and_gradients(formula, scores),
            name,
        )


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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("dtype", "size"), [(torch.float32, 1e4), (torch.float16, 6e4), (torch.bfloat16, 6e4)]
)
@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_extreme_scores_of_every_loss(name, dtype, size, signs):
    # With 32 scores a least-squares gradient, which the mean divides by 32, fits in float16.
    scores = [torch.full((32,), s * size, dtype=dtype, requires_grad=True) for s in signs]
    exact = [s.detach().double().requires_grad_() for s in scores]
    for run, formula in _runs(name):
        value, *grads = _value_and_gradients(run, scores)
        want, *expected = _value_and_gradients(formula, exact)
        torch.testing.assert_close(value.double(), want, rtol=1e-6, atol=0)
        for got, right in zip(grads, expected, strict=True):
            assert got.dtype == dtype
            torch.testing.assert_close(got, right.to(dtype))


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
    value = loss.critic(real, fake) + loss.generator(fake, real)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    exact = real.detach().double(), fake.detach().double()
    exact = loss.critic(*exact) + loss.generator(*reversed(exact))
    assert value.item() == pytest.approx(exact.item(), rel=1e-6)
    value.backward()
    assert real.grad.dtype == dtype
    assert torch.isfinite(real.grad).all()


@pytest.mark.parametrize(
    ("name", "critic", "generator"),
    [
        ("wgan-gp", 0, -0.7),
        ("hinge", 2, -0.7),
        ("lsgan", (0.3**2 + 0.7**2) / 2, 0.3**2 / 2),
        ("relativistic", math.log(2), math.log(2)),
        ("relativistic-average", 2 * math.log(2), 2 * math.log(2)),
        ("relativistic-average-hinge", 2, 2),
        ("relativistic-average-lsgan", 2, 2),
    ],
)
def test_values_where_nothing_tells_the_samples_apart(name, critic, generator):
    scores = torch.full((5,), 0.7, dtype=torch.float64)
    loss = gan_loss(name)
    assert loss.critic(scores, scores).item() == pytest.approx(critic, abs=1e-15)
    assert loss.generator(scores, scores).item() == pytest.approx(generator, abs=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_a_wider_gap_is_better_for_the_critic_and_worse_for_the_generator(name):
    loss, noise = gan_loss(name), torch.randn(2, 9, dtype=torch.float64) / 10
    gaps = torch.linspace(-0.7, 0.7, 9, dtype=torch.float64)
    pairs = [(noise[0] + gap / 2, noise[1] - gap / 2) for gap in gaps]
    critic = torch.stack([loss.critic(r, f) for r, f in pairs])
    generator = torch.stack([loss.generator(f, r) for r, f in pairs])
    assert (critic.diff() < 0).all()
    assert (generator.diff() > 0).all()


@pytest.mark.parametrize("name", ["relativistic-average-hinge", "relativistic-average-lsgan"])
def test_relativistic_losses_vanish_at_a_gap_of_one(name):
    loss = gan_loss(name)
    above, below = torch.full((4,), 3.0), torch.full((7,), 2.0)
    assert loss.critic(above, below).item() == 0
    assert loss.generator(above, below).item() == 0


@pytest.mark.parametrize("name", RELATIVISTIC)
def test_relativistic_losses_see_differences_only(name):
    scores = _random_scores(name)
    for run, _ in _runs(name):
        value, real, fake = _value_and_gradients(run, scores)
        torch.testing.assert_close(run(*(s + 3 for s in scores)), value)
        assert (real.sum() + fake.sum()).abs() < 1e-14
        assert fake.abs().sum() > 1e-3


@pytest.mark.parametrize("name", RELATIVISTIC)
def test_the_generator_of_a_relativistic_pair_needs_the_real_scores(name):
    loss = gan_loss(name)
    real, fake = _random_scores(name)
    assert loss.generator_needs_real
    for arguments in ((fake,), (fake, None)):
        with pytest.raises(TypeError, match=r"real_scores: expected the scores of .* got None"):
            loss.generator(*arguments)
    (whole,) = torch.autograd.grad(loss.generator(fake, real), fake)
    (alone,) = torch.autograd.grad(loss.generator(fake, real_scores=real.detach()), fake)
    assert torch.equal(whole, alone)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(RELATIVISTIC)))
def test_other_generators_do_not_look_at_the_real_scores(name):
    loss, fake = gan_loss(name), torch.randn(5)
    assert not loss.generator_needs_real
    values = [loss.generator(fake), loss.generator(fake, None), loss.generator(fake, torch.ones(2))]
    assert all(torch.equal(value, values[0]) for value in values)


def test_pairs_are_not_broadcast():
    loss = gan_loss("relativistic")
    a, b = torch.randn(3), torch.randn(3, 1)
    message = r"fake_scores: expected shape \(3,\) as real_scores has, got \(3, 1\)"
    for run, arguments in ((loss.critic, (a, b)), (loss.generator, (b, a))):
        with pytest.raises(ValueError, match=message):
            run(*arguments)


@pytest.mark.parametrize("name", ["minimax", "non-saturating"])
@pytest.mark.parametrize("smoothing", [0.1, 0.5, 0.999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_smoothed_labels_are_those_of_binary_cross_entropy(name, smoothing, dtype):
    run = gan_loss(name, label_smoothing=smoothing).critic
    real = torch.linspace(-9, 9, 37, dtype=dtype).requires_grad_()
    fake = torch.randn(5, dtype=dtype).requires_grad_()

    def formula(r, f):
        labels = 1 - smoothing, 0.0
        real_loss, fake_loss = (
            -(t * _log_sigmoid(x) + (1 - t) * _log_sigmoid(-x)).mean()
            for t, x in zip(labels, (r, f), strict=True)
        )
        return real_loss + fake_loss

    got = _value_and_gradients(run, (real, fake))
    exact = [s.detach().double().requires_grad_() for s in (real, fake)]
    want = _value_and_gradients(formula, exact)
    assert_close_to_reference(got, want, what=name)
    usual = F.binary_cross_entropy_with_logits(exact[0], torch.full_like(exact[0], 1 - smoothing))
    usual = usual + F.binary_cross_entropy_with_logits(exact[1], torch.zeros_like(exact[1]))
    torch.testing.assert_close(want[0], usual)


@pytest.mark.parametrize(("smoothing", "score"), [(0.999, -8.0), (0.001, 8.0)])
def test_smoothed_value_does_not_cancel(smoothing, score):
    """The other way to write it subtracts two numbers that are a thousand times as large."""
    real, fake = torch.tensor([score]), torch.tensor([-100.0])
    run = gan_loss("minimax", label_smoothing=smoothing).critic
    assert_close_to_reference(run(real, fake), run(real.double(), fake.double()))


@pytest.mark.parametrize("smoothing", [0.1, 0.5, 0.75])
@pytest.mark.parametrize("size", [1e4, 3e38])
def test_smoothed_labels_at_extreme_scores(smoothing, size):
    run = gan_loss("non-saturating", label_smoothing=smoothing).critic
    for sign, slope in ((1, smoothing), (-1, smoothing - 1)):
        real = torch.tensor([sign * size], requires_grad=True)
        value = run(real, torch.tensor([-size]))
        assert value.item() == pytest.approx(abs(slope) * size, rel=1e-6)
        (grad,) = torch.autograd.grad(value, real)
        assert grad.item() == pytest.approx(slope)


def test_smoothed_labels_are_where_the_loss_is_smallest():
    smoothing, fake = 0.1, torch.full((2,), -1e3, dtype=torch.float64)
    best = {"lsgan": 0.9, "minimax": math.log(0.9 / 0.1), "non-saturating": math.log(0.9 / 0.1)}
    for name, score in best.items():
        run = gan_loss(name, label_smoothing=smoothing).critic
        real = torch.full((3,), score, dtype=torch.float64, requires_grad=True)
        value = run(real, fake)
        (grad,) = torch.autograd.grad(value, real)
        assert grad.abs().max() < 1e-15
        assert run(real + 1e-3, fake) > value
        assert run(real - 1e-3, fake) > value


def test_smoothed_least_squares():
    real, fake = torch.randn(4, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    got = gan_loss("lsgan", label_smoothing=0.2).critic(real, fake)
    torch.testing.assert_close(got, ((real - 0.8) ** 2).mean() / 2 + (fake**2).mean() / 2)


@pytest.mark.parametrize("name", SMOOTHED)
def test_smoothing_is_of_the_critics_real_label_only(name):
    plain, smoothed = gan_loss(name), gan_loss(name, label_smoothing=0.1)
    assert smoothed.generator is plain.generator
    real, fake = _random_scores(name)
    assert torch.autograd.gradcheck(smoothed.critic, (real, fake))
    assert torch.autograd.gradgradcheck(smoothed.critic, (real, fake))
    a, b = (torch.autograd.grad(run.critic(real, fake), (real, fake)) for run in (plain, smoothed))
    assert not torch.allclose(a[0], b[0])
    assert torch.equal(a[1], b[1])


@pytest.mark.parametrize("name", SMOOTHED)
def test_no_smoothing_is_the_loss_itself(name):
    assert gan_loss(name, label_smoothing=0) is gan_loss(name) is LOSSES[name]
    scores = _random_scores(name, torch.float32)
    run = LOSSES[name].critic
    assert torch.equal(run(*scores, label_smoothing=0.0), run(*scores))
    restored = pickle.loads(pickle.dumps(gan_loss(name, label_smoothing=0.1)))
    assert not torch.equal(restored.critic(*scores), run(*scores))


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(SMOOTHED)))
def test_smoothing_of_no_label_raises(name):
    message = f"label_smoothing: expected 0 for {name}, .* in lsgan, minimax, non-.* got 0.1"
    with pytest.raises(ValueError, match=message):
        gan_loss(name, label_smoothing=0.1)
    assert gan_loss(name, label_smoothing=0.0) is LOSSES[name]


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (1, ValueError, "at least 0 and below 1, got 1"),
        (-0.1, ValueError, "at least 0 and below 1, got -0.1"),
        (math.nan, ValueError, "at least 0 and below 1, got nan"),
        ("0.1", TypeError, "a number, got str '0.1'"),
        (None, TypeError, "a number, got NoneType None"),
    ],
)
def test_smoothing_that_cannot_be(bad, error, message):
    scores = torch.randn(3)
    for run in (
        lambda: gan_loss("lsgan", label_smoothing=bad),
        lambda: losses.minimax_critic_loss(scores, scores, label_smoothing=bad),
        lambda: losses.least_squares_critic_loss(scores, scores, label_smoothing=bad),
    ):
        with pytest.raises(error, match=f"label_smoothing: expected .*{message}"):
            run()


@pytest.mark.parametrize("name", NAMES)
def test_compiles_to_one_graph(name):
    torch.compiler.reset()  # else the names count as recompilations of one function
    smoothing = 0.1 if name in SMOOTHED else 0.0
    loss = gan_loss(name, label_smoothing=smoothing)

    def both(real, fake):
        return loss.critic(real, fake) + loss.generator(fake, real)

    scores = _random_scores(name)
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    got, want = (_value_and_gradients(run, scores) for run in (compiled, both))
    torch.testing.assert_close(got, want)


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
    if name.startswith("relativistic"):
        which = ("real_scores", "fake_scores")
    for bad_one in which:
        for bad, error, message in (
            (torch.empty(0), ValueError, "expected at least one score"),
            (torch.arange(3), TypeError, "expected a floating-point tensor"),
            (1.0, TypeError, "expected a tensor, got float 1.0"),
        ):
            with pytest.raises(error, match=f"{bad_one}: {message}"):
                run(**dict.fromkeys(which, good) | {bad_one: bad})

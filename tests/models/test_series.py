"""GANs of series: generators, critics, conditions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ganlstm_fast as gf
from ganlstm_fast.losses import hinge_critic_loss
from ganlstm_fast.models import (
    LSTMGAN,
    ConditionalLSTMGAN,
    ConvCritic,
    LSTMClassifier,
    LSTMCritic,
    LSTMForecaster,
    LSTMGenerator,
    TextGAN,
)
from ganlstm_fast.models.base import eval_mode

pytestmark = pytest.mark.usefixtures("one_thread")

B, T, CHANNELS, STATIC, CLASSES = 4, 7, 3, 2, 5
LENGTHS = [7, 4, 1, 6]
SIZES: dict[str, Any] = {"noise": 4, "hidden": 5}
LABELS = torch.tensor([0, 3, 3, 4])
FEATURES = torch.linspace(-1, 1, B * STATIC, dtype=torch.float64).view(B, STATIC)
HISTORY = torch.linspace(0, 1, B * 6 * 2, dtype=torch.float64).sin().abs().view(B, 6, 2)


class Case:
    """A GAN with some options, its data, and the conditions that its networks take."""

    def __init__(self, gan: Callable[..., nn.Module], condition: tuple[str, ...] = (), **options):
        self.gan, self.options = gan, options
        everything = {"labels": LABELS, "features": FEATURES, "history": HISTORY}
        self.condition = {name: everything[name] for name in condition}
        sizes = {"labels": CLASSES, "features": STATIC, "history": 2}
        self.options |= {name: sizes[name] for name in condition}

    def build(self, lstm: Any = gf.FastLSTM, dtype: torch.dtype = torch.float64) -> nn.Module:
        return self.gan(CHANNELS, lstm=lstm, **SIZES, **self.options).to(dtype)

    def inputs(self, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        return {
            name: value.to(dtype) if value.is_floating_point() else value
            for name, value in self.condition.items()
        }

    def real(self, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.rand(B, T, CHANNELS, dtype=dtype)


CASES = {
    "lstm": Case(LSTMGAN),
    "layers": Case(LSTMGAN, layers=2, bidirectional=True),
    "bilstm": Case(LSTMGAN, critic="bilstm"),
    "bilstm-sn": Case(LSTMGAN, critic="bilstm", spectral_norm=True),
    "conv": Case(LSTMGAN, critic="conv"),
    "conv-no-sn": Case(LSTMGAN, critic="conv", spectral_norm=False),
    "attention": Case(LSTMGAN, critic="attention"),
    "attention-sn": Case(LSTMGAN, critic="attention", spectral_norm=True),
    "labels": Case(ConditionalLSTMGAN, ("labels",)),
    "projection": Case(ConditionalLSTMGAN, ("labels",), projection=True),
    "static": Case(ConditionalLSTMGAN, ("features",), bidirectional=True),
    "history": Case(ConditionalLSTMGAN, ("history",), critic="bilstm"),
    "all": Case(ConditionalLSTMGAN, ("labels", "features", "history"), critic="attention"),
    "all-projection-conv": Case(
        ConditionalLSTMGAN, ("labels", "features", "history"), critic="conv", projection=True
    ),
    "text": Case(TextGAN, embedding=4),
    "text-conv": Case(TextGAN, embedding=4, critic="conv"),
    "text-feedback": Case(TextGAN, embedding=4, feedback=True),
}
gan_cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@gan_cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_shapes_dtypes_and_gradients_of_all_weights(case: Case, dtype: torch.dtype) -> None:
    gan, inputs = case.build(dtype=dtype), case.inputs(dtype)
    noise = gan.generator.noise(B, T)
    assert noise.shape == (B, T, SIZES["noise"])
    fake = gan(noise, **inputs)
    scores = gan.critic(fake, **inputs)
    assert fake.shape == (B, T, CHANNELS)
    assert scores.shape == (B,)
    assert noise.dtype == fake.dtype == scores.dtype == dtype
    assert fake.min() >= 0
    assert fake.max() <= 1
    scores.square().sum().backward()
    for name, parameter in gan.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def _penalty_gradients(gan: nn.Module, case: Case, real: Tensor, fake: Tensor, **inputs: Any):
    """The penalty, and its gradient with respect to each weight of the critic."""
    value = gf.gradient_penalty(
        gan.critic,
        real,
        fake,
        generator=torch.Generator().manual_seed(0),
        critic_kwargs=case.inputs() | inputs,
    )
    weights = [p for p in gan.critic.parameters() if p.requires_grad]
    grads = torch.autograd.grad(value, weights, allow_unused=True)
    return value, *(
        torch.zeros_like(w) if g is None else g for w, g in zip(weights, grads, strict=True)
    )


def _twins(case: Case) -> tuple[nn.Module, nn.Module]:
    """The pair on our layers, and on torch's with the same state; in eval mode, where both have the
    same u and v."""
    ours, torchs = case.build(), case.build(nn.LSTM)
    torchs.load_state_dict(ours.state_dict())
    return ours.eval(), torchs.eval()


@gan_cases
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["", "lengths"])
def test_numbers_are_those_of_torchs_lstm(case: Case, lengths: list[int] | None) -> None:
    """Outputs, first order through both networks, and the second order of a gradient penalty."""
    ours, torchs = _twins(case)
    real, noise = case.real(), ours.generator.noise(B, T)
    inputs = {"lengths": lengths}
    found = []
    for gan, impl in ((ours, "auto"), (ours, "reference"), (torchs, "auto")):
        torch.manual_seed(1)
        with gf.use_impl(impl):
            fake = gan(noise, **case.inputs(), **inputs)
            scores = gan.critic(fake, **case.inputs(), **inputs)
            first = torch.autograd.grad(scores.sum(), list(gan.generator.parameters()))
            second = _penalty_gradients(gan, case, real, fake.detach(), **inputs)
        found.append((fake, scores, *first, *second))
    assert sum(bool(g.any()) for g in second) >= 3
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


@gan_cases
def test_padding_contributes_nothing(case: Case) -> None:
    gan = case.build().eval()
    real, noise = case.real(), gan.generator.noise(B, T)
    found = []
    for filler in (0.0, 7.0, math.nan):
        x, z = real.clone(), noise.clone()
        for b, length in enumerate(LENGTHS):
            x[b, length:] = filler
            z[b, length:] = filler
        torch.manual_seed(1)
        fake = gan(z, **case.inputs(), lengths=LENGTHS)
        x.requires_grad_()
        scores = gan.critic(x, **case.inputs(), lengths=LENGTHS)
        (dx,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
        for b, length in enumerate(LENGTHS):
            assert (fake[b, length:] == 0).all()
            assert (dx[b, length:] == 0).all()
        weights = list(gan.critic.parameters())
        first = torch.autograd.grad(scores.sum(), weights, retain_graph=True)
        # A penalty is made of the mean of this norm.
        second = torch.autograd.grad(dx.square().sum(), weights, allow_unused=True)
        found.append((fake, scores, dx, *first, *(g for g in second if g is not None)))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=0)
    for b, length in enumerate(LENGTHS):
        row = slice(b, b + 1)
        condition = {name: value[row] for name, value in case.inputs().items()}
        alone = gan.critic(real[row, :length], **condition)
        torch.testing.assert_close(alone, found[0][1][row])


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_padding_of_a_convolution(layers: int) -> None:
    """All lengths that leave the last convolution more than one step."""
    critic = ConvCritic(CHANNELS, 4, layers).double().eval()
    series = torch.rand(20, 20, CHANNELS).double()
    together = critic(series, lengths=torch.arange(1, 21))
    alone = [critic(series[b : b + 1, : b + 1]) for b in range(20)]
    torch.testing.assert_close(together, torch.cat(alone))


@gan_cases
def test_state_dict_round_trip(case: Case) -> None:
    first, second = case.build().eval(), case.build().eval()
    second.load_state_dict(first.state_dict())
    noise, inputs = first.generator.noise(B, T), case.inputs()
    outputs = []
    for gan in (first, second):
        torch.manual_seed(1)
        fake = gan(noise, **inputs)
        outputs.append((fake, gan.critic(fake, **inputs)))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=0)


@gan_cases
def test_a_critic_learns_to_tell(case: Case) -> None:
    gan = case.build(dtype=torch.float32)
    real = torch.full((B, T, CHANNELS), 0.1)
    real[..., 0] = 0.8
    fake = real.roll(1, 2)
    inputs = case.inputs(torch.float32)
    optimiser = torch.optim.Adam(gan.critic.parameters(), 0.05)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        scores = [gan.critic(x, **inputs) for x in (real, fake)]
        losses.append(hinge_critic_loss(*scores))
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.5 * losses[0]


@gan_cases
def test_samples(case: Case) -> None:
    gan = case.build()
    gan.generator.train()
    inputs = case.inputs()

    def draw(count: int, **options: Any) -> Tensor:
        some = {name: value[:count] for name, value in inputs.items()}
        if not isinstance(gan, ConditionalLSTMGAN):
            some = {}
        return gan.generator.sample(count, T, torch.Generator().manual_seed(5), **some, **options)

    samples = draw(B)
    assert samples.shape == (B, T, CHANNELS)
    assert not samples.requires_grad
    assert gan.generator.training
    assert torch.equal(samples, draw(B))
    assert draw(B, batch=3).shape == (B, T, CHANNELS)
    padded = draw(3, lengths=torch.tensor(LENGTHS[:3]), batch=2)
    assert (padded[1, LENGTHS[1] :] == 0).all()
    assert padded[1, LENGTHS[1] - 1].any()
    with pytest.raises(ValueError, match="count: expected 1 or more, got 0"):
        draw(0)


def test_part_of_the_noise_is_kept() -> None:
    noise = LSTMGenerator(3, noise=5).noise(2, 6)
    assert torch.equal(noise[:, 0, :2], noise[:, 5, :2])
    assert not (noise[:, 0, 2:] == noise[:, 5, 2:]).any()


def test_lstm_gan_as_it_was() -> None:
    """A default LSTMGAN has the draws and the order of parameters that saved runs rely on."""
    torch.manual_seed(3)
    generator = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)
    critic = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 1)
    torch.manual_seed(3)
    gan = LSTMGAN(3, 4, 5, 1, nn.LSTM)
    parts = zip(("generator", "critic"), (generator, critic), strict=True)
    old = [
        (f"{network}.{layer}.{name}", value)
        for network, layers in parts
        for layer, module in zip(("lstm", "head"), layers, strict=True)
        for name, value in module.state_dict().items()
    ]
    assert [name for name, _ in gan.named_parameters()] == [name for name, _ in old]
    assert list(gan.state_dict()) == [name for name, _ in old]
    assert all(torch.equal(gan.state_dict()[name], value) for name, value in old)
    noise = gan.generator.noise(2, 6)
    fake = (1.04 * torch.sigmoid(generator[1](generator[0](noise)[0])) - 0.02).clamp(0, 1)
    assert torch.equal(gan(noise), fake)
    values = torch.cat((4 * (fake - 0.5), F.pad(8 * fake.diff(dim=1), (0, 0, 1, 0))), 2)
    assert torch.equal(gan.critic(fake), critic[1](critic[0](values)[0]).mean((1, 2)))


def test_spectral_norms() -> None:
    """The generator has none; in the critic every matrix has one."""
    for critic in ("lstm", "bilstm", "conv"):
        gan = LSTMGAN(3, critic=critic, spectral_norm=True, layers=2)
        for _ in range(300):
            gan.critic(torch.rand(1, 1, 3))
        gan.eval()
        matrices = {n: p for n, p in gan.critic.named_parameters() if p.dim() > 1}
        assert all(name.endswith(".original") for name in matrices)
        for name in matrices:
            path, _, weight = name.removesuffix(".original").partition(".parametrizations.")
            value = getattr(gan.critic.get_submodule(path), weight)
            norm = torch.linalg.matrix_norm(value.flatten(1), 2)
            torch.testing.assert_close(norm, torch.ones(()), rtol=1e-2, atol=0)
        assert not any("parametrizations" in name for name in gan.generator.state_dict())
    assert not any("parametrizations" in name for name in LSTMGAN(3).state_dict())


def test_an_spectral_norm_step_shares_the_weights() -> None:
    gan = LSTMGAN(3, critic="conv")
    x = torch.rand(2, 8, 3)
    with gf.spectral_norm_step(gan.critic):
        assert torch.equal(gan.critic(x), gan.critic(x))
    assert not torch.equal(gan.critic(x), gan.critic(x))


def test_projection_is_its_equation() -> None:
    gan = ConditionalLSTMGAN(CHANNELS, labels=CLASSES, projection=True)
    series = torch.rand(B, T, CHANNELS)
    phi = gan.critic.features(series, labels=LABELS)
    psi = gan.critic.body(series)
    v = gan.critic.projection.weight
    expected = psi + torch.stack([v[y] @ p for y, p in zip(LABELS, phi, strict=True)])
    torch.testing.assert_close(gan.critic(series, labels=LABELS), expected)


@pytest.mark.parametrize("name", ["labels", "projection", "static", "history", "all"])
def test_each_condition_matters(name: str) -> None:
    case = CASES[name]
    gan, noise, series = case.build(), torch.randn(B, T, 4, dtype=torch.float64), case.real()
    base = case.inputs()
    for key, value in base.items():
        changed = base | {key: (value + 1) % CLASSES if key == "labels" else 1 - value}
        assert (gan(noise, **base) != gan(noise, **changed)).any(-1).any(-1).all()
        assert (gan.critic(series, **base) != gan.critic(series, **changed)).all()


def test_padded_histories() -> None:
    gan = CASES["history"].build()
    noise = gan.generator.noise(B, T)
    history, lengths = HISTORY.clone(), [6, 2, 1, 5]
    for b, length in enumerate(lengths):
        history[b, length:] = math.nan
    together = gan(noise, history=history, history_lengths=lengths)
    for b, length in enumerate(lengths):
        alone = gan(noise[b : b + 1], history=HISTORY[b : b + 1, :length])
        torch.testing.assert_close(together[b : b + 1], alone)


@pytest.mark.parametrize("name", ["labels", "static", "history"])
def test_a_conditional_generator_learns_its_condition(name: str) -> None:
    case = CASES[name]
    gan, inputs = case.build(dtype=torch.float32), case.inputs(torch.float32)
    targets = (
        torch.tensor([0.2, 0.4, 0.4, 0.8]) if name == "labels" else torch.linspace(0.2, 0.8, B)
    )
    optimiser = torch.optim.Adam(gan.generator.parameters(), 0.02)
    for _ in range(150):
        optimiser.zero_grad()
        loss = (gan(gan.generator.noise(B, T), **inputs).mean((1, 2)) - targets).square().mean()
        loss.backward()
        optimiser.step()
    assert loss < 2e-3  # without the condition 0.05


def test_eval_mode_restores_each_part() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Dropout())
    model[1].eval()
    with eval_mode(model):
        assert not any(part.training for part in model.modules())
    assert [part.training for part in model.modules()] == [True, True, False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LSTMGAN(0), "channels: expected 1 or more, got 0"),
        (lambda: LSTMGAN(3, noise=0), "noise: expected 1 or more, got 0"),
        (lambda: LSTMGAN(3, hidden=2.5), "hidden: expected an integer, got float 2.5"),
        (lambda: LSTMGAN(3, layers=True), "layers: expected an integer, got bool True"),
        (lambda: LSTMGAN(3, critic="gru"), "critic: expected one of 'lstm', 'bilstm', 'attention'"),
        (lambda: LSTMCritic(3, attention="self"), "attention: expected one of 'additive', 'dot'"),
        (lambda: ConvCritic(3, layers=0), "layers: expected 1 or more, got 0"),
        (lambda: ConditionalLSTMGAN(3), "labels, features, history: expected one or more above 0"),
        (lambda: ConditionalLSTMGAN(3, labels=-1), "labels: expected 0 or more, got -1"),
        (lambda: ConditionalLSTMGAN(3, labels=2, embedding=0), "embedding: expected 1 or more"),
        (
            lambda: ConditionalLSTMGAN(3, features=2, projection=True),
            "projection: expected False without labels",
        ),
        (lambda: TextGAN(1), "symbols: expected 2 or more, got 1"),
        (lambda: TextGAN(5, embedding=0), "embedding: expected 1 or more, got 0"),
        (
            lambda: TextGAN(5, feedback=True, bidirectional=True),
            "bidirectional: expected False with feedback, got True",
        ),
        (lambda: LSTMForecaster(3, 0), "horizon: expected 1 or more, got 0"),
        (lambda: LSTMForecaster(3, quantiles=(0.5, 1.0)), "quantiles: expected numbers between"),
        (lambda: LSTMForecaster(3, quantiles=()), "quantiles: expected numbers between"),
        (lambda: LSTMForecaster(3, targets=1, residual=True), "residual: expected False with 1"),
        (lambda: LSTMClassifier(3, 1), "classes: expected 2 or more, got 1"),
        (lambda: LSTMClassifier(0, 2), "channels: expected 1 or more, got 0"),
    ],
)
def test_constructor_errors(call: Callable[[], object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        call()


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({}, "labels: expected a tensor, since the model has it, got NoneType None"),
        ({"labels": LABELS, "features": FEATURES}, "features: expected None, got a tensor"),
        ({"labels": LABELS.float()}, "labels: expected an int64 tensor, got a tensor"),
        ({"labels": LABELS.view(2, 2)}, r"labels: expected shape \(batch,\), got \(2, 2\)"),
        ({"labels": LABELS + 1}, r"labels: expected values in 0..4, got \[1, 4, 4, 5\]"),
    ],
)
def test_condition_errors(condition: dict[str, Tensor], message: str) -> None:
    gan = CASES["labels"].build()
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        gan(gan.generator.noise(B, T), **condition)


def test_lengths_are_checked() -> None:
    for critic in ("lstm", "conv"):
        gan = LSTMGAN(3, critic=critic)
        for call in (gan.critic, gan.critic.features):
            with pytest.raises(ValueError, match="lengths: expected values"):
                call(torch.rand(2, 7, 3), lengths=[7, 8])

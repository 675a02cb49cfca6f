"""The models of images: MLPGAN and DCGAN."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import ganlstm_fast as gf
from ganlstm_fast.losses import hinge_critic_loss
from ganlstm_fast.models import DCGAN, MLPGAN, DCCritic, MLPCritic, MLPGenerator

pytestmark = pytest.mark.usefixtures("one_thread")

GANS = {
    "mlp": lambda: MLPGAN((1, 8, 8), 6, (12, 10)),
    "mlp-sn": lambda: MLPGAN((3, 4, 4), 6, (12,), critic_hidden=(9, 7), spectral_norm=True),
    "dc-28-spectral": lambda: DCGAN(28, 1, 6, 3),
    "dc-32-layer": lambda: DCGAN(32, 3, 6, 3, norm="layer"),
    "dc-32-none": lambda: DCGAN(32, 1, 6, 3, norm=None),
    "dc-32-batch": lambda: DCGAN(32, 3, 6, 3, norm="batch"),
    "dc-64-spectral": lambda: DCGAN(64, 3, 6, 2),
    "dc-128-spectral": lambda: DCGAN(128, 1, 6, 2),
}
all_gans = pytest.mark.parametrize("make", GANS.values(), ids=GANS.keys())
without_batch_norm = pytest.mark.parametrize("name", [name for name in GANS if "batch" not in name])


def _image(gan: nn.Module) -> tuple[int, ...]:
    return gan.critic.image


@all_gans
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_shapes_dtypes_and_gradients_of_all_weights(make, dtype: torch.dtype) -> None:
    gan = make().to(dtype)
    noise = gan.generator.noise(3)
    fake = gan(noise)
    scores = gan.critic(fake)
    assert noise.shape == (3, 6)
    assert fake.shape == (3, *_image(gan))
    assert scores.shape == (3,)
    assert fake.dtype == scores.dtype == dtype
    assert fake.abs().max() <= 1
    scores.sum().backward()
    for name, parameter in gan.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_the_default_sizes_of_mlp_gan() -> None:
    gan = MLPGAN()
    linear = [m for m in gan.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [
        (100, 256),
        (256, 784),
        (784, 256),
        (256, 1),
    ]
    assert gan(gan.generator.noise(2)).shape == (2, 1, 28, 28)
    x = torch.randn(2, 100)
    body = nn.functional.leaky_relu(x @ linear[0].weight.T + linear[0].bias, 0.2)
    expected = torch.tanh(body @ linear[1].weight.T + linear[1].bias)
    torch.testing.assert_close(gan(x).flatten(1), expected)


@pytest.mark.parametrize(("size", "layers"), [(16, 2), (28, 2), (32, 3), (64, 4), (128, 5)])
def test_the_layers_of_dcgan(size: int, layers: int) -> None:
    """The feature maps, from the largest: ``width`` channels, then twice as many each."""
    gan = DCGAN(size, 3, width=4)
    maps: list[tuple[int, ...]] = []
    for module in gan.critic.body:
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *a: maps.append(tuple(a[2].shape[1:])))
    gan.critic(gan(gan.generator.noise(2)))
    assert {m.negative_slope for m in gan.critic.body if isinstance(m, nn.LeakyReLU)} == {0.2}
    expected = [(4 * 2**i, size // 2 ** (i + 1), size // 2 ** (i + 1)) for i in range(layers)]
    assert maps == expected
    back = [m for m in gan.generator.body if isinstance(m, nn.ConvTranspose2d)]
    assert [m.out_channels for m in back] == [m[0] for m in reversed(expected)]


def test_the_initialisation_of_dcgan() -> None:
    gan = DCGAN(64, 3, norm="batch", width=32)
    for module in gan.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm2d)):
            scale = isinstance(module, nn.BatchNorm2d)
            allowed = 0.02 * 5 / module.weight.numel() ** 0.5
            assert module.weight.mean().item() == pytest.approx(float(scale), abs=allowed)
            assert module.weight.std().item() == pytest.approx(0.02, abs=allowed)
            assert module.bias is None or not module.bias.any()


def test_spectral_norm_fits_the_initial_weights() -> None:
    """In eval mode too, before any training: u and v are those of the weights."""
    for critic in (DCCritic(32, 1, 8), MLPCritic((1, 8, 8), (20,), spectral_norm=True)):
        critic.eval()
        normed = [m for m in critic.modules() if hasattr(m, "parametrizations")]
        assert len(normed) == sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in critic.modules())
        for module in normed:
            norm = torch.linalg.matrix_norm(module.weight.flatten(1), 2).item()
            assert norm == pytest.approx(1, abs=0.05)


@without_batch_norm
def test_gradient_penalty(name: str) -> None:
    """Our kernels give the reference's scores, and no sample's score depends on another."""
    critic = GANS[name]().double().critic.eval()
    real, fake = (torch.rand(3, *critic.image, dtype=torch.float64) for _ in range(2))
    found = []
    for impl in ("auto", "reference"):
        with gf.use_impl(impl):
            value = gf.gradient_penalty(
                critic, real, fake, generator=torch.Generator().manual_seed(0)
            )
            weights = list(critic.parameters())
            grads = torch.autograd.grad(value, weights, allow_unused=True)
            found.append((value, *(g for g in grads if g is not None)))
    torch.testing.assert_close(found[0], found[1])
    assert sum(bool(grad.any()) for grad in found[0][1:]) >= 2  # all weights; not the biases
    torch.testing.assert_close(critic(real)[:1], critic(real[:1]))


def test_the_penalty_of_a_critic_is_that_of_finite_differences() -> None:
    critic = DCCritic(28, 1, 2, norm="layer").double()
    x = torch.rand(2, 1, 28, 28, dtype=torch.float64)
    weight = critic.body[0].weight

    def value() -> Tensor:
        return gf.gradient_penalty(critic, x, x, kind="r1", lambda_=1e3)

    (grad,) = torch.autograd.grad(value(), weight)
    direction = torch.randn_like(weight)
    with torch.no_grad():
        weight += 1e-5 * direction
        up = value()
        weight -= 2e-5 * direction
        down = value()
    expected = (up - down) / 2e-5
    torch.testing.assert_close((grad * direction).sum(), expected, rtol=1e-6, atol=0)


def test_batch_norm_couples_samples() -> None:
    """It does; a gradient penalty is of each sample alone, so its critic has no batch norm."""
    images = torch.rand(3, 1, 32, 32)
    for norm in ("batch", "layer", None):
        critic = DCCritic(32, 1, 3, norm=norm)
        alone = critic(torch.cat((images[:1], images[:1])))[0]
        assert torch.allclose(critic(images)[0], alone, atol=1e-6) == (norm != "batch")


@all_gans
def test_samples(make) -> None:
    gan = make()
    generator = gan.generator.train()
    before = copy.deepcopy(generator.state_dict())

    def draw(count: int, **options: int) -> Tensor:
        return generator.sample(count, torch.Generator().manual_seed(5), **options)

    samples = draw(5)
    assert samples.shape == (5, *_image(gan))
    assert not samples.requires_grad
    assert generator.training
    assert all(torch.equal(v, before[k]) for k, v in generator.state_dict().items())
    assert torch.equal(samples, draw(5))
    # No sample depends on the others. (PyTorch draws 12 numbers or fewer one by one.)
    torch.testing.assert_close(draw(2), draw(2, batch=1))
    with pytest.raises(ValueError, match="count: expected 1 or more, got 0"):
        draw(0)


@all_gans
def test_state_dict_round_trip(make) -> None:
    first, second = make(), make()
    noise = torch.randn(3, 6)
    first.critic(first(noise)).sum().backward()
    second.load_state_dict(first.state_dict())
    first.eval()
    second.eval()
    assert torch.equal(first.critic(first(noise)), second.critic(second(noise)))


@all_gans
def test_both_networks_learn(make) -> None:
    gan = make()
    real = torch.full((4, *_image(gan)), -0.5)
    real[..., real.shape[-1] // 2 :] = 0.5
    noise = gan.generator.noise(4)
    optimiser = torch.optim.Adam(gan.parameters(), 0.01)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        fake = gan(noise)
        loss_g = (fake - real).square().mean()
        loss_d = hinge_critic_loss(gan.critic(real), gan.critic(-real))
        (loss_g + loss_d).backward()
        optimiser.step()
        losses.append((loss_g.item(), loss_d.item()))
    assert losses[-1][0] < 0.8 * losses[0][0]
    assert losses[-1][1] < 0.8 * losses[0][1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MLPGAN((1, 0, 8)), r"image\[1\]: expected 1 or more, got 0"),
        (lambda: MLPGAN(784), "image: expected a sequence of integers, got int 784"),
        (lambda: MLPGAN(hidden=()), "hidden: expected a sequence of integers"),
        (lambda: MLPGAN(hidden=(3, 2.0)), r"hidden\[1\]: expected an integer, got float 2.0"),
        (lambda: MLPGAN(noise=0), "noise: expected 1 or more, got 0"),
        (lambda: DCGAN(48), "size: expected one of 16, 28, 32, 64, 128, got int 48"),
        (lambda: DCGAN(channels=0), "channels: expected 1 or more, got 0"),
        (lambda: DCGAN(width=0), "width: expected 1 or more, got 0"),
        (lambda: DCGAN(norm="group"), "norm: expected one of 'spectral', 'layer', 'batch', None"),
    ],
)
def test_constructor_errors(call, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        call()


def test_call_errors() -> None:
    with pytest.raises(ValueError, match=r"images: expected shape \(\*, 1, 28, 28\)"):
        MLPCritic()(torch.rand(2, 3, 28, 28))
    with pytest.raises(TypeError, match="images: expected a floating-point tensor"):
        DCCritic(28, 1)(torch.zeros(2, 1, 28, 28, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"noise: expected shape \(\*, 100\), got \(2, 99\)"):
        MLPGenerator()(torch.randn(2, 99))

"""Models whose authors initialise, mask or hold a weight, put under a spectral norm."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import spectral_norm as old_spectral_norm

import ganlstm_fast as gf
from tests.nn.weights import largest_singular_value, original

F64 = torch.float64


class ScaledInForward(nn.Linear):
    """Works in place on what is a temporary tensor under torch's spectral norm."""

    def forward(this, x: Tensor) -> Tensor:
        weight = this.weight
        weight.mul_(2.0)
        weight[0].neg_()
        return nn.functional.linear(x, weight.t().contiguous().t(), this.bias)


def test_a_forward_that_works_in_place() -> None:
    """It never changes the parameter; where it cannot act as under torch's norm, it raises."""
    ours = gf.spectral_norm(ScaledInForward(4, 4, dtype=F64)).eval()
    torchs = copy.deepcopy(ours)
    gf.to_torch(torchs)
    x, before = torch.randn(3, 4, dtype=F64), original(ours).detach().clone()
    y = ours(x)
    torch.testing.assert_close(y, torchs(x))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"write to layer.weight.clone\(\)"):
        ours(x)
    assert torch.equal(original(ours), before)


class MaskedConv(nn.Conv2d):
    """PixelCNN's masked convolution: each forward masks the parameter."""

    def __init__(self) -> None:
        super().__init__(2, 3, 3, dtype=F64)
        self.register_buffer("mask", torch.ones_like(self.weight.data))
        self.mask[:, :, 1:, 1:] = 0

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data *= self.mask
        return super().forward(x)


def test_a_forward_that_masks_the_parameter() -> None:
    layer = gf.spectral_norm(MaskedConv())
    masked = original(layer).detach() * layer.mask
    for _ in range(3):
        layer(torch.randn(1, 2, 5, 5, dtype=F64))
    torch.testing.assert_close(original(layer).detach(), masked)


@pytest.mark.parametrize("block", ["spectral_norm_step", "cached"])
def test_within_a_block_that_shares_weights(block: str) -> None:
    layer = gf.SNLinear(6, 5, dtype=F64)
    x = torch.randn(3, 6, dtype=F64)
    with gf.spectral_norm_step(layer) if block == "spectral_norm_step" else parametrize.cached():
        layer(x)
        with torch.no_grad():
            layer.weight.copy_(torch.eye(5, 6, dtype=F64) * 4)
        torch.testing.assert_close(layer(x), x[:, :5] + layer.bias)


@pytest.mark.parametrize(
    "make",
    [
        lambda: gf.SNLSTM(3, 8, dtype=F64),
        lambda: gf.spectral_norm(nn.LSTMCell(3, 8, dtype=F64), "weight_hh"),
        lambda: gf.spectral_norm(nn.GRU(3, 8, dtype=F64), "weight_hh_l0"),
    ],
    ids=["SNLSTM", "cell", "GRU"],
)
def test_reset_parameters_of_a_recurrent_layer(make: Callable[[], nn.Module]) -> None:
    """They reset what parameters() lists, past the weights; u and v must follow the new ones."""
    layer = make()
    for chain in layer.parametrizations.values():
        nn.init.dirac_(chain.original.data.view(*chain.original.shape, 1))
    layer.reset_parameters()
    for name in layer.parametrizations:
        weight = getattr(layer.eval(), name).detach()
        assert 0.9 < float(torch.linalg.matrix_norm(weight, 2)) < 1.1


def test_norm_of_the_operator() -> None:
    """DCGAN's weights_init also visits the norm's module, whose name must not contain Conv."""
    layer = gf.SNConv2d(2, 4, 3, padding=1, norm="conv", input_size=(6, 6), dtype=F64)
    layer.apply(_weights_init)
    assert original(layer).std() < 0.05
    x = torch.randn(1, 2, 6, 6, dtype=F64)
    matrix = torch.func.jacrev(layer.eval())(x).reshape(4 * 36, 2 * 36)
    assert 0.7 < float(torch.linalg.matrix_norm(matrix.detach(), 2)) < 1.3


def _weights_init(module: nn.Module) -> None:
    """As in PyTorch's DCGAN example."""
    name = type(module).__name__
    if name.find("Conv") != -1:
        nn.init.normal_(module.weight.data, 0.0, 0.02)
    elif name.find("BatchNorm") != -1:
        nn.init.normal_(module.weight.data, 1.0, 0.02)
        nn.init.constant_(module.bias.data, 0)


@pytest.mark.parametrize("norm", ["layer", "older, converted", "newer, converted"])
def test_weights_init_of_dcgan(norm: str) -> None:
    """The parameters become those of the same model without a spectral norm."""

    def conv(*args: int) -> nn.Module:
        if norm == "layer":
            return gf.SNConv2d(*args)
        if norm.startswith("older"):
            return old_spectral_norm(nn.Conv2d(*args))
        return parametrizations.spectral_norm(nn.Conv2d(*args))

    critic = nn.Sequential(conv(3, 4, 3), nn.BatchNorm2d(4), conv(4, 5, 3))
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3))
    gf.accelerate(critic)
    for model in (critic, plain):
        torch.manual_seed(0)
        model.apply(_weights_init)
    for index in (0, 2):
        assert torch.equal(original(critic[index]), plain[index].weight)


class MimicrysBlock(nn.Module):
    """Initialises through .data in its constructor, as torch_mimicry's networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.l1 = gf.SNLinear(6, 5)
        nn.init.xavier_uniform_(self.l1.weight.data, 4.0)


def test_initialisation_in_a_constructor() -> None:
    assert original(MimicrysBlock().l1).abs().max() > 1.0


@pytest.mark.parametrize("cls", [gf.SNLinear, gf.SNConv1d], ids=lambda c: c.__name__)
def test_skip_init_then_initialisation(cls: type[nn.Module]) -> None:
    arguments = (3, 4) if cls is gf.SNLinear else (3, 4, 2)
    layer = nn.utils.skip_init(cls, *arguments, dtype=F64)
    for name, buffer in layer.named_buffers():
        # skip_init leaves buffers uninitialised.
        buffer.fill_(float("nan") if name.endswith("_u") else 0.0)
    layer.reset_parameters()
    assert 0.9 < largest_singular_value(layer.eval()) < 1.1


def test_a_compiled_model_reads_plain_tensors() -> None:
    layer = gf.SNLinear(6, 5).eval()
    x = torch.randn(2, 6)
    expected = layer(x)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)
    with torch.no_grad():
        layer.weight.mul_(-1.0)
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize("grad", [True, False], ids=["graph", "no_grad"])
def test_views_in_a_forward_are_temporary(grad: bool) -> None:
    """As under torch's parametrization; only ``.data`` means the parameter there."""

    class Standardised(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            weight = self.weight.view(5, 6)
            weight = weight - 0.0 if grad else weight
            weight -= weight.mean(1, keepdim=True)
            self.weight.detach().view(-1).clamp_(-0.1, 0.1)
            return nn.functional.linear(x, weight, self.bias)

    torchs = parametrizations.spectral_norm(Standardised(6, 5, dtype=F64)).eval()
    ours = copy.deepcopy(torchs)
    gf.accelerate(ours)
    before = original(ours).detach().clone()
    x = torch.randn(2, 6, dtype=F64)
    with torch.set_grad_enabled(grad):
        for _ in range(2):
            torch.testing.assert_close(ours(x), torchs(x))
    assert torch.equal(original(ours), before)


def test_in_inference_mode() -> None:
    layer = gf.SNLinear(6, 5, dtype=F64)
    with torch.inference_mode():
        assert layer.weight.data.norm() > 0
        assert layer.weight.view(-1).sum().isfinite()
        layer(torch.ones(1, 6, dtype=F64))
    attention = gf.spectral_norm(nn.MultiheadAttention(4, 2), "in_proj_weight")
    with torch.inference_mode():
        attention(*[torch.ones(3, 1, 4)] * 3)

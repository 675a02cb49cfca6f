"""norm="conv": the norm of the convolution itself; the truth is the operator as a dense matrix."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import ganlstm_fast as gf
from ganlstm_fast.ops.spectral_norm import conv as conv_ops
from tests.numerics import assert_close_to_reference

# Layer and its torch counterpart; in_channels, out_channels, kernel_size; options; input size.
C1, C2, C3 = (gf.SNConv1d, nn.Conv1d), (gf.SNConv2d, nn.Conv2d), (gf.SNConv3d, nn.Conv3d)
T1 = (gf.SNConvTranspose1d, nn.ConvTranspose1d)
T2 = (gf.SNConvTranspose2d, nn.ConvTranspose2d)
T3 = (gf.SNConvTranspose3d, nn.ConvTranspose3d)
CASES = {
    "1d": (C1, (2, 3, 3), {}, (7,)),
    "2d": (C2, (2, 3, 3), {"padding": 1}, (4, 5)),
    "3d": (C3, (2, 2, 2), {"stride": 2}, (3, 4, 2)),
    "stride": (C2, (2, 3, 4), {"stride": 2, "padding": 1}, (6, 7)),
    "uneven": (
        C2,
        (2, 3, (2, 3)),
        {"stride": (3, 2), "padding": (1, 0), "dilation": (1, 2)},
        (6, 8),
    ),
    "groups": (C2, (4, 6, 3), {"groups": 2, "padding": 1}, (4, 3)),
    "depthwise": (C1, (3, 6, 3), {"groups": 3}, (6,)),
    "same": (C2, (2, 2, (4, 3)), {"padding": "same"}, (5, 4)),
    "same dilated": (
        C1,
        (2, 2, 4),
        {"padding": "same", "dilation": 3},
        (9,),
    ),
    "valid": (C1, (2, 2, 4), {"padding": "valid"}, (9,)),
    "stride leaves out": (C1, (2, 2, 1), {"stride": 3}, (6,)),
    "transposed 1d": (T1, (2, 3, 3), {}, (4,)),
    "transposed 2d": (
        T2,
        (3, 2, 4),
        {"stride": 2, "padding": 1},
        (3, 4),
    ),
    "transposed 3d": (T3, (2, 2, 2), {"stride": 2}, (2, 1, 2)),
    "transposed groups": (
        T1,
        (4, 2, 3),
        {"stride": 2, "groups": 2, "output_padding": 1},
        (4,),
    ),
    "output_padding above the stride": (
        T1,
        (2, 2, 2),
        {"stride": 2, "dilation": 4, "output_padding": 3},
        (4,),
    ),
}


def _layer(case: str, **options: Any) -> nn.Module:
    (ours, _), arguments, others, size = CASES[case]
    options |= others
    return ours(*arguments, norm="conv", input_size=size, dtype=torch.float64, **options)


def _operator(case: str, weight: Tensor) -> Tensor:
    """The convolution without bias as a matrix (outputs, inputs), made by torch's own layer."""
    (_, torchs), arguments, options, size = CASES[case]
    layer = torchs(*arguments, **options, bias=False, dtype=torch.float64)
    layer.weight.data.copy_(weight)
    shape = (arguments[0], *size)
    inputs = torch.eye(torch.Size(shape).numel(), dtype=torch.float64)
    return layer(inputs.view(-1, *shape)).flatten(1).t().detach()


@pytest.mark.parametrize("case", CASES)
def test_sigma_is_the_largest_singular_value(case: str) -> None:
    layer = _layer(case, n_power_iterations=400)
    original = layer.parametrizations.weight.original.detach()
    sigma = torch.linalg.svdvals(_operator(case, original))[0]
    torch.testing.assert_close(layer.weight, original / sigma, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        torch.linalg.svdvals(_operator(case, layer.weight.detach()))[0],
        torch.ones((), dtype=torch.float64),
        rtol=1e-5,
        atol=0,
    )


@pytest.mark.parametrize("case", CASES)
def test_transpose_is_the_transpose(case: str) -> None:
    conv, weight = _layer(case).parametrizations.weight[0].conv, _layer(case).weight.detach()
    matrix = _operator(case, weight)
    u = torch.randn(conv.output_shape, dtype=torch.float64)
    v = torch.randn(conv.input_shape, dtype=torch.float64)
    torch.testing.assert_close(conv.forward(weight, v).flatten(), matrix @ v.flatten())
    torch.testing.assert_close(conv.transpose(weight, u).flatten(), matrix.t() @ u.flatten())


@pytest.mark.parametrize("case", ["stride", "groups", "same", "transposed 2d"])
def test_gradcheck_with_frozen_vectors(case: str) -> None:
    layer = _layer(case).eval()
    norm, weight = layer.parametrizations.weight[0], layer.parametrizations.weight.original
    assert torch.autograd.gradcheck(norm, weight)
    assert torch.autograd.gradgradcheck(norm, weight)


def test_gradient_of_sigma_is_that_of_the_singular_value() -> None:
    layer = _layer("stride", n_power_iterations=1000)
    weight = layer.parametrizations.weight.original
    (grad,) = torch.autograd.grad(layer.weight.sum(), weight)
    columns = torch.eye(weight.numel(), dtype=torch.float64)
    basis = torch.stack([_operator("stride", c.view(weight.shape)) for c in columns])
    leaf = weight.detach().clone().requires_grad_()
    matrix = torch.tensordot(leaf.flatten(), basis, 1)
    (leaf / torch.linalg.matrix_norm(matrix, 2)).sum().backward()
    torch.testing.assert_close(grad, leaf.grad, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("torchs", [nn.Conv2d, nn.ConvTranspose2d])
def test_bound_holds_for_smaller_inputs(torchs: type[nn.Module]) -> None:
    layer = torchs(2, 3, 3, 2, 1, bias=False, dtype=torch.float64)
    gf.spectral_norm(layer, n_power_iterations=1000, norm="conv", input_size=(6, 7))
    for size in ((6, 7), (5, 7), (3, 2), (1, 1)):
        inputs = torch.eye(2 * size[0] * size[1], dtype=torch.float64).view(-1, 2, *size)
        assert torch.linalg.svdvals(layer.eval()(inputs).flatten(1))[0] <= 1 + 1e-5


def test_gan_step_with_a_penalty() -> None:
    """Three calls before one backward; a second one after another forward gives the same."""
    norm = {"norm": "conv", "dtype": torch.float64}
    model = nn.Sequential(
        gf.SNConv1d(2, 4, 3, input_size=8, **norm),
        nn.Tanh(),
        gf.SNConv1d(4, 3, 3, input_size=(6,), **norm),
        nn.Flatten(),
    )
    real, fake = torch.randn(2, 3, 2, 8, dtype=torch.float64)
    loss = model(fake).mean() - model(real).mean() + gf.gradient_penalty(model, real, fake)
    loss.backward(retain_graph=True)
    first = [p.grad.clone() for p in model.parameters()]
    model(real)
    model.zero_grad()
    loss.backward()
    for p, expected in zip(model.parameters(), first, strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=0, atol=0)


@pytest.mark.parametrize("training", [True, False])
def test_vectors_are_new_constants(training: bool) -> None:
    layer = _layer("2d")
    norm = layer.parametrizations.weight[0]
    weight, u, v = layer.parametrizations.weight.original, norm._conv_u, norm._conv_v
    before = u.clone(), v.clone()
    out, new_u, new_v = conv_ops.spectral_normalize(weight, u, v, norm.conv, training=training)
    torch.testing.assert_close((u, v), before, rtol=0, atol=0)
    expected = torch.autograd.grad(out.square().sum(), weight, retain_graph=True)[0]
    for tensor in (u, v, new_u, new_v):
        assert not tensor.requires_grad
        tensor.zero_()
    torch.testing.assert_close(torch.autograd.grad(out.square().sum(), weight)[0], expected)


def test_training_moves_the_buffers_in_place_and_eval_does_not() -> None:
    layer, x = _layer("2d"), torch.randn(1, 2, 4, 5, dtype=torch.float64)
    pointers = [b.data_ptr() for b in layer.buffers()]
    before = [b.clone() for b in layer.buffers()]
    layer.eval()(x)
    torch.testing.assert_close(list(layer.buffers()), before, rtol=0, atol=0)
    layer.train()(x)
    assert [b.data_ptr() for b in layer.buffers()] == pointers
    assert not torch.equal(next(layer.buffers()), before[0])
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()


def test_zero_weight_is_finite() -> None:
    layer = _layer("2d")
    torch.nn.init.zeros_(layer.parametrizations.weight.original)
    weight = layer.weight
    (grad,) = torch.autograd.grad(weight.sum(), layer.parametrizations.weight.original)
    assert not weight.any()
    assert torch.equal(grad, torch.ones_like(grad))
    assert all(torch.isfinite(b).all() for b in layer.buffers())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes_and_autocast(dtype: torch.dtype) -> None:
    layer = _layer("stride", n_power_iterations=20).to(dtype)
    truth = copy.deepcopy(layer).double().weight
    weight = layer.weight
    assert weight.dtype == dtype
    assert all(b.dtype == dtype for b in layer.buffers())
    assert_close_to_reference(weight, truth)
    still = layer.eval().weight
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer.weight, still, rtol=0, atol=0)


def test_state_dict_deepcopy_meta_and_removal() -> None:
    layer, other = _layer("stride"), _layer("stride")
    assert [k for k in layer.state_dict() if "conv" in k] == [
        "parametrizations.weight.0._conv_u",
        "parametrizations.weight.0._conv_v",
    ]
    other.load_state_dict(layer.state_dict())
    empty = gf.SNConv2d(2, 3, 4, 2, 1, norm="conv", input_size=(6, 7), device="meta")
    empty = empty.double().to_empty(device="cpu")
    empty.load_state_dict(layer.state_dict())
    x = torch.randn(2, 2, 6, 7, dtype=torch.float64)
    outputs = [m(x) for m in (copy.deepcopy(layer), other, empty, layer)]
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], rtol=0, atol=0)
    original = layer.parametrizations.weight.original
    assert gf.remove_spectral_norm(layer).weight is original
    torch.testing.assert_close(layer(x), other.eval()(x))


def test_a_state_of_the_matrix_norm_is_refused() -> None:
    rival = parametrizations.spectral_norm(nn.Conv1d(2, 3, 3))
    with pytest.raises(RuntimeError, match=r"(?s)Missing key.*_conv_u.*Unexpected key.*0\._u"):
        gf.SNConv1d(2, 3, 3, norm="conv", input_size=7).load_state_dict(rival.state_dict())


def test_compiles_without_a_break() -> None:
    layer = gf.SNConv1d(2, 3, 3, norm="conv", input_size=7)
    twin = copy.deepcopy(layer)
    compiled, x = torch.compile(layer, backend="eager", fullgraph=True), torch.randn(1, 2, 7)
    for _ in range(2):
        torch.testing.assert_close(compiled(x), twin(x))


def test_errors() -> None:
    conv = nn.Conv2d(2, 3, 3)
    with pytest.raises(TypeError, match=r"input_size: expected a tuple of 2 integers .*got NoneTy"):
        gf.spectral_norm(conv, norm="conv")
    with pytest.raises(TypeError, match="input_size: expected a tuple of 2 integers"):
        gf.spectral_norm(conv, norm="conv", input_size=7)
    with pytest.raises(ValueError, match=r"input_size: expected 2 positive integers, got \(7,\)"):
        gf.spectral_norm(conv, norm="conv", input_size=(7,))
    with pytest.raises(ValueError, match=r"input_size: expected 2 positive integers, got \(7, 0\)"):
        gf.spectral_norm(conv, norm="conv", input_size=(7, 0))
    with pytest.raises(ValueError, match=r"input_size: .*kernel \(3, 3\) fits into, got \(7, 2\)"):
        gf.spectral_norm(conv, norm="conv", input_size=(7, 2))
    with pytest.raises(ValueError, match="dim: expected None with norm='conv', got 1"):
        gf.spectral_norm(conv, dim=1, norm="conv", input_size=(7, 7))
    with pytest.raises(ValueError, match="name: expected 'weight' with norm='conv', got 'bias'"):
        gf.spectral_norm(conv, "bias", norm="conv", input_size=(7, 7))
    with pytest.raises(ValueError, match="norm: expected 'matrix' or 'conv', got 'operator'"):
        gf.spectral_norm(conv, norm="operator")
    with pytest.raises(ValueError, match=r"input_size: expected None .*'matrix', got \(7, 7\)"):
        gf.spectral_norm(conv, input_size=(7, 7))
    with pytest.raises(ValueError, match="n_power_iterations: expected a positive integer, got 0"):
        gf.spectral_norm(conv, n_power_iterations=0, norm="conv", input_size=(7, 7))
    with pytest.raises(ValueError, match="norm: expected 'matrix' for anything but a convolution"):
        gf.SNLinear(3, 4, norm="conv", input_size=(3,))
    with pytest.raises(ValueError, match="'conv' expects padding_mode='zeros', got 'circular'"):
        gf.SNConv2d(2, 3, 3, padding_mode="circular", norm="conv", input_size=(7, 7))
    assert type(conv) is nn.Conv2d
    gf.spectral_norm(conv, norm="conv", input_size=[7, 7])
    with pytest.raises(RuntimeError, match="has a spectral norm already"):
        gf.spectral_norm(conv)

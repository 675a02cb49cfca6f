"""Spectral norm: torch's numbers, derivatives, the ways GANs use it, state_dicts, errors."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import spectral_norm as old_spectral_norm

import ganlstm_fast as gf
from ganlstm_fast.ops.spectral_norm import reference
from ganlstm_fast.ops.spectral_norm.function import spectral_normalize
from tests.numerics import assert_close_to_reference

# Layer, its torch counterpart, constructor arguments, shape of an input.
LAYERS = [
    pytest.param(gf.SNLinear, nn.Linear, (6, 5), (3, 6), id="linear"),
    pytest.param(gf.SNConv1d, nn.Conv1d, (3, 4, 3), (2, 3, 7), id="conv1d"),
    pytest.param(gf.SNConv2d, nn.Conv2d, (3, 4, 3), (2, 3, 5, 6), id="conv2d"),
    pytest.param(gf.SNConv3d, nn.Conv3d, (2, 3, 2), (2, 2, 3, 4, 3), id="conv3d"),
    pytest.param(gf.SNConvTranspose1d, nn.ConvTranspose1d, (3, 4, 3), (2, 3, 5), id="convT1d"),
    pytest.param(gf.SNConvTranspose2d, nn.ConvTranspose2d, (3, 4, 3), (2, 3, 4, 3), id="convT2d"),
    pytest.param(
        gf.SNConvTranspose3d, nn.ConvTranspose3d, (2, 3, 2), (2, 2, 3, 2, 3), id="convT3d"
    ),
    pytest.param(gf.SNEmbedding, nn.Embedding, (7, 5), None, id="embedding"),
]


def _input(shape: tuple[int, ...] | None, dtype: torch.dtype) -> torch.Tensor:
    return torch.randint(0, 7, (3, 4)) if shape is None else torch.randn(shape).to(dtype)


def _pair(ours, theirs, args, iterations, dtype):
    """Our layer and torch's with the same weight, u and v."""
    torch.manual_seed(1)
    rival = parametrizations.spectral_norm(
        theirs(*args, dtype=dtype), n_power_iterations=iterations
    )
    layer = ours(*args, n_power_iterations=iterations, dtype=dtype)
    layer.load_state_dict(rival.state_dict())
    return layer, rival


def _frozen(dtype=torch.float64, shape=(4, 3, 2), dim=0):
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=dtype)
    matrix = reference.as_matrix(weight, dim)
    u, v = torch.randn(matrix.shape[0], dtype=dtype), torch.randn(matrix.shape[1], dtype=dtype)
    u, v = reference.power_iteration(matrix, u, v, 3, 1e-12)
    return weight, u, v


@pytest.mark.parametrize("iterations", [1, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("ours", "theirs", "args", "shape"), LAYERS)
def test_layer_equals_torch_over_steps(ours, theirs, args, shape, dtype, iterations):
    layer, rival = _pair(ours, theirs, args, iterations, dtype)
    truth = parametrizations.spectral_norm(
        theirs(*args, dtype=torch.float64), n_power_iterations=iterations
    )
    truth.load_state_dict(rival.state_dict())
    assert isinstance(layer, theirs)
    models = (layer, truth, rival)
    for step in range(4):
        for model in models:
            model.train(step != 2)
            model.zero_grad()
        x = _input(shape, torch.float64)
        outs = [m(x if shape is None else x.to(m.weight.dtype)) for m in models]
        weights = [m.parametrizations.weight.original for m in models]
        for out in outs:
            out.square().sum().backward()
        assert_close_to_reference(*outs, f"output of step {step}")
        assert_close_to_reference(*(w.grad for w in weights), f"gradient of step {step}")
        for name in ("_u", "_v"):
            buffers = (getattr(m.parametrizations.weight[0], name) for m in models)
            assert_close_to_reference(*buffers, f"{name} of step {step}")
        with torch.no_grad():
            for w, m in zip(weights, models, strict=True):
                w -= 0.05 * weights[1].grad.to(m.weight.dtype)


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_dim_equals_torch(dim):
    torch.manual_seed(0)
    rival = parametrizations.spectral_norm(nn.Conv1d(3, 4, 5), dim=dim)
    layer = gf.spectral_norm(nn.Conv1d(3, 4, 5), dim=dim)
    layer.load_state_dict(rival.state_dict())
    for _ in range(3):
        torch.testing.assert_close(layer.weight, rival.weight)


@pytest.mark.parametrize(("ours", "theirs", "args", "shape"), LAYERS)
def test_same_initialisation_as_torch(ours, theirs, args, shape):
    torch.manual_seed(3)
    layer = ours(*args)
    torch.manual_seed(3)
    rival = parametrizations.spectral_norm(theirs(*args))
    for (name, a), (other, b) in zip(
        layer.state_dict().items(), rival.state_dict().items(), strict=True
    ):
        assert name == other
        torch.testing.assert_close(a, b)


def test_sigma_approaches_the_largest_singular_value():
    weight = torch.randn(20, 30, dtype=torch.float64)
    layer = nn.Linear(30, 20, dtype=torch.float64)
    layer.weight.data = weight
    gf.spectral_norm(layer, n_power_iterations=500)
    assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, abs=1e-9)


def test_vector_is_divided_by_its_norm():
    layer = gf.spectral_norm(nn.Linear(3, 4), "bias")
    rival = parametrizations.spectral_norm(nn.Linear(3, 4), "bias")
    rival.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer.bias, rival.bias)
    zero = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(reference.normalize_vector(zero, 1e-12).sum(), zero)
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("dim", [0, 1])
def test_gradcheck_with_frozen_vectors(dim):
    weight, u, v = _frozen(dim=dim)
    weight.requires_grad_()

    def run(w):
        return spectral_normalize(w, u, v, dim=dim, training=False)[0]

    assert torch.autograd.gradcheck(run, weight)
    assert torch.autograd.gradgradcheck(run, weight)


def test_first_gradient_has_its_closed_form():
    weight, u, v = _frozen(shape=(4, 6))
    weight.requires_grad_()
    normalized, u, v = spectral_normalize(weight, u, v)
    g = torch.randn_like(weight)
    (grad,) = torch.autograd.grad(normalized, weight, g)
    sigma = u @ weight @ v
    expected = (g - (g * normalized).sum() * torch.outer(u, v)) / sigma
    torch.testing.assert_close(grad, expected)


def test_vectors_are_new_and_constants():
    weight, u, v = _frozen(torch.float32)
    weight.requires_grad_()
    before = u.clone(), v.clone()
    for training in (True, False):
        _, new_u, new_v = spectral_normalize(weight, u, v, training=training)
        assert not new_u.requires_grad
        assert not new_v.requires_grad
        assert {new_u.data_ptr(), new_v.data_ptr()}.isdisjoint({u.data_ptr(), v.data_ptr()})
        torch.testing.assert_close((u, v), before, rtol=0, atol=0)


@pytest.mark.parametrize("training", [True, False])
def test_vectors_may_be_overwritten_before_the_backward(training):
    weight, u, v = _frozen()
    weight.requires_grad_()
    out, new_u, new_v = spectral_normalize(weight, u, v, training=training)
    expected = torch.autograd.grad(out.square().sum(), weight, retain_graph=True)[0]
    for tensor in (u, v, new_u, new_v):
        tensor.zero_()
    torch.testing.assert_close(torch.autograd.grad(out.square().sum(), weight)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    torch.manual_seed(0)
    weight, u, v = torch.randn(64, 500), torch.randn(64), torch.randn(500)
    inputs = [t.to(dtype) for t in (weight * 100, u / u.norm(), v / v.norm())]
    out = spectral_normalize(*inputs, n_power_iterations=3)
    truth = spectral_normalize(*(t.double() for t in inputs), n_power_iterations=3)
    assert all(o.dtype == dtype for o in out)
    assert_close_to_reference(out, truth)


def test_autocast_does_not_reach_the_iteration():
    weight, u, v = _frozen(torch.float32, (40, 50))
    expected = spectral_normalize(weight, u, v)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = spectral_normalize(weight, u, v)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


@pytest.mark.parametrize("training", [True, False])
def test_zero_weight_is_finite_to_second_order(training):
    weight = torch.zeros(4, 3, 2, requires_grad=True)
    u, v = torch.eye(4)[0], torch.eye(6)[0]
    out, new_u, new_v = spectral_normalize(weight, u, v, training=training)
    torch.testing.assert_close((out.detach(), new_u, new_v), (torch.zeros(4, 3, 2), u, v))
    (grad,) = torch.autograd.grad(out.sum(), weight, create_graph=True)
    assert torch.equal(grad.detach(), torch.ones_like(grad))
    if grad.requires_grad:
        (second,) = torch.autograd.grad(grad.square().sum(), weight, allow_unused=True)
        assert second is None or torch.isfinite(second).all()


def test_rank_one_weight_is_finite():
    weight = torch.outer(torch.randn(5), torch.randn(7)).requires_grad_()
    out, u, v = spectral_normalize(weight, torch.randn(5), torch.randn(7))
    (grad,) = torch.autograd.grad(out.pow(3).sum(), weight, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), weight)
    assert all(torch.isfinite(t).all() for t in (out, u, v, grad, second))
    assert torch.linalg.matrix_norm(out, 2).item() == pytest.approx(1, abs=1e-5)


def _discriminator(norm) -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(
        norm(nn.Conv1d(2, 4, 3)), nn.Tanh(), norm(nn.Conv1d(4, 3, 3)), nn.Flatten(), nn.Tanh()
    ).double()


def _gan_step(model: nn.Module, real: torch.Tensor, fake: torch.Tensor) -> None:
    """D(real), D(fake) and a gradient penalty, then one backward."""
    loss = model(fake).mean() - model(real).mean()
    generator = torch.Generator().manual_seed(0)
    (loss + gf.gradient_penalty(model, real, fake, generator=generator)).backward()


def test_gan_step_equals_torch():
    """Three calls before one backward, with a second derivative through the normalisation."""
    ours, rival = _discriminator(gf.spectral_norm), _discriminator(parametrizations.spectral_norm)
    rival.load_state_dict(ours.state_dict())
    models = (ours, rival)
    optimizers = [torch.optim.SGD(m.parameters(), 0.1) for m in models]
    for _ in range(3):
        real, fake = torch.randn(2, 3, 2, 8, dtype=torch.float64)
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            _gan_step(model, real, fake)
            optimizer.step()
        for a, b in zip(ours.parameters(), rival.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
        for a, b in zip(ours.buffers(), rival.buffers(), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("training", [True, False])
def test_second_backward_after_a_forward_in_between(training):
    model = _discriminator(gf.spectral_norm).train(training)
    x = torch.randn(3, 2, 8, dtype=torch.float64)
    loss = model(x).square().sum()
    loss.backward(retain_graph=True)
    first = [p.grad.clone() for p in model.parameters()]
    model.train()(x)
    model.zero_grad()
    loss.backward()
    for p, expected in zip(model.parameters(), first, strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=0, atol=0)


def test_generator_step_after_an_optimiser_step():
    """retain_graph, a step of the discriminator's optimiser, a fresh forward, a second backward."""
    model = _discriminator(gf.spectral_norm)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    fake = torch.randn(3, 2, 8, dtype=torch.float64, requires_grad=True)
    hidden = fake * 2
    model(hidden).mean().backward(retain_graph=True)
    optimizer.step()
    (-model(hidden).mean()).backward()
    assert torch.isfinite(fake.grad).all()


def test_cached_shares_one_iteration():
    layer = gf.SNLinear(6, 5)
    with parametrize.cached():
        first = layer.weight
        assert layer.weight is first
    before = layer.parametrizations.weight[0]._u.clone()
    assert layer.weight is not first
    assert not torch.equal(layer.parametrizations.weight[0]._u, before)


def test_eval_and_no_grad_of_the_buffers():
    layer = gf.SNLinear(6, 5).eval()
    buffers = {k: t.clone() for k, t in layer.named_buffers()}
    layer(torch.randn(2, 6)).sum().backward()
    torch.testing.assert_close(dict(layer.named_buffers()), buffers, rtol=0, atol=0)
    pointers = [t.data_ptr() for t in layer.buffers()]
    layer.train()(torch.randn(2, 6))
    assert [t.data_ptr() for t in layer.buffers()] == pointers
    assert not any(t.requires_grad for t in layer.buffers())


def test_deepcopy_is_independent():
    layer = gf.SNConv2d(3, 4, 3)
    twin = copy.deepcopy(layer)
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(layer(x), twin(x), rtol=0, atol=0)
    layer(x)
    assert not torch.equal(layer.parametrizations.weight[0]._u, twin.parametrizations.weight[0]._u)
    old = old_spectral_norm(nn.Conv2d(3, 4, 3))
    old(x)
    twin.load_state_dict(old.state_dict())
    torch.testing.assert_close(twin.parametrizations.weight.original, old.weight_orig)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_change_of_dtype(dtype):
    layer = gf.SNLinear(6, 5).to(dtype)
    out = layer(torch.randn(2, 6).to(dtype))
    out.sum().backward()
    assert out.dtype == dtype
    assert all(b.dtype == dtype for b in layer.buffers())
    assert torch.isfinite(layer.parametrizations.weight.original.grad).all()


def test_meta_device_then_a_state_dict():
    layer, source = gf.SNLinear(6, 5, device="meta"), gf.SNLinear(6, 5)
    layer.to_empty(device="cpu").load_state_dict(source.state_dict())
    x = torch.randn(2, 6)
    torch.testing.assert_close(layer(x), source(x), rtol=0, atol=0)


def test_compiles_without_a_break():
    layer, twin = gf.SNLinear(6, 5), gf.SNLinear(6, 5)
    twin.load_state_dict(layer.state_dict())
    compiled, x = torch.compile(layer, backend="eager", fullgraph=True), torch.randn(2, 6)
    for _ in range(2):
        torch.testing.assert_close(compiled(x), twin(x))


def test_no_grad_then_inference_mode_then_training():
    layer, x = gf.SNLinear(6, 5), torch.randn(2, 6)
    with torch.no_grad():
        layer(x)
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()
    assert torch.isfinite(layer.parametrizations.weight.original.grad).all()


def test_norm_of_an_lstms_weight():
    layer = gf.spectral_norm(gf.FastLSTM(3, 4), "weight_hh_l0", n_power_iterations=100)
    y, _ = layer(torch.randn(5, 2, 3))
    y.sum().backward()
    assert layer.parametrizations.weight_hh_l0.original.grad.norm() > 0
    assert torch.linalg.matrix_norm(layer.weight_hh_l0, 2).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("ours", "theirs", "args", "shape"), LAYERS)
def test_state_dict_exchanges_with_torch(ours, theirs, args, shape):
    layer, rival = ours(*args), parametrizations.spectral_norm(theirs(*args))
    x = _input(shape, torch.float32)
    for source, target in ((layer, rival), (rival, layer)):
        source(x)
        file = io.BytesIO()
        torch.save(source.state_dict(), file)
        file.seek(0)
        target.load_state_dict(torch.load(file, weights_only=True))
        torch.testing.assert_close(target.eval()(x), source.eval()(x))
        source.train(), target.train()


@pytest.mark.parametrize(("ours", "theirs", "args", "shape"), LAYERS)
def test_state_dict_of_torchs_older_spectral_norm_loads(ours, theirs, args, shape):
    old = nn.Sequential(old_spectral_norm(theirs(*args)), nn.Identity())
    x = _input(shape, torch.float32)
    for _ in range(3):
        old(x)
    model = nn.Sequential(ours(*args), nn.Identity())
    model.load_state_dict(old.state_dict())
    torch.testing.assert_close(model.eval()(x), old.eval()(x))


def test_incomplete_state_dict_is_refused():
    layer = gf.SNLinear(3, 4)
    state = layer.state_dict()
    del state["parametrizations.weight.0._v"]
    with pytest.raises(RuntimeError, match=r"Missing key.*_v"):
        layer.load_state_dict(state)


@pytest.mark.parametrize("training", [True, False])
def test_remove_keeps_the_weight_and_the_parameter(training):
    layer = gf.spectral_norm(nn.Linear(6, 5))
    layer(torch.randn(2, 6))
    original = layer.parametrizations.weight.original
    expected = layer.eval().weight.detach().clone()
    assert gf.remove_spectral_norm(layer.train(training)) is layer
    assert layer.weight is original
    assert type(layer) is nn.Linear
    torch.testing.assert_close(layer.weight.detach(), expected, rtol=0, atol=0)
    assert set(layer.state_dict()) == {"weight", "bias"}
    gf.spectral_norm(layer)


def test_errors_of_the_function():
    w, u, v = torch.randn(4, 3), torch.randn(4), torch.randn(3)
    with pytest.raises(TypeError, match="weight: expected a floating-point tensor"):
        spectral_normalize(w.long(), u, v)
    with pytest.raises(ValueError, match="weight: expected two dimensions"):
        spectral_normalize(u, u, v)
    with pytest.raises(ValueError, match="weight: expected at least one element"):
        spectral_normalize(w[:0], u[:0], v)
    with pytest.raises(ValueError, match=r"u: expected shape \(4\), got \(3,\)"):
        spectral_normalize(w, v, u)
    with pytest.raises(ValueError, match="v: expected device cpu of the weight, got meta"):
        spectral_normalize(w, u, v.to("meta"))
    with pytest.raises(IndexError, match=r"dim: expected a dimension in \[-2, 1\]"):
        spectral_normalize(w, u, v, dim=2)
    with pytest.raises(ValueError, match="n_power_iterations: expected a positive integer, got 0"):
        spectral_normalize(w, u, v, n_power_iterations=0)
    with pytest.raises(TypeError, match="n_power_iterations: expected an integer"):
        spectral_normalize(w, u, v, n_power_iterations=1.0)
    with pytest.raises(ValueError, match="eps: expected a positive number"):
        spectral_normalize(w, u, v, eps=0)
    with pytest.raises(RuntimeError, match="impl='torch' cannot run spectral_norm"):
        spectral_normalize(w, u, v, impl="torch")


def test_errors_of_the_module_functions():
    with pytest.raises(ValueError, match="name: expected a parameter of Linear, got 'w'"):
        gf.spectral_norm(nn.Linear(3, 4), "w")
    with pytest.raises(ValueError, match="name: expected a parameter of Linear, got 'bias'"):
        gf.spectral_norm(nn.Linear(3, 4, bias=False), "bias")
    with pytest.raises(ValueError, match="initialised parameter"):
        gf.spectral_norm(nn.LazyLinear(3))
    with pytest.raises(IndexError, match="dim"):
        gf.spectral_norm(nn.Linear(3, 4), dim=2)
    with pytest.raises(RuntimeError, match="has a spectral norm already"):
        gf.spectral_norm(gf.SNLinear(3, 4))
    with pytest.raises(ValueError, match="name: expected a parameter with a spectral norm"):
        gf.remove_spectral_norm(nn.Linear(3, 4))
    with pytest.raises(ValueError, match="max_norm"):
        gf.SNEmbedding(3, 4, max_norm=1.0)
    with pytest.raises(ValueError, match="sparse"):
        gf.SNEmbedding(3, 4, sparse=True)


def test_failed_constructor_of_a_norm_leaves_the_module_alone():
    layer = nn.Linear(3, 4)
    with pytest.raises(ValueError, match="n_power_iterations"):
        gf.spectral_norm(layer, n_power_iterations=-1)
    assert type(layer) is nn.Linear
    assert isinstance(layer.weight, nn.Parameter)

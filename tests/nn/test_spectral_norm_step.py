"""spectral_norm_step, and layers in the ways that GANs use them."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import ganlstm_fast as gf
from ganlstm_fast import spectral_norm_step, use_impl
from ganlstm_fast.ops import backends
from tests.marks import needs_cpu_kernels


def discriminator(norm=gf.spectral_norm, dtype=torch.float64) -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(
        norm(nn.Conv1d(2, 4, 3)),
        nn.Tanh(),
        norm(nn.ConvTranspose1d(4, 3, 2)),
        nn.Flatten(),
        nn.Tanh(),
        norm(nn.Linear(21, 1), n_power_iterations=2),
    ).to(dtype)


def buffers(model: nn.Module) -> list[Tensor]:
    return [b.clone() for b in model.buffers()]


def weights_of(model: nn.Module) -> list[Tensor]:
    return [layer.weight for layer in model if parametrize.is_parametrized(layer, "weight")]


def samples(*shape: int) -> Tensor:
    return torch.randn(*shape, 2, 8, dtype=torch.float64)


@pytest.fixture(params=["cpu", "reference"])
def impl(request):
    if request.param == "cpu" and not backends.is_loaded("cpu"):
        pytest.skip("built without the CPU kernels")
    with use_impl("auto" if request.param == "cpu" else "reference", "spectral_norm"):
        yield request.param


def gan_losses(model, real, fake):
    generator = torch.Generator().manual_seed(0)
    penalty = gf.gradient_penalty(model, real, fake, generator=generator)
    return model(fake).tanh().mean(), -model(real).tanh().mean(), penalty


def test_equals_one_iteration_of_torch(impl):
    """Over steps of a GAN, against torch's parametrization cached for the step."""
    ours, rival = discriminator(), discriminator(parametrizations.spectral_norm)
    rival.load_state_dict(ours.state_dict())
    for _ in range(3):
        real, fake = samples(2, 3)
        for model, share in ((ours, spectral_norm_step(ours)), (rival, parametrize.cached())):
            model.zero_grad()
            with share:
                sum(gan_losses(model, real, fake)).backward()
        for (name, a), b in zip(ours.named_parameters(), rival.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, msg=lambda m, name=name: f"{name}: {m}")
        for a, b in zip(ours.buffers(), rival.buffers(), strict=True):
            torch.testing.assert_close(a, b)
        for model in (ours, rival):
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad


def test_accesses_share_one_iteration(impl):
    model, twin = discriminator(), discriminator()
    with spectral_norm_step(model):
        after_entry = buffers(model)
        first, second = weights_of(model), weights_of(model)
        assert all(a is b for a, b in zip(first, second, strict=True))
        assert all(a.requires_grad for a in first)
        model(samples(3))
        torch.testing.assert_close(buffers(model), after_entry, rtol=0, atol=0)
    expected = weights_of(twin)
    torch.testing.assert_close(buffers(twin), after_entry)
    torch.testing.assert_close(first, expected)
    weights_of(model)  # after the block each access iterates
    assert not torch.equal(next(model.buffers()), after_entry[0])


@needs_cpu_kernels
def test_one_node_of_the_graph():
    model = discriminator().float()
    gf.spectral_norm(model[0], "bias")  # u and v are not part of it
    with spectral_norm_step(model):
        one, *others = weights_of(model)
        nodes = [w.grad_fn for w in (one, *others)]
        assert nodes[0] is nodes[1]
        assert nodes[2] is not nodes[0]  # another number of iterations
        assert nodes[0].name() == "SpectralNormFunctionBackward"
        model[0].bias.sum().backward()
    assert model[0].parametrizations.bias.original.grad.abs().sum() > 0


@needs_cpu_kernels
def test_backwards_apart_add_up():
    """D(real).backward(), then D(fake).backward(), without retain_graph."""
    real, fake = samples(2, 3)
    grads = []
    for apart in (True, False):
        model = discriminator()
        with spectral_norm_step(model):
            losses = gan_losses(model, real, fake)
            for loss in losses if apart else [sum(losses)]:
                loss.backward()
        grads.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*grads)


def test_gradients_are_those_of_frozen_vectors(impl):
    """Against torch's layers in eval mode, from the vectors after the iteration."""
    model = discriminator()
    x = samples(3)
    with spectral_norm_step(model):
        loss = sum(model(x).square().sum() for _ in range(3))
    loss.backward()
    rival = discriminator(parametrizations.spectral_norm).eval()
    rival.load_state_dict(model.state_dict())
    (3 * rival(x).square().sum()).backward()
    for a, b in zip(model.parameters(), rival.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_iterates_again_when_the_optimiser_has_stepped(impl):
    model, twin = discriminator(), discriminator()
    x = samples(3)
    optimizers = [torch.optim.Adam(m.parameters(), 0.1) for m in (model, twin)]
    with spectral_norm_step(model):
        model(x).mean().backward()
        before = weights_of(model)
        optimizers[0].step()
        score = model(x)
        after = buffers(model)
        assert weights_of(model)[0] is weights_of(model)[0]
        assert weights_of(model)[0] is not before[0]
        model(x)
        torch.testing.assert_close(buffers(model), after, rtol=0, atol=0)
    twin(x).mean().backward()
    optimizers[1].step()
    torch.testing.assert_close(twin(x), score)
    torch.testing.assert_close(buffers(twin), after)


def test_a_backward_after_the_optimiser_has_stepped():
    """retain_graph, a step, a second backward of the same graph, inside of a block and without."""
    for share in (spectral_norm_step, lambda _: contextlib.nullcontext()):
        model = discriminator()
        weights = [layer.parametrizations.weight.original for layer in (model[0], model[2])]
        with share(model):
            loss = sum((w * w.detach()).sum() for w in (model[0].weight, model[2].weight))
            expected = torch.autograd.grad(loss, weights, retain_graph=True)
            with torch.no_grad():
                torch._foreach_add_(weights, 1.0)
            got = torch.autograd.grad(loss, weights)
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_only_the_weights_that_changed_iterate_again(impl):
    model = discriminator()
    with spectral_norm_step(model):
        first = weights_of(model)
        after = buffers(model)
        with torch.no_grad():
            model[0].parametrizations.weight.original.mul_(1.5)
        second = weights_of(model)
        assert [a is b for a, b in zip(first, second, strict=True)] == [False, True, True]
        torch.testing.assert_close(buffers(model)[2:], after[2:], rtol=0, atol=0)
        torch.testing.assert_close(second[0], first[0], rtol=0.5, atol=0.1)


def test_other_ways_to_change_a_weight(impl):
    model = discriminator()
    layer, state = model[0], model.state_dict()
    original = layer.parametrizations.weight.original
    with spectral_norm_step(model):
        first = layer.weight
        original.data = original.data * 2
        second = layer.weight
        assert second is not first
        model.load_state_dict({k: v * 2 if "original" in k else v for k, v in state.items()})
        assert layer.weight is not second
        model.float()
        assert layer.weight.dtype == torch.float32
        model(samples(3).float()).sum().backward()
        layer.parametrizations.weight.original = nn.Parameter(torch.randn(4, 2, 3))
        assert layer.weight is not layer.weight  # not the shared weight


def test_eval_mode(impl):
    model = discriminator().eval()
    before = buffers(model)
    x = samples(3)
    expected = model(x)
    with spectral_norm_step(model):
        torch.testing.assert_close(model(x), expected)
        torch.testing.assert_close(buffers(model), before, rtol=0, atol=0)
        model.train()
        weights_of(model)
        after = buffers(model)
        assert not torch.equal(after[0], before[0])
        score = model(x)
        torch.testing.assert_close(buffers(model), after, rtol=0, atol=0)
        model.eval()
        torch.testing.assert_close(model(x), score)
        model.train()
        model(x)
        torch.testing.assert_close(buffers(model), after, rtol=0, atol=0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_entered_without_gradients(mode, impl):
    """A weight without a graph, or of inference mode, is computed again; none iterates twice."""
    model, twin = discriminator(), discriminator()
    x = samples(3)
    with contextlib.ExitStack() as stack:
        with mode():
            stack.enter_context(spectral_norm_step(model))
            score = model(x)
            after = buffers(model)
        frozen = x.clone().requires_grad_()
        model.requires_grad_(False)
        model(frozen).sum().backward()
        model.requires_grad_(True)
        loss = model(x).square().sum()
        loss.backward()
        assert weights_of(model)[0] is weights_of(model)[0]
        torch.testing.assert_close(buffers(model), after, rtol=0, atol=0)
    expected = twin(x)
    torch.testing.assert_close(score, expected)
    expected.square().sum().backward()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_accesses_without_gradients_in_the_block(impl):
    model = discriminator()
    with spectral_norm_step(model):
        first = model[0].weight
        with torch.no_grad():
            assert not model[0].weight.requires_grad
        with torch.inference_mode():
            torch.testing.assert_close(model[0].weight, first)
        model.requires_grad_(False)  # as for the generator's step
        assert not model[0].weight.requires_grad
        fake = samples(3).requires_grad_()
        model(fake).sum().backward()
        assert fake.grad is not None
        model.requires_grad_(True)
        assert model[0].weight is first
    assert all(p.grad is None for p in model.parameters())


def test_blocks_in_blocks_and_exceptions(impl):
    model = discriminator()
    with spectral_norm_step(model):
        first = weights_of(model)
        with spectral_norm_step(nn.Sequential(model, discriminator())) as nothing:
            assert nothing is None
            assert weights_of(model)[0] is first[0]
        assert weights_of(model)[0] is first[0]
        with pytest.raises(ZeroDivisionError), spectral_norm_step(model[2]):
            raise ZeroDivisionError
        assert weights_of(model)[0] is first[0]
    with pytest.raises(ZeroDivisionError), spectral_norm_step(model):
        raise ZeroDivisionError
    assert model[0].weight is not model[0].weight
    with spectral_norm_step(model[0]):
        assert model[0].weight is model[0].weight
        assert model[2].weight is not model[2].weight


def test_a_failing_entry_leaves_the_layers_alone():
    model = discriminator()
    model[2].parametrizations.weight[0]._u = torch.zeros(7)
    with pytest.raises((RuntimeError, ValueError)), spectral_norm_step(model):
        pass
    assert model[0].weight is not model[0].weight


def test_cached_outranks_the_block(impl):
    model = discriminator()
    with spectral_norm_step(model), parametrize.cached():
        first = model[0].weight
        with torch.no_grad():
            model[0].parametrizations.weight.original.mul_(2)
        assert model[0].weight is first
    with parametrize.cached(), spectral_norm_step(model):
        assert model[0].weight is model[0].weight


def test_models_of_several_dtypes_and_without_a_norm(impl):
    model = nn.ModuleList(
        [gf.SNLinear(6, 5, dtype=dtype) for dtype in (torch.float32, torch.float64)]
        + [gf.SNLinear(6, 5, dtype=torch.float16), gf.SNConv2d(2, 3, 3, dtype=torch.bfloat16)]
        + [nn.Linear(3, 3), gf.spectral_norm(gf.FastLSTM(3, 4), "weight_hh_l0")]
    )
    twin = copy.deepcopy(model)
    with spectral_norm_step(model):
        shared = [m.weight for m in model[:3]]
        assert [m.weight is w for m, w in zip(model, shared, strict=False)] == [True] * 3
        assert model[-1].weight_hh_l0 is model[-1].weight_hh_l0
    torch.testing.assert_close(shared, [m.weight for m in twin[:3]])
    with spectral_norm_step(nn.Linear(3, 3)), spectral_norm_step(nn.Identity()):
        pass
    with pytest.raises(TypeError, match="model: expected a module, got list"):
        spectral_norm_step([model]).__enter__()


class Half(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def test_other_parametrizations(impl):
    """A parametrization after the norm gets the shared weight; one before it prevents sharing."""
    for before in (False, True):
        layer = nn.Linear(6, 5)
        if before:
            parametrize.register_parametrization(layer, "weight", Half())
        gf.spectral_norm(layer)
        if not before:
            parametrize.register_parametrization(layer, "weight", Half())
        u = layer.parametrizations.weight[int(before)]._u
        with spectral_norm_step(layer):
            vector = u.clone()
            layer(torch.randn(2, 6)).sum().backward()
            assert torch.equal(u, vector) != before


def test_copies_and_replicas_are_outside():
    model = discriminator()
    with spectral_norm_step(model):
        twin = copy.deepcopy(model)
        assert twin[0].weight is not twin[0].weight
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        parameters = {k: p.detach().clone() * 2 for k, p in model.named_parameters()}
        x = samples(3)
        out = torch.func.functional_call(model, parameters, x)
        assert not torch.allclose(out, model(x))
        assert model[0].weight is model[0].weight
        norm = model[0].parametrizations.weight[0]
        norm = pickle.loads(pickle.dumps(norm))
        weight = model[0].parametrizations.weight.original
        assert norm(weight) is not norm(weight)


def test_state_survives_a_file():
    """Also for a model under torch's parametrization."""
    model = discriminator()
    loaded = discriminator(parametrizations.spectral_norm)
    loaded.load_state_dict(pickle.loads(pickle.dumps(model.state_dict())))
    x = samples(3)
    torch.testing.assert_close(loaded(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_and_back(dtype):
    model = discriminator().to(dtype)
    if dtype == torch.float16:
        model.double().half()
    x = samples(3).to(dtype)
    with spectral_norm_step(model):
        model(x).float().square().mean().backward()
    assert all(p.dtype == dtype and torch.isfinite(p.grad).all() for p in model.parameters())
    assert model[0].weight.dtype == dtype


def test_meta_device_then_values(impl):
    with torch.device("meta"):
        model = gf.SNConv2d(3, 4, 3)
    assert model.weight.is_meta
    with spectral_norm_step(model):
        assert model.weight is model.weight
    model.to_empty(device="cpu").load_state_dict(gf.SNConv2d(3, 4, 3).state_dict())
    with spectral_norm_step(model):
        model(torch.randn(2, 3, 5, 5)).sum().backward()
    assert torch.isfinite(model.parametrizations.weight.original.grad).all()


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing(reentrant):
    """The backward is inside the block, so that the recomputed forward finds the same weights."""
    grads = []
    for checkpointed in (True, False):
        model, x = discriminator(), samples(3).requires_grad_()
        torch.manual_seed(1)
        with spectral_norm_step(model):
            if checkpointed:
                y = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=reentrant)
            else:
                y = model(x)
            y.square().sum().backward()
        grads.append([x.grad, *(p.grad for p in model.parameters())])
    torch.testing.assert_close(grads[0][1:], grads[1][1:])


def test_compiled_model(impl):
    """The graph breaks where the shared weights are looked up, and the numbers are right."""
    torch.compiler.reset()
    model, x = discriminator(), samples(3)
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, backend="eager")
    compiled(x)
    twin(x)
    for _ in range(2):
        with spectral_norm_step(model):
            after = buffers(model)
            out = compiled(x) + compiled(x)
            torch.testing.assert_close(buffers(model), after, rtol=0, atol=0)
        with spectral_norm_step(twin):
            torch.testing.assert_close(out, 2 * twin(x))
    torch.testing.assert_close(compiled(x), twin(x))


@pytest.mark.slow
def test_two_processes_with_buffers_broadcast(tmp_path):
    script = Path(__file__).with_name("distributed_spectral_norm.py")
    command = [sys.executable, str(script)]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [rank.communicate(timeout=300)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(outputs)

"""accelerate and to_torch: the same tensors and numbers before and after."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils.parametrizations import _SpectralNorm as TorchSpectralNorm

import ganlstm_fast as gf
from ganlstm_fast.nn.spectral_norm import SpectralNorm

new_spectral_norm = parametrizations.spectral_norm


class Critic(nn.Module):
    """A critic of torch's layers alone: (B, T, 3) -> (B,)."""

    def __init__(self, norm: Callable[..., nn.Module] = new_spectral_norm) -> None:
        super().__init__()
        self.conv = norm(nn.Conv1d(3, 4, 3, padding=1))
        self.lstm = nn.LSTM(4, 5, num_layers=2, bidirectional=True, batch_first=True, dropout=0.2)
        self.cell = nn.LSTMCell(10, 3)
        self.head = norm(nn.Linear(3, 1))

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(self.conv(x.transpose(1, 2)).tanh().transpose(1, 2))
        return self.head(self.cell(y.mean(1))[0]).squeeze(1)


def _critic(norm: Callable[..., nn.Module] = new_spectral_norm) -> Critic:
    torch.manual_seed(3)
    return Critic(norm).double()


def _input(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 6, 3, dtype=torch.float64, generator=generator)


def _steps(model: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> list[Tensor]:
    """WGAN-GP steps; their losses."""
    losses = []
    for seed in seeds:
        torch.manual_seed(seed)
        optimizer.zero_grad()
        real, fake = _input(seed), _input(seed + 1000)
        loss = model(fake).mean() - model(real).mean()
        loss = loss + gf.gradient_penalty(model, real, fake)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def test_an_optimiser_made_before_goes_on_with_the_same_losses() -> None:
    model, twin = _critic(), _critic()
    optimizers = [torch.optim.Adam(m.parameters(), 1e-2) for m in (model, twin)]
    torch.testing.assert_close(
        _steps(model, optimizers[0], range(3)), _steps(twin, optimizers[1], range(3))
    )
    parameters, buffers = list(twin.parameters()), list(twin.buffers())
    keys = list(twin.state_dict())
    report = gf.accelerate(twin)
    assert len(report.changed) == 4
    assert not report.left_alone
    assert all(a is b for a, b in zip(parameters, twin.parameters(), strict=True))
    assert all(a is b for a, b in zip(buffers, twin.buffers(), strict=True))
    assert list(twin.state_dict()) == keys
    assert type(twin.lstm) is gf.FastLSTM
    assert type(twin.cell) is gf.FastLSTMCell
    assert type(twin.conv.parametrizations.weight[0]) is SpectralNorm
    ours, torchs = (
        _steps(m, o, range(3, 9)) for m, o in zip((twin, model), optimizers, strict=True)
    )
    torch.testing.assert_close(ours, torchs, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(twin.state_dict(), model.state_dict(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", [new_spectral_norm, old_spectral_norm])
def test_round_trip(norm: Callable[..., nn.Module], training: bool) -> None:
    model, x = _critic(norm), _input()
    _steps(model, torch.optim.SGD(model.parameters(), 0.1), range(2))
    model.train(training)
    twin = copy.deepcopy(model) if norm is new_spectral_norm else _critic(norm).train(training)
    twin.load_state_dict(model.state_dict())
    gf.accelerate(twin)
    gf.to_torch(twin)
    assert not any("ganlstm" in type(m).__module__ for m in twin.modules())
    assert not any(isinstance(m, (gf.FastLSTM, gf.FastLSTMCell)) for m in twin.modules())
    if norm is new_spectral_norm:
        torch.testing.assert_close(twin.state_dict(), model.state_dict(), rtol=0, atol=0)
        for a, b in zip(twin.modules(), model.modules(), strict=True):
            assert vars(a).keys() == vars(b).keys()
            assert type(a).__name__ == type(b).__name__
            assert len(a._load_state_dict_pre_hooks) == len(b._load_state_dict_pre_hooks)
    if training and norm is new_spectral_norm:
        torch.manual_seed(0)
        expected = model(x)
        torch.manual_seed(0)
        assert torch.equal(twin(x), expected)
    else:
        assert torch.equal(twin.eval()(x), model.eval()(x))


def test_the_older_spectral_norm() -> None:
    model, x = _critic(old_spectral_norm), _input()
    model.head.weight_orig.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    _steps(model, optimizer, range(2))
    expected, old_state = model.eval()(x).detach(), copy.deepcopy(model.state_dict())
    parameters, buffers = set(model.parameters()), set(model.buffers())
    grads = {p: p.requires_grad for p in parameters}
    report = gf.accelerate(model)
    assert set(model.parameters()) == parameters
    assert set(model.buffers()) == buffers
    assert {p: p.requires_grad for p in model.parameters()} == grads
    torch.testing.assert_close(model(x), expected)
    assert "older" in str(report)
    for layer in (model.conv, model.head):
        assert not layer._forward_pre_hooks
        assert not layer._state_dict_hooks
        assert "weight" not in vars(layer)
        assert not layer.parametrizations.weight.unsafe
    # From here on it is torch's newer spectral norm.
    rival = _critic()
    assert set(model.state_dict()) == set(rival.state_dict())
    rival.load_state_dict(model.state_dict())
    rival.head.parametrizations.weight.original.requires_grad_(False)
    ours = _steps(model.train(), optimizer, range(2, 5))
    torchs = _steps(rival, torch.optim.SGD(rival.parameters(), 0.1), range(2, 5))
    torch.testing.assert_close(ours, torchs)
    model.load_state_dict(old_state)
    torch.testing.assert_close(model.eval()(x), expected)


def test_nothing_iterates_and_nothing_is_drawn() -> None:
    for norm in (new_spectral_norm, old_spectral_norm):
        model = _critic(norm)
        values = sorted(b.sum().item() for b in model.buffers())
        state = torch.get_rng_state()
        gf.accelerate(model)
        gf.to_torch(model)
        assert sorted(b.sum().item() for b in model.buffers()) == values
        assert torch.equal(torch.get_rng_state(), state)


def _with_norms(norm: Callable[..., Any]) -> nn.LSTM:
    lstm = nn.LSTM(3, 4, num_layers=2, dtype=torch.float64)
    for name in ("weight_ih_l0", "weight_hh_l0", "weight_hh_l1"):
        norm(lstm, name)
    return lstm


def _old_weight_norm(module: nn.Module, name: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(module, name)


NORMS = {
    "spectral": new_spectral_norm,
    "older spectral": old_spectral_norm,
    "weight": parametrizations.weight_norm,
    "older weight": _old_weight_norm,
    "orthogonal": parametrizations.orthogonal,
}


@pytest.mark.parametrize("norm", NORMS)
def test_lstm_under_a_norm(norm: str) -> None:
    """Outputs and gradients equal torch's, and the parameters are the same tensors."""
    torch.manual_seed(1)
    model = _with_norms(NORMS[norm])
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    model.eval()

    def run() -> list[Tensor]:
        y = model(x)[0]
        return [y.detach(), *torch.autograd.grad(y.square().sum(), parameters)]

    parameters = list(model.parameters())
    expected = run()
    report = gf.accelerate(model)
    assert isinstance(model, gf.FastLSTM)
    assert set(model.parameters()) == set(parameters)
    torch.testing.assert_close(run(), expected)
    if "weight" not in norm:
        torch.testing.assert_close(copy.deepcopy(model)(x)[0], expected[0])
    assert report.changed[0].module == ""
    gf.to_torch(model)
    assert not isinstance(model, gf.FastLSTM)
    torch.testing.assert_close(run(), expected)


def test_lstm_under_spectral_norm_in_training() -> None:
    """The same numbers inside cached(), where torch also iterates once."""
    model = _with_norms(new_spectral_norm)
    twin = copy.deepcopy(model)
    gf.accelerate(twin)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    for _ in range(3):
        with parametrize.cached():
            expected = model(x)[0]
        torch.testing.assert_close(twin(x)[0], expected)
    torch.testing.assert_close(twin.state_dict(), model.state_dict())


def test_the_deepcopy_of_a_converted_model_and_the_conversion_of_a_deepcopy() -> None:
    model, x = _critic(), _input()
    twin = copy.deepcopy(model)  # shares the classes that parametrize made
    gf.accelerate(twin)
    third = copy.deepcopy(twin)
    gf.to_torch(third)
    assert type(model.lstm) is type(third.lstm) is nn.LSTM
    assert type(twin.lstm) is gf.FastLSTM
    assert isinstance(model.conv.parametrizations.weight[0], TorchSpectralNorm)
    outputs = [m.eval()(x) for m in (model, twin, third)]
    torch.testing.assert_close(outputs[1], outputs[0])
    assert torch.equal(outputs[2], outputs[0])
    third.load_state_dict(twin.state_dict())

    lstm = new_spectral_norm(nn.LSTM(3, 4), "weight_hh_l0")
    copied = copy.deepcopy(lstm)
    gf.accelerate(copied)
    parametrize.remove_parametrizations(copied, "weight_hh_l0")
    assert type(copied) is gf.FastLSTM
    assert type(lstm).__name__ == "ParametrizedLSTM"
    lstm(torch.randn(2, 1, 3))


def test_hooks_and_modes_stay() -> None:
    model = _critic(old_spectral_norm)
    seen: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: seen.append(name))
    model.conv.register_forward_pre_hook(lambda *_: seen.append("before conv"))
    model.lstm.eval()
    model(_input())
    before, modes = list(seen), {n: m.training for n, m in model.named_modules()}
    seen.clear()
    gf.accelerate(model)
    model(_input())
    assert seen == before
    after = {n: m.training for n, m in model.named_modules()}
    assert {n: after[n] for n in modes} == modes
    assert after["conv.parametrizations.weight.0"]


def test_shared_modules_and_tied_weights() -> None:
    lstm = nn.LSTM(3, 3)
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    model = nn.ModuleList([lstm, lstm, old_spectral_norm(first), old_spectral_norm(second)])
    report = gf.accelerate(model)
    assert [c.module for c in report] == ["0", "2", "3"]
    assert model[0] is model[1] is lstm
    weights = [m.parametrizations.weight.original for m in (first, second)]
    assert weights[0] is weights[1]
    tied = nn.LSTM(4, 4)
    tied.weight_hh_l0 = tied.weight_ih_l0
    gf.accelerate(tied)
    tied(torch.randn(5, 2, 4))[0].sum().backward()
    assert tied.weight_hh_l0 is tied.weight_ih_l0


class OwnLSTM(nn.LSTM):
    pass


class OwnLayer(gf.SNLinear):
    pass


def test_what_is_left_alone_is_reported() -> None:
    patched = nn.LSTM(3, 4)
    patched.forward = patched.forward
    gru = old_spectral_norm(nn.GRU(3, 4), "weight_hh_l0")
    complex_layer = new_spectral_norm(nn.Linear(3, 4, dtype=torch.complex64))
    model = nn.ModuleDict(
        {
            "own": OwnLSTM(3, 4),
            "patched": patched,
            "projected": nn.LSTM(3, 4, proj_size=2),
            "gru": gru,
            "complex": complex_layer,
            "no eps": new_spectral_norm(nn.Linear(3, 4), eps=0.0),
            "plain": nn.Linear(3, 4),
        }
    )
    types = [type(m) for m in model.modules()]
    report = gf.accelerate(model)
    assert [type(m) for m in model.modules()] == types
    assert not report.changed
    notes = {change.module: change.note for change in report.left_alone}
    assert set(notes) == {"own", "patched", "projected", "gru", "complex", "no eps"}
    assert [str(change) for change in report if change.module == "gru"] == [
        "gru: spectral norm of weight_hh_l0 (torch) (the older, a hook), left alone: this layer "
        "would read the weight, and so iterate, several times a forward",
        "gru: torch.nn.GRU, left alone: there is no kernel for it, only for LSTM and LSTMCell",
    ]
    assert "derive it from FastLSTM" in notes["own"]
    assert "eps: expected a positive number" in notes["no eps"]
    gru(torch.randn(2, 1, 3))

    back = nn.ModuleDict(
        {
            "own": OwnLayer(3, 4),
            "conv": gf.SNConv1d(2, 3, 3, norm="conv", input_size=8),
            "patched": gf.FastLSTM(3, 4),
        }
    )
    back["patched"].forward = back["patched"].forward
    report = gf.to_torch(back)
    assert {c.module for c in report.left_alone} == {"own", "conv", "patched"}
    assert type(back["patched"]) is gf.FastLSTM


class Mimicrys(nn.Linear):
    """With a spectral norm of its own, as torch_mimicry's layers."""

    def __init__(self) -> None:
        super().__init__(3, 4)
        self.register_buffer("sn_u", torch.ones(1, 4))


@pytest.mark.filterwarnings("ignore:.*(deprecated|quantize)")
def test_recurrent_layers_and_norms_without_a_kernel_are_reported() -> None:
    quantized = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.LSTM(3, 4)), {nn.LSTM})
    left = {
        "gru": nn.GRU(3, 4),
        "rnn": nn.RNN(3, 4),
        "gru cell": nn.GRUCell(3, 4),
        "rnn cell": nn.RNNCell(3, 4),
        "quantized": quantized[0],
        "scripted": torch.jit.script(nn.LSTM(3, 4)),
        "weight norm": parametrizations.weight_norm(nn.Linear(3, 4)),
        "older weight norm": _old_weight_norm(nn.Linear(3, 4), "weight"),
        "mimicry's": Mimicrys(),
    }
    plain = {"linear": nn.Linear(3, 4), "norm": nn.BatchNorm1d(4), "ours": gf.SNLinear(3, 4)}
    report = gf.accelerate(nn.ModuleDict({**left, **plain}))
    assert [change.module for change in report.left_alone] == list(left)
    assert all(change.note for change in report.left_alone)
    assert str(report).startswith("0 converted, 9 left alone\ngru: torch.nn.GRU, left alone: ")


def test_to_torch_of_every_layer() -> None:
    model = nn.ModuleList(
        [
            gf.FastLSTM(3, 4, recompute=True),
            gf.SNLSTM(3, 4, num_layers=2),
            gf.FastLSTMCell(3, 4),
            gf.SNConv1d(2, 3, 3),
            gf.SNConv2d(2, 3, 3),
            gf.SNConv3d(2, 3, 3),
            gf.SNConvTranspose1d(2, 3, 3),
            gf.SNConvTranspose2d(2, 3, 3),
            gf.SNConvTranspose3d(2, 3, 3),
            gf.SNLinear(3, 4),
            gf.SNEmbedding(5, 4),
            gf.spectral_norm(nn.Linear(3, 4), "bias"),
            gf.remove_spectral_norm(gf.SNLinear(3, 4)),
        ]
    ).eval()
    state = copy.deepcopy(model.state_dict())
    weights = [m.weight.detach().clone() for m in model[3:]]
    report = gf.to_torch(model)
    assert not report.left_alone
    assert "recompute=True is lost" in str(report)
    for module in model.modules():
        assert "ganlstm" not in type(module).__module__
        assert not any("ganlstm" in c.__module__ for c in type(module).__mro__)
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    for module, weight in zip(model[3:], weights, strict=True):
        torch.testing.assert_close(module.weight, weight)
    model[1](torch.randn(5, 2, 3))
    model[11].bias.sum().backward()


def test_the_report_reads_well() -> None:
    model = nn.Sequential(new_spectral_norm(nn.Linear(3, 4)), nn.LSTM(4, 5), OwnLSTM(5, 4))
    assert str(gf.accelerate(model)).splitlines() == [
        "2 converted, 1 left alone",
        "0: spectral norm of weight (torch) -> spectral norm of weight (ganlstm_fast)",
        "1: torch.nn.LSTM -> ganlstm_fast.FastLSTM",
        "2: tests.OwnLSTM, left alone: a subclass may have a forward of its own; derive it "
        "from FastLSTM",
    ]
    assert str(gf.accelerate(nn.Linear(3, 4))) == "0 converted, 0 left alone"
    assert "(the model): torch.nn.LSTM -> ganlstm_fast.F" in str(gf.accelerate(nn.LSTM(3, 4)))
    assert len(gf.accelerate(model)) == 1  # of OwnLSTM again


def test_errors() -> None:
    class FSDPModule:
        pass

    class FSDPLinear(FSDPModule, nn.Linear):
        pass

    for convert in (gf.accelerate, gf.to_torch):
        with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got list"):
            convert([nn.LSTM(3, 4)])
        with pytest.raises(ValueError, match="model: expected one that FSDP has not sharded yet"):
            convert(nn.Sequential(nn.LSTM(3, 4), FSDPLinear(3, 4)))


def test_export_after_to_torch() -> None:
    sn_lstm = nn.Sequential(gf.SNLSTM(3, 4, batch_first=True))
    for model in (_critic(), sn_lstm.double()):
        x = _input()
        gf.accelerate(model)
        expected = model.eval()(x)
        gf.to_torch(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # export's, about torch.nn.LSTM's own list of weights
            program = torch.export.export(model, (x,))
        torch.testing.assert_close(program.module()(x), expected)
        assert not any("ganlstm" in str(node.target) for node in program.graph.nodes)


def test_onnx_after_to_torch(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    model, x = _critic().eval(), _input()
    gf.accelerate(model)
    gf.to_torch(model)
    torch.onnx.export(model.float(), (x.float(),), tmp_path / "critic.onnx", dynamo=True)
    assert (tmp_path / "critic.onnx").stat().st_size > 0


@pytest.mark.slow
def test_inside_distributed_data_parallel(tmp_path: Path) -> None:
    program = Path(__file__).with_name("distributed_penalty.py")
    workers = [
        subprocess.Popen(
            [sys.executable, str(program), "ddp-accelerated", str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        output, _ = worker.communicate(timeout=180)
        assert worker.returncode == 0, output

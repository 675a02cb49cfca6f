"""SNLSTM: torch's LSTM under torch's spectral norm, to second order; one iteration a forward."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import pack_padded_sequence

import ganlstm_fast as gf

OPTIONS = [
    pytest.param({}, id="plain"),
    pytest.param({"num_layers": 2, "bidirectional": True, "batch_first": True}, id="stacked"),
    pytest.param({"bias": False, "num_layers": 2}, id="no bias"),
    pytest.param({"proj_size": 2, "num_layers": 2, "bidirectional": True}, id="projected"),
]


class TorchSNLSTM(nn.LSTM):
    """torch's LSTM under its spectral norm; inside cached() each weight iterates once a forward."""

    def __init__(self, *args: Any, n_power_iterations: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in list(self._flat_weights_names):
            if "weight_ih" in name or "weight_hh" in name:
                parametrizations.spectral_norm(self, name, n_power_iterations)

    def forward(self, *args: Any) -> Any:
        with parametrize.cached():
            return super().forward(*args)


def _pair(dtype: torch.dtype = torch.float64, **options: Any) -> tuple[gf.SNLSTM, TorchSNLSTM]:
    ours = gf.SNLSTM(3, 4, dtype=dtype, **options)
    torchs = TorchSNLSTM(3, 4, dtype=dtype, **options)
    assert list(ours.state_dict()) == list(torchs.state_dict())
    torchs.load_state_dict(ours.state_dict())
    return ours, torchs


def _input(layer: nn.LSTM) -> Tensor:
    shape = (2, 5) if layer.batch_first else (5, 2)
    return torch.randn(*shape, 3, dtype=torch.float64)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_equals_torch_to_second_order(
    options: dict[str, Any], packed: bool, training: bool
) -> None:
    ours, torchs = _pair(n_power_iterations=2, **options)
    x = _input(ours)

    def second_order(lstm: nn.LSTM) -> list[Tensor | None]:
        lstm.train(training)
        leaf = x.clone().requires_grad_()
        data: Any = leaf
        if packed:
            data = pack_padded_sequence(leaf, [3, 5], lstm.batch_first, enforce_sorted=False)
        y, (h, c) = lstm(data)
        y = y.data if packed else y
        inputs = [leaf, *lstm.parameters()]
        first = torch.autograd.grad(
            y.square().sum() + (h * c[..., : h.size(-1)]).sum(), inputs, create_graph=True
        )
        square = sum((g**2).sum() for g in first)
        return [y, h, c, *first, *torch.autograd.grad(square, inputs, allow_unused=True)]

    for _ in range(2):
        torch.testing.assert_close(second_order(ours), second_order(torchs))
        for a, b in zip(ours.buffers(), torchs.buffers(), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("options", OPTIONS)
def test_one_iteration_a_forward(options: dict[str, Any]) -> None:
    layer = gf.SNLSTM(3, 4, **options)
    counts: dict[str, int] = {}
    for name, chain in layer.parametrizations.items():
        chain[0].register_forward_hook(
            lambda *_, name=name: counts.update({name: counts.get(name, 0) + 1})
        )
    x = _input(layer).float()
    layer(x)
    layer(x, lengths=[5, 2])
    layer(pack_padded_sequence(x, [5, 3], layer.batch_first))
    layer.double().flatten_parameters()
    assert set(counts.values()) == {3}
    weights = [n for n in layer._flat_weights_names if "weight_ih" in n or "weight_hh" in n]
    assert sorted(counts) == sorted(weights)


def test_norms_are_one() -> None:
    layer = gf.SNLSTM(3, 4, num_layers=2, n_power_iterations=100)
    layer(torch.randn(5, 2, 3))
    for name in layer.parametrizations:
        norm = torch.linalg.matrix_norm(getattr(layer.eval(), name), 2).item()
        assert norm == pytest.approx(1, abs=1e-3)


def test_gradient_penalty_equals_torch() -> None:
    """Three calls of the critic before one backward, over steps of an optimiser."""

    class Critic(nn.Module):
        def __init__(self, lstm: nn.LSTM) -> None:
            super().__init__()
            self.lstm = lstm

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x)[0].square().mean((0, 2))

    critics = [Critic(lstm) for lstm in _pair()]
    optimizers = [torch.optim.SGD(c.parameters(), 0.5) for c in critics]
    for _ in range(3):
        real, fake = torch.randn(2, 2, 5, 3, dtype=torch.float64)
        for critic, optimizer in zip(critics, optimizers, strict=True):
            optimizer.zero_grad()
            sequence_first = _TimeMajor(critic)
            loss = sequence_first(fake).mean() - sequence_first(real).mean()
            generator = torch.Generator().manual_seed(0)
            penalty = gf.gradient_penalty(sequence_first, real, fake, generator=generator)
            (loss + penalty).backward()
            optimizer.step()
        for a, b in zip(*(c.parameters() for c in critics), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
            torch.testing.assert_close(a, b)


class _TimeMajor(nn.Module):
    def __init__(self, critic: nn.Module) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, x: Tensor) -> Tensor:
        return self.critic(x.transpose(0, 1))


@pytest.mark.parametrize("options", OPTIONS)
def test_deepcopy_after_training(options: dict[str, Any]) -> None:
    """Also after a change of dtype, when torch's LSTM holds a weight with a graph."""
    layer = gf.SNLSTM(3, 4, **options)
    layer(_input(layer).float())[0].sum().backward()
    layer.double()
    twin = copy.deepcopy(layer)
    x = _input(layer)
    torch.testing.assert_close(layer(x), twin(x), rtol=0, atol=0)
    twin(x)[0].sum().backward()
    layer(x)
    layer(x)
    assert not torch.equal(next(layer.buffers()), next(twin.buffers()))


def test_dtypes_meta_device_and_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = gf.SNLSTM(3, 4, device="meta").to_empty(device="cpu")
        layer.load_state_dict(gf.SNLSTM(3, 4).state_dict())
        layer.flatten_parameters()
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            y, _ = layer.to(dtype)(torch.randn(5, 2, 3).to(dtype))
            y.sum().backward()
            assert y.dtype == dtype
            assert torch.isfinite(y).all()


@pytest.mark.parametrize("options", OPTIONS)
def test_state_dict_exchanges_with_torch(options: dict[str, Any]) -> None:
    ours, torchs = _pair(**options)
    x = _input(ours)
    torchs(x)
    ours.load_state_dict(torchs.state_dict())
    torch.testing.assert_close(ours.eval()(x), torchs.eval()(x))


def test_inside_cached_the_weights_are_shared() -> None:
    layer, x = gf.SNLSTM(3, 4), torch.randn(5, 2, 3)
    with parametrize.cached():
        first = layer(x)[0]
        before = [b.clone() for b in layer.buffers()]
        torch.testing.assert_close(layer(x)[0], first, rtol=0, atol=0)
    torch.testing.assert_close(list(layer.buffers()), before, rtol=0, atol=0)


def test_options_are_checked() -> None:
    layer = gf.SNLSTM(3, 4, n_power_iterations=3, eps=1e-6, recompute=True)
    assert layer.recompute
    for chain in layer.parametrizations.values():
        assert (chain[0].n_power_iterations, chain[0].eps) == (3, 1e-6)
    with pytest.raises(ValueError, match="n_power_iterations: expected a positive integer"):
        gf.SNLSTM(3, 4, n_power_iterations=0)
    with pytest.raises(ValueError, match="eps: expected a positive number"):
        gf.SNLSTM(3, 4, eps=-1.0)


def test_compiles_without_a_break() -> None:
    layer = gf.SNLSTM(3, 4)
    twin = gf.SNLSTM(3, 4)
    twin.load_state_dict(layer.state_dict())
    compiled, x = torch.compile(layer, backend="eager", fullgraph=True), torch.randn(5, 2, 3)
    for _ in range(2):
        torch.testing.assert_close(compiled(x)[0], twin(x)[0])


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    program = Path(__file__).with_name("distributed_penalty.py")
    workers = [
        subprocess.Popen(
            [sys.executable, str(program), "ddp-sn", str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        output, _ = worker.communicate(timeout=180)
        assert worker.returncode == 0, output

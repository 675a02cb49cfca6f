"""Code written for torch's layers takes ours: arguments, whole modules in files, other tools."""

from __future__ import annotations

import copy
import inspect
import io
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import spectral_norm as old_spectral_norm

import ganlstm_fast as gf

TORCHS = {
    gf.SNConv1d: nn.Conv1d,
    gf.SNConv2d: nn.Conv2d,
    gf.SNConv3d: nn.Conv3d,
    gf.SNConvTranspose1d: nn.ConvTranspose1d,
    gf.SNConvTranspose2d: nn.ConvTranspose2d,
    gf.SNConvTranspose3d: nn.ConvTranspose3d,
    gf.SNLinear: nn.Linear,
    gf.SNEmbedding: nn.Embedding,
    gf.FastLSTMCell: nn.LSTMCell,
}


@pytest.mark.parametrize("cls", TORCHS, ids=lambda c: c.__name__)
def test_arguments_are_torchs_and_ours_by_keyword(cls: type[nn.Module]) -> None:
    ours = list(inspect.signature(cls).parameters.values())
    torchs = list(inspect.signature(TORCHS[cls]).parameters.values())
    # Without the annotations: torch's own layers have none for device and dtype.
    rivals = [(p.name, p.kind, p.default) for p in torchs]
    assert [(p.name, p.kind, p.default) for p in ours[: len(torchs)]] == rivals
    assert all(p.annotation is not p.empty for p in ours)
    assert all(p.kind is p.KEYWORD_ONLY for p in ours[len(torchs) :])
    assert len(ours) > len(torchs)


@pytest.mark.parametrize("cls", [*TORCHS, gf.FastLSTM, gf.SNLSTM], ids=lambda c: c.__name__)
def test_a_call_is_torchs(cls: type[nn.Module]) -> None:
    """Type checkers see a ``__call__`` for each class; at run time it would cost a Python frame."""
    assert cls.__call__ is nn.Module.__call__


@pytest.mark.parametrize("cls", [gf.FastLSTM, gf.SNLSTM], ids=lambda c: c.__name__)
def test_arguments_of_an_lstm(cls: type[nn.LSTM]) -> None:
    """torch's layer takes ``*args``; their positions are those of its base class."""
    torchs = [n for n in inspect.signature(nn.RNNBase.__init__).parameters if n != "mode"][1:]
    assert list(inspect.signature(cls).parameters)[: len(torchs)] == torchs
    layer = cls(3, 4, 2, False, True, 0.5, True, 2)
    rival = nn.LSTM(3, 4, 2, False, True, 0.5, True, 2)
    names = ["num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size"]
    assert [getattr(layer, n) for n in names] == [getattr(rival, n) for n in names]


def test_a_users_subclass_has_its_own_arguments() -> None:
    class Mine(gf.SNLinear):
        def __init__(self, size: int) -> None:
            super().__init__(size, size, n_power_iterations=2)

    assert list(inspect.signature(Mine).parameters) == ["size"]
    assert Mine(3).parametrizations.weight[0].n_power_iterations == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.utils.skip_init(gf.SNLinear, 3, 4, dtype=torch.float64),
        lambda: nn.utils.skip_init(gf.FastLSTM, 3, 4, dtype=torch.float64),
        lambda: nn.utils.skip_init(gf.FastLSTMCell, 3, 4, dtype=torch.float64),
    ],
    ids=["SNLinear", "FastLSTM", "FastLSTMCell"],
)
def test_skip_init(make: Callable[[], nn.Module]) -> None:
    layer = make()
    assert {p.dtype for p in layer.parameters()} == {torch.float64}
    assert {p.device.type for p in layer.parameters()} == {"cpu"}


# ---- whole modules in files ----


def _converted(norm: Callable[..., nn.Module]) -> nn.Module:
    model = nn.Sequential(norm(nn.Linear(3, 4)), nn.ReLU(), norm(nn.LSTM(4, 4), "weight_hh_l0"))
    gf.accelerate(model)
    return model


MODULES: dict[str, Callable[[], nn.Module]] = {
    "SNLinear": lambda: gf.SNLinear(3, 4),
    "SNLSTM": lambda: gf.SNLSTM(3, 4, num_layers=2),
    "FastLSTM": lambda: gf.FastLSTM(3, 4, recompute=True),
    "operator": lambda: gf.SNConv1d(3, 4, 2, norm="conv", input_size=5),
    "two norms": lambda: gf.spectral_norm(parametrizations.orthogonal(nn.Linear(3, 4)), "bias"),
    "older, converted": lambda: _converted(old_spectral_norm),
    "newer, converted": lambda: _converted(parametrizations.spectral_norm),
}


def _saved(module: nn.Module) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("name", MODULES)
def test_a_whole_module_in_a_file(name: str) -> None:
    """It trains on as the one that was saved, can be saved again, and copied."""
    module = MODULES[name]()
    x = torch.randn(2, 3, 5) if name == "operator" else torch.randn(6, 2, 3)
    module(x)
    loaded = torch.load(_saved(module), weights_only=False)
    loaded = torch.load(_saved(copy.deepcopy(loaded)), weights_only=False)
    assert list(loaded.state_dict()) == list(module.state_dict())
    for _ in range(2):
        results = []
        for m in (module, loaded):
            y = m(x)
            y = y if isinstance(y, Tensor) else y[0]
            results.append([y, *torch.autograd.grad(y.sin().sum(), list(m.parameters()))])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    with torch.no_grad():
        next(loaded.parameters()).zero_()
    assert next(module.parameters()).any()


def test_a_layer_can_lose_its_norm_after_a_file() -> None:
    loaded = torch.load(_saved(gf.SNLinear(3, 4).eval()), weights_only=False)
    weight = loaded.weight.detach().clone()
    gf.remove_spectral_norm(loaded)
    assert torch.equal(loaded.weight, weight)
    assert type(loaded) is gf.SNLinear


def test_a_file_of_an_earlier_version_loads() -> None:
    """Saved files name this function and its arguments, so neither may change."""
    loaded = torch.load(Path(__file__).with_name("sn_linear.pt"), weights_only=False)
    assert type(loaded).__name__ == "ParametrizedSNLinear"
    weight = loaded.eval().weight.detach()
    torch.testing.assert_close(weight, torch.tensor([[0.5, 0.0], [0.0, 1.0]]), atol=1e-4, rtol=0)
    assert torch.equal(loaded.parametrizations.weight.original, torch.tensor([[1.0, 0], [0, 2.0]]))


def test_files_of_torchs_layers_do_not_name_this_library() -> None:
    model = nn.Sequential(gf.spectral_norm(nn.Linear(3, 4)))
    gf.to_torch(model)
    with pytest.raises(RuntimeError, match="Serialization of parametrized modules"):
        _saved(model)
    parametrize.remove_parametrizations(model[0], "weight")
    assert b"ganlstm_fast" not in _saved(model).getvalue()


def test_spawn_takes_a_module_along() -> None:
    """As DataLoader's workers and torch.multiprocessing.spawn do, from a user's script."""
    result = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("spawned_module.py"))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.stdout == "equal\n", result.stderr


# ---- quantization ----


@pytest.mark.filterwarnings("ignore:torch.ao.quantization:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize(
    ("layer", "torchs"),
    [
        (lambda: gf.FastLSTM(3, 4), nn.LSTM),
        (lambda: gf.FastLSTMCell(3, 4), nn.LSTMCell),
        (lambda: gf.SNLinear(3, 4), nn.Linear),
    ],
    ids=["FastLSTM", "FastLSTMCell", "SNLinear"],
)
def test_quantization_says_what_it_leaves(
    layer: Callable[[], nn.Module], torchs: type[nn.Module]
) -> None:
    quantize = torch.ao.quantization.quantize_dynamic
    model = nn.Sequential(layer()).eval()
    with pytest.warns(UserWarning, match=rf"to_torch\(model\).* makes it an nn.{torchs.__name__}"):
        left = quantize(model, {torchs})
    assert type(left[0]).__name__ == type(model[0]).__name__
    if isinstance(model[0], gf.SNLinear):
        gf.remove_spectral_norm(model[0])
    gf.to_torch(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="ganlstm_fast")
        quantized = quantize(model, {torchs})
    assert "quantized" in type(quantized[0]).__module__

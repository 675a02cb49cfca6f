"""Checkpoints of other spectral norms load, and are saved as torch's parametrization saves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as old_spectral_norm

import ganlstm_fast as gf


class _SNBuffers:
    """A layer that stores sn_u (1, h) and sn_sigma (1,), and iterates v, u also in eval mode."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.register_buffer("sn_u", torch.randn(1, self.weight.shape[0]))
        self.register_buffer("sn_sigma", torch.ones(1))

    def normalized(self) -> Tensor:
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            v = F.normalize(self.sn_u @ matrix)
            u = F.normalize(v @ matrix.t())
        sigma = u @ matrix @ v.t()
        if self.training:
            self.sn_u.copy_(u)
            self.sn_sigma.copy_(sigma.detach()[0])
        return self.weight / sigma


class Conv(_SNBuffers, nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.normalized(), self.bias)


class Linear(_SNBuffers, nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalized(), self.bias)


class Embedding(_SNBuffers, nn.Embedding):
    def forward(self, x: Tensor) -> Tensor:
        return F.embedding(x, self.normalized())


CASES = {
    "conv": (Conv, gf.SNConv2d, (3, 4, 3), lambda: torch.randn(2, 3, 5, 5)),
    "linear": (Linear, gf.SNLinear, (6, 5), lambda: torch.randn(2, 6)),
    "embedding": (Embedding, gf.SNEmbedding, (7, 5), lambda: torch.randint(0, 7, (3, 4))),
}


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("case", CASES)
def test_sn_u_and_sn_sigma_load(case: str, steps: int) -> None:
    theirs, ours, args, make = CASES[case]
    source, x = nn.Sequential(theirs(*args)), make()
    for _ in range(steps):
        source(x)
    state = source.state_dict()
    assert "0.sn_u" in state
    model = nn.Sequential(ours(*args))
    expected_keys = set(model.state_dict())
    model.load_state_dict(state)
    torch.testing.assert_close(model.eval()(x), source.eval()(x))
    # The caller's dictionary stays as it was, and ours saves torch's form.
    assert "0.sn_u" in state
    assert set(model.state_dict()) == expected_keys
    layer = model[0].parametrizations.weight[0]
    for vector in (layer._u, layer._v):
        torch.testing.assert_close(vector.norm(), torch.ones(()))
    torchs = getattr(nn, ours.__name__.removeprefix("SN"))
    rival = parametrizations.spectral_norm(torchs(*args))
    rival.load_state_dict(model[0].state_dict())
    torch.testing.assert_close(rival.eval()(x), source(x))


def test_training_goes_on() -> None:
    """After some iterations both have the same sigma again."""
    theirs, ours, args, make = CASES["conv"]
    source, model, x = theirs(*args), ours(*args), make()
    model.load_state_dict(source.state_dict())
    for _ in range(200):
        a, b = source(x), model(x)
    torch.testing.assert_close(a, b)


def test_what_does_not_fit_is_told_by_load_state_dict() -> None:
    state = Linear(6, 5).state_dict()
    with pytest.raises(RuntimeError, match=r"sn_sigma"):
        gf.SNLinear(6, 5).load_state_dict({**state, "sn_u": torch.randn(1, 4)})
    with pytest.raises(RuntimeError, match=r"size mismatch.*original"):
        gf.SNLinear(7, 5).load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"sn_u"):
        gf.spectral_norm(nn.Linear(6, 5), "weight", dim=1).load_state_dict(
            {k: v for k, v in state.items() if k != "weight"}
        )


def test_a_second_parametrization() -> None:
    """The spectral norm need not be the first of a chain."""
    old = old_spectral_norm(nn.Linear(6, 5))
    layer = parametrizations.spectral_norm(nn.Linear(6, 5))  # any parametrization will do
    gf.spectral_norm(layer)
    state = {k: v for k, v in layer.state_dict().items() if "original" not in k and ".1." not in k}
    layer.load_state_dict({**old.state_dict(), **{k: v for k, v in state.items() if k != "bias"}})
    chain = layer.parametrizations.weight
    torch.testing.assert_close(chain.original, old.weight_orig)
    torch.testing.assert_close(chain[1]._u, old.weight_u)

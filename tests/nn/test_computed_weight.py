"""What is written to a weight under a spectral norm reaches the parameter."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import ganlstm_fast as gf
from tests.nn.weights import largest_singular_value, original

F64 = torch.float64


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: gf.SNLinear(6, 5, dtype=F64),
    "conv": lambda: gf.SNConv2d(2, 4, 3, dtype=F64),
    "transposed": lambda: gf.SNConvTranspose2d(2, 4, 3, dtype=F64),
    "embedding": lambda: gf.SNEmbedding(7, 3, padding_idx=2, dtype=F64),
    "bilinear": lambda: gf.spectral_norm(nn.Bilinear(2, 3, 4, dtype=F64)),
}
TORCHS = {
    "linear": lambda: nn.Linear(6, 5, dtype=F64),
    "conv": lambda: nn.Conv2d(2, 4, 3, dtype=F64),
    "transposed": lambda: nn.ConvTranspose2d(2, 4, 3, dtype=F64),
    "embedding": lambda: nn.Embedding(7, 3, padding_idx=2, dtype=F64),
    "bilinear": lambda: nn.Bilinear(2, 3, 4, dtype=F64),
}


@pytest.mark.parametrize("name", LAYERS)
def test_reset_parameters_draws_what_torchs_layer_draws(name: str) -> None:
    layer, torchs = LAYERS[name](), TORCHS[name]()
    for module in (layer, torchs):
        torch.manual_seed(5)
        module.reset_parameters()
    assert torch.equal(original(layer), torchs.weight)
    if getattr(torchs, "bias", None) is not None:
        assert torch.equal(layer.bias, torchs.bias)
    if name == "embedding":
        assert not original(layer)[2].any()
    # sigma belongs to the new weight at once, as after construction.
    assert 0.9 < largest_singular_value(layer.eval()) < 1.1


OVERWRITES: dict[str, Callable[[Tensor], object]] = {
    "init": lambda w: nn.init.xavier_uniform_(w, 2.0),
    "init of data": lambda w: nn.init.normal_(w.data, 0.0, 0.02),
    "init of detach": lambda w: nn.init.kaiming_normal_(w.detach()),
    "orthogonal": nn.init.orthogonal_,
    "orthogonal data": lambda w: nn.init.orthogonal_(w.data),
    "truncated": lambda w: nn.init.trunc_normal_(w, std=2.0),
    "truncated data": lambda w: nn.init.trunc_normal_(w.data, std=2.0),
    "sparse": lambda w: nn.init.sparse_(w.data, 0.5),
    "eye of data": lambda w: nn.init.eye_(w.data),
    "constant": lambda w: nn.init.constant_(w.data, 0.5),
    "dirac": lambda w: nn.init.dirac_(w.view(5, 3, 2)),
    "copy": lambda w: w.copy_(torch.arange(30.0).view(5, 6)),
    "normal, then in place": lambda w: w.normal_().mul_(0.5).add_(1.0),
    "data replaced": lambda w: setattr(w, "data", torch.ones(5, 6, dtype=F64)),
    "function": lambda w: torch.nn.init.uniform_(w.data.flatten(), 1.0, 2.0),
    "foreach": lambda w: torch._foreach_copy_([w.data], [torch.ones(5, 6, dtype=F64)]),
    "chunks": lambda w: [nn.init.orthogonal_(part) for part in w.chunk(5)],
    "chunks of data": lambda w: [nn.init.normal_(part) for part in w.data.split(2)],
    "rows by index": lambda w: [w.__setitem__(k, float(k)) for k in range(5)],
    "by a mask": lambda w: [
        w.__setitem__(m, 3.0) for m in (torch.eye(5, 6) > 0, torch.eye(5, 6) < 1)
    ],
    "a row, then in place": lambda w: (w.zero_(), w[1].normal_().mul_(2.0)),
    "by names of rows": lambda w: [
        w.index_fill_(0, torch.tensor([0, 2]), 1.5),
        w.data.index_copy_(0, torch.tensor([1, 3]), torch.ones(2, 6, dtype=F64)),
        w.data[4].masked_fill_(torch.ones(6, dtype=torch.bool), 2.0),
    ],
    "out": lambda w: torch.add(torch.ones(5, 6, dtype=F64), 1.0, out=w.data),
}


@pytest.mark.parametrize("block", [1, 2], ids=["held", "accessed again"])
def test_parts_that_are_initialised_one_after_the_other(block: int) -> None:
    """The four gates of an LSTM's recurrent weight, as authors initialise them."""
    layer, plain = gf.SNLSTM(3, 4, dtype=F64), nn.LSTM(3, 4, dtype=F64)
    for lstm in (plain, layer):
        torch.manual_seed(1)
        held = lstm.weight_hh_l0
        for gate in range(4):
            with torch.no_grad():
                weight = held if block == 1 else lstm.weight_hh_l0
                nn.init.orthogonal_(weight[4 * gate : 4 * gate + 4])
    original = layer.parametrizations.weight_hh_l0.original
    torch.testing.assert_close(original, plain.weight_hh_l0)


@pytest.mark.parametrize("write", OVERWRITES)
def test_what_overwrites_the_weight_is_the_new_parameter(write: str) -> None:
    layer = gf.SNLinear(6, 5, dtype=F64)
    plain = nn.Parameter(original(layer).detach().clone())
    for weight in (plain, layer.weight):
        torch.manual_seed(2)
        with torch.no_grad():
            OVERWRITES[write](weight)
    assert torch.equal(original(layer), plain)
    assert original(layer).requires_grad
    assert 0.8 < largest_singular_value(layer.eval()) < 1.2


def _rows(w: Tensor) -> None:
    w[0] = 0.5
    w[2, 1:3] = torch.tensor([1.0, 2.0])
    w.data[3, 1] = 0.25
    w[3, 2].fill_(2.0).mul_(3.0)
    w[1].mul_(2.0)
    w.data.view(-1)[-1:].zero_()
    w.T[1, 2:3].neg_()
    for k, row in enumerate(w.data):
        row.mul_(1.0 + k)
    for part in w.chunk(5):
        part[:, 0].mul_(0.5)


def _centre(w: Tensor) -> None:
    w = w.data
    w -= w.mean(1, keepdim=True)


def _augmented(w: Tensor) -> None:
    data = w.data
    data *= torch.eye(5, 6, dtype=F64)
    data[2] /= 4.0
    w[1] *= 3.0
    w[0] = w[1]
    w[4].copy_(w[3])


# A factor before or after these writes does not change what they do to a plain layer's weight.
CHANGES: dict[str, Callable[[Tensor], object]] = {
    "rows": _rows,
    "by a mask": lambda w: w.__setitem__(torch.eye(5, 6) > 0, 1.0),
    "rows by number": lambda w: w.index_fill_(0, torch.tensor([1, 3]), 2.0),
    "masked": lambda w: w.masked_fill_(torch.eye(5, 6, dtype=torch.bool), 0.0),
    "mask": lambda w: w.data.mul_(torch.eye(5, 6, dtype=F64)),
    "augmented": _augmented,
    "centred": _centre,
    "centred in place": lambda w: w.sub_(w.mean(1, keepdim=True)),
    "function": lambda w: torch.relu_(w.data),
    "in place option": lambda w: nn.functional.leaky_relu(w.data, 0.1, inplace=True),
    "diagonal": lambda w: w.diagonal().mul_(3.0),
    "unflatten": lambda w: w.unflatten(1, (2, 3))[:, 0].zero_(),
    "foreach": lambda w: torch._foreach_mul_([w.data], 2.0),
    "several": lambda w: w.mul_(0.5).neg_().abs_(),
}


@pytest.mark.parametrize("write", CHANGES)
def test_another_write_changes_what_is_seen_and_keeps_the_size(write: str) -> None:
    layer = gf.SNLinear(6, 5, dtype=F64)
    plain = nn.Parameter(original(layer).detach().clone())
    with torch.no_grad():
        for weight in (plain, layer.weight):
            CHANGES[write](weight)
    torch.testing.assert_close(original(layer), plain)
    assert 0.8 < largest_singular_value(layer.eval()) < 1.2


@pytest.mark.parametrize(
    "write",
    [
        lambda w: w.clamp_(-0.1, 0.2),
        lambda w: w.data.add_(1.0),
        lambda w: w.div_(w.norm(dim=1, keepdim=True)).mul_(torch.arange(1.0, 6.0).view(5, 1)),
    ],
    ids=["clamp", "add", "rows of known lengths"],
)
def test_the_layer_computes_with_what_was_seen(write: Callable[[Tensor], object]) -> None:
    """Up to a factor, since the weight is normalised again."""
    layer = gf.SNLinear(6, 5, dtype=F64)
    shown = layer.weight.detach().clone()
    held = layer.weight
    shown.copy_(held)
    with torch.no_grad():
        write(shown)
        write(held)
    assert torch.equal(held, shown)
    used = layer.eval().weight
    torch.testing.assert_close(used / used.norm(), shown / shown.norm())


def test_a_held_weight_shows_what_was_written() -> None:
    layer = gf.SNLinear(6, 5, dtype=F64).eval()
    held = layer.weight
    view = held.data[1:]
    with torch.no_grad():
        nn.init.normal_(held, std=3.0)
    assert torch.equal(held, original(layer))
    assert torch.equal(view, original(layer)[1:])
    assert not torch.equal(layer.weight, held)


def test_reading_is_of_the_normalised_weight() -> None:
    layer = gf.SNLinear(6, 5, dtype=F64).eval()
    with torch.no_grad():
        original(layer).mul_(100.0)
    for read in (layer.weight, layer.weight.data, layer.weight.detach().clone(), layer.weight * 1):
        assert float(torch.linalg.matrix_norm(read.detach(), 2)) == pytest.approx(1.0, abs=0.1)
        assert type(read + 0) is Tensor
        assert type(read.clone()) is Tensor


def test_a_parameter_made_of_a_weight_is_one_of_its_own() -> None:
    layer, other = gf.SNLinear(6, 5, dtype=F64), nn.Linear(6, 5, dtype=F64)
    before = original(layer).detach().clone()
    for value in (layer.weight, layer.weight.data, layer.weight.detach()):
        other.weight = nn.Parameter(value)
        assert type(other.weight) is nn.Parameter
        assert type(copy.deepcopy(other).weight) is nn.Parameter
        optimizer = torch.optim.SGD(other.parameters(), 1.0)
        other(torch.ones(1, 6, dtype=F64)).sum().backward()
        optimizer.step()
        with torch.no_grad():
            other.weight.add_(1.0)
    assert torch.equal(original(layer), before)


def test_data_of_another_kind_is_refused() -> None:
    layer = gf.SNLinear(6, 5)
    with pytest.raises(ValueError, match=r"data: expected \(5, 6\) torch.float32"):
        layer.weight.data = torch.ones(6)
    with pytest.raises(ValueError, match=r"got \(5, 6\) torch.float64"):
        layer.weight.data = torch.ones(5, 6, dtype=F64)


def test_copies_and_files_of_a_weight_hold_plain_tensors() -> None:
    layer = gf.SNLinear(6, 5)
    with torch.no_grad():
        weight = layer.weight
    assert type(copy.deepcopy(weight)) is Tensor
    file = io.BytesIO()
    torch.save({"weight": layer.weight.detach()}, file)
    file.seek(0)
    assert type(torch.load(file, weights_only=True)["weight"]) is Tensor


@pytest.mark.parametrize(
    "write",
    [
        lambda w: w.mul_(2.0),
        lambda w: w.__setitem__(0, 1.0),
        lambda w: w[0].fill_(1.0),
        lambda w: w.view(-1).zero_(),
    ],
    ids=["in place", "a row", "a view", "flat"],
)
def test_a_write_with_a_graph_raises_as_for_a_parameter(write: Callable[[Tensor], object]) -> None:
    layer = gf.SNLinear(6, 5)
    before = original(layer).detach().clone()
    with pytest.raises(RuntimeError, match=r"write under torch.no_grad\(\)"):
        write(layer.weight)
    assert torch.equal(original(layer), before)


class Halved(nn.Module):
    """A parametrization that works in place."""

    def forward(self, weight: Tensor) -> Tensor:
        weight[0] = 0.0
        return weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


def test_with_another_parametrization_a_write_raises() -> None:
    """Nobody knows which parameter gives the value that was written, so the write raises."""
    layer = gf.spectral_norm(nn.Linear(4, 3))
    parametrize.register_parametrization(layer, "weight", Halved())
    before = original(layer).detach().clone()
    with torch.no_grad():
        assert not layer.weight[0].any()
    for write in (layer.reset_parameters, lambda: nn.init.normal_(layer.weight.data)):
        with pytest.raises(RuntimeError, match=r"write to layer.parametrizations.<name>.original"):
            write()
    assert torch.equal(original(layer), before)


def test_a_write_between_forward_and_backward_is_told_or_harmless() -> None:
    """The backward either has the gradients of the forward's weight or raises."""
    layer = gf.SNLinear(6, 5, dtype=F64)
    x = torch.randn(3, 6, dtype=F64, requires_grad=True)
    frozen = copy.deepcopy(layer)
    (expected,) = torch.autograd.grad(frozen(x).square().sum(), x)
    loss = layer(x).square().sum()
    with torch.no_grad():
        layer.weight.normal_()
    (grad,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(grad, expected)

    held = layer.weight
    loss = nn.functional.linear(x, held).square().sum()
    with torch.no_grad():
        held.normal_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_weight_that_is_older_than_its_parameter_is_not_written_to() -> None:
    """A mask applied to a held weight after each step would otherwise undo the steps."""
    layer = gf.SNLinear(6, 5, dtype=F64)
    held = layer.weight
    with torch.no_grad():
        original(layer).add_(1.0)
    after = original(layer).detach().clone()
    with pytest.raises(RuntimeError, match=r"read layer\.weight again"):
        held.data.mul_(1.0)
    assert torch.equal(original(layer), after)
    other, third = layer.weight, layer.weight
    with torch.no_grad():
        other[0] = 1.0
        other[1] = 2.0
        with pytest.raises(RuntimeError, match=r"read layer\.weight again"):
            third[2] = 3.0
        layer.weight.data.mul_(2.0)


def test_numbers_are_formatted() -> None:
    layer = gf.SNLinear(1, 1)
    assert f"{layer.weight.data[0, 0].abs():.2f}" == f"{layer.weight[0, 0].detach().abs():.2f}"
    assert f"{layer.weight.data[0, 0]:.1f}" in ("1.0", "-1.0")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_of_large_weights_in_half_precision(dtype: torch.dtype) -> None:
    layer = gf.SNLinear(300, 300, dtype=dtype)
    with torch.no_grad():
        original(layer).fill_(300.0)
        layer.weight[0] = 1.0
    torch.testing.assert_close(
        original(layer)[1:].float(), torch.full((299, 300), 300.0), rtol=0.02, atol=0
    )


def test_after_another_parametrization_a_write_raises() -> None:
    layer = gf.spectral_norm(parametrizations.weight_norm(nn.Linear(4, 3)))
    with pytest.raises(RuntimeError, match=r"write to layer.parametrizations.<name>.original"):
        nn.init.zeros_(layer.weight.data)

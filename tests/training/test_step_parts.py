"""What a step of training is made of: the averaged weights, and Adam."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils._python_dispatch import TorchDispatchMode

from ganlstm_fast.training import TrainConfig
from ganlstm_fast.training.configs import ForecasterConfig
from ganlstm_fast.training.recipes.adam import Adam
from ganlstm_fast.training.recipes.average import WeightAverage
from ganlstm_fast.training.state import start_run

RUN = {"steps": 4, "hidden": 8, "batch_size": 8, "metrics": "none", "device": "cpu"}


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.Linear(5, 3, dtype=torch.float32))


def both(decay=0.9):
    @torch.no_grad()
    def warmed_up(averages, weights, count):
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(averages, weights, 1 - now)

    return WeightAverage(network(), decay), AveragedModel(network(), multi_avg_fn=warmed_up)


def drift(module):
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.add_(torch.randn(tensor.shape).to(tensor.dtype))


def assert_same(ours, theirs):
    ours, theirs = ours.state_dict(), theirs.state_dict()
    assert list(ours) == list(theirs)
    assert ours._metadata == theirs._metadata
    for name, value in theirs.items():
        assert value.dtype == ours[name].dtype
        assert torch.equal(value, ours[name]), name


def through_a_file(content):
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_the_average_of_a_short_run_has_forgotten_the_first_weights():
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    average = WeightAverage(module, 0.999)
    average.update(module)
    nn.init.zeros_(module.weight)
    left = []
    for _ in range(20000):
        average.update(module)
        left.append(average.module.weight.item())
    assert left[0] == pytest.approx(2 / 11)
    assert 0 < left[99] < 1e-10
    # After so many updates the decay is the given one.
    nn.init.ones_(module.weight)
    average.update(module)
    assert average.module.weight.item() == pytest.approx(1e-3)


@pytest.mark.parametrize("decay", [0.0, 0.05, 0.9])
def test_the_average_is_torchs_to_the_last_bit(decay):
    module = network()
    ours, theirs = both(decay)
    assert_same(ours, theirs)
    for _ in range(5):
        drift(module)
        ours.update(module)
        theirs.update_parameters(module)
        assert_same(ours, theirs)
    # The average shares no tensor with the module.
    drift(module)
    assert_same(ours, theirs)


def test_checkpoints_of_the_average_are_torchs():
    module = network()
    ours, theirs = both()
    for _ in range(3):
        drift(module)
        ours.update(module)
    theirs.load_state_dict(through_a_file(ours.state_dict()))
    assert_same(ours, theirs)
    drift(module)
    theirs.update_parameters(module)
    ours = both()[0]
    ours.load_state_dict(through_a_file(theirs.state_dict()))
    assert ours.count == 4
    drift(module)
    ours.update(module)
    theirs.update_parameters(module)
    assert_same(ours, theirs)
    content = ours.state_dict()
    content["module.9.weight"] = content.pop("module.2.weight")
    with pytest.raises(RuntimeError, match=r"Missing key.*module\.2\.weight.*\n.*module\.9"):
        ours.load_state_dict(content)


@pytest.mark.parametrize(("fused", "decoupled"), [(True, True), (False, False)])
def test_adam_is_torchs_to_the_last_bit(fused, decoupled):
    options = {"lr": 0.1, "betas": (0.5, 0.9), "fused": fused, "weight_decay": 0.1}
    modules = [network(), network()]
    kinds = Adam, torch.optim.AdamW if decoupled else torch.optim.Adam
    own = {"decoupled_weight_decay": True} if decoupled else {}
    ours, theirs = (
        kind(module.parameters(), **options, **(own if kind is Adam else {}))
        for kind, module in zip(kinds, modules, strict=True)
    )
    x = torch.randn(6, 7)
    for step in range(6):
        if step == 3:  # Each optimiser continues from the state that the other saved.
            saved = [through_a_file(part.state_dict()) for part in (theirs, ours)]
            assert saved[0]["param_groups"] == saved[1]["param_groups"]
            ours.load_state_dict(saved[0])
            theirs.load_state_dict(saved[1])
        for module, optimiser in zip(modules, (ours, theirs), strict=True):
            optimiser.zero_grad(set_to_none=True)
            module(x).square().sum().backward()
            optimiser.step()
            assert all(p.grad_fn is None and p.requires_grad for p in module.parameters())
        for a, b in zip(*(module.parameters() for module in modules), strict=True):
            assert torch.equal(a, b)


def test_adam_on_the_cpu_leaves_the_gpu_alone(monkeypatch):
    def asked(optimiser):
        raise RuntimeError("CUDA error: the GPU does not work")

    name = "_accelerator_graph_capture_health_check"
    monkeypatch.setattr(torch.optim.Optimizer, name, asked, raising=False)
    module = network()
    optimiser = Adam(module.parameters())
    module(torch.randn(6, 7)).sum().backward()
    optimiser.step()


class Seen(TorchDispatchMode):
    """The operators that are called in the block, by name."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


# Operators that read a number from the device, and so wait for all its work.
WAITS = ("aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal")


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(**RUN, noise=4, seq_len=6),
        TrainConfig(**RUN, noise=4, seq_len=6, critic="conv", augment=("jitter",), loss="hinge"),
        ForecasterConfig(**RUN, history=9),
    ],
    ids=["lstm-gan", "conv", "lstm-forecaster"],
)
def test_a_step_waits_for_nothing(tmp_path, config):
    state = start_run(config, tmp_path / "r").state
    for _ in range(2):
        with Seen() as seen:
            state.history[state.step] = state.recipe.step(state)
        state.step += 1
        assert len(seen.names) > 20
        assert [name for name in seen.names if name in WAITS] == []


def test_what_waits_is_seen():
    module = network()
    average = copy.deepcopy(both()[1])
    with Seen() as seen:
        average.update_parameters(module)
    assert "aten::_local_scalar_dense" in seen.names or "aten::is_nonzero" in seen.names

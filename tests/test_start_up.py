"""What is loaded when: a command that trains nothing loads no torch, and a step no picture."""

import subprocess
import sys
from pathlib import Path

import numpy as np

import ganlstm_fast
from ganlstm_fast.losses import LOSSES
from ganlstm_fast.training.config import LABELLED_LOSSES, LOSS_NAMES
from ganlstm_fast.training.datasets import digits

# The package without what its __init__ loads.
BARE = """
import sys, types
package = sys.modules["ganlstm_fast"] = types.ModuleType("ganlstm_fast")
package.__path__ = [sys.argv[1]]
from ganlstm_fast.cli import main
from ganlstm_fast.cli_options import build_parser

def ends(*arguments):
    try:
        return main(arguments)
    except SystemExit as error:
        return error.code

assert ends("list") == 0
assert ends("train", "dcgan", "--help") == 0
assert ends("train", "--stepz=3") == 2
loaded = [name for name in ("torch", "numpy", "pandas", "tqdm") if name in sys.modules]
assert not loaded, loaded
"""
STEP = """
import sys
from ganlstm_fast.training import train
from ganlstm_fast.training.configs import DCGANConfig, TrainConfig
from ganlstm_fast.training.recipes.gan import GANRecipe

class Reached(Exception): pass

def step(recipe, state):
    recipe.average.update(recipe.raw.generator)
    for optimiser in (recipe.optimiser_d, recipe.optimiser_g):
        optimiser.zero_grad()
        optimiser.step()
    raise Reached

def loaded():
    return {name for name in sys.argv[2:] if name in sys.modules}

GANRecipe.step = step
for kind, allowed in ((DCGANConfig, set()), (TrainConfig, {"pandas"})):
    try:
        train(kind(metrics="none", device="cpu"), out=f"{sys.argv[1]}/{kind.__name__}")
    except Reached:
        assert loaded() <= allowed, loaded()
    else:
        raise AssertionError
"""
# Each takes from a third of a second to two.
HEAVY = (
    *("pandas", "matplotlib", "sklearn", "scipy", "lightning_fabric"),
    *("torch._dynamo", "torch.distributed.fsdp", "sympy"),
)


def python(code, *arguments):
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_commands_that_train_nothing_load_no_torch():
    python(BARE, Path(ganlstm_fast.__file__).parent)


def test_what_draws_and_scores_is_not_loaded_before_the_first_step(tmp_path):
    python(STEP, tmp_path, *HEAVY)


def test_the_names_of_losses():
    assert tuple(LOSSES) == LOSS_NAMES
    labelled = {name for name, loss in LOSSES.items() if loss.has_real_label}
    assert set(LABELLED_LOSSES) == labelled


def test_digits_are_read_without_scikit_learn(monkeypatch):
    from sklearn.datasets import load_digits

    read = digits._table()
    assert np.array_equal(read[:, :-1], load_digits().data)
    assert np.array_equal(read[:, -1], load_digits().target)
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda name: None)
    assert np.array_equal(read, digits._table())

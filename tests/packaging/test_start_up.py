"""What is loaded when: commands that do not train load no torch, training steps no matplotlib."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ganlstm_fast
from ganlstm_fast.losses import LOSSES
from ganlstm_fast.training import TrainConfig, train
from ganlstm_fast.training.config import LABELLED_LOSSES, LOSS_NAMES
from ganlstm_fast.training.datasets import digits
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.tables import read

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


def loads(start, *arguments, code=0):
    """The modules that a command loads, as ``python -X importtime`` tells them."""
    command = [sys.executable, "-X", "importtime", *start, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


MODULE = ("-m", "ganlstm_fast")
SCRIPT = (str(Path(sys.executable).with_name("ganlstm-fast")),)


@pytest.mark.parametrize("start", [MODULE, SCRIPT])
def test_commands_that_train_nothing_load_no_torch(start):
    if start == SCRIPT and not Path(*start).exists():
        pytest.skip("the package is not installed here")
    for arguments, code in ((["list"], 0), (["train", "dcgan", "--help"], 0), (["tran"], 2)):
        found = loads(start, *arguments, code=code)
        assert "ganlstm_fast.cli" in found
        assert not found & {"torch", "numpy", "pandas", "tqdm"}


def test_a_column_that_is_not_there_loads_no_torch(tmp_path):
    file = tmp_path / "prices.csv"
    file.write_text("day,open,close\n" + "1,2,3\n" * 40)
    for given in ([], [f"--data={file}"]):
        found = loads(MODULE, "train", *given, "--columns=clos", code=2)
        assert "pandas" in found
        assert "torch" not in found
    assert read.read_table(file).frame.shape == (40, 3)
    with pytest.raises(InputError, match="did you mean close"):
        read.require_columns(file, ["clos"])
    # It is read once for both, and again for the next one.
    file.write_text("day,open\n1,2\n")
    assert list(read.read_table(file).frame) == ["day", "open", "close"]
    assert list(read.read_table(file).frame) == ["day", "open"]


def test_generating_loads_no_more_than_it_uses(tmp_path):
    options = {"hidden": 4, "metrics": "none", "device": "cpu", "steps": 1}
    train(TrainConfig(**options), out=tmp_path / "run")
    found = loads(MODULE, "generate", str(tmp_path / "run"), "-n", "2", "--device=cpu")
    assert {"torch", "pandas"} <= found
    assert not found & set(HEAVY) - {"pandas"}


def test_a_package_that_is_run_as_a_module_has_the_names(tmp_path):
    package = tmp_path / "trainer"
    package.mkdir()
    (package / "__init__.py").write_text("from ganlstm_fast import FastLSTM\n")
    (package / "__main__.py").write_text("print(__package__)\n")
    command = [sys.executable, "-m", "trainer"]
    paths = os.pathsep.join((str(tmp_path), str(Path(ganlstm_fast.__file__).parents[1])))
    settings = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=settings)
    assert done.stdout == "trainer\n", done.stderr


def test_the_package_has_its_names_but_in_the_command(tmp_path):
    tried = "import sys; sys.argv = [{!r}]; import ganlstm_fast as g; print(hasattr(g, 'FastLSTM'))"
    for name, has in (("train.py", True), ("", True), ("/usr/bin/ganlstm-fast", False)):
        command = [sys.executable, "-c", tried.format(name)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(has)


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

"""Messages for a mistyped name, or for a setting of another type."""

from pathlib import Path

import numpy as np
import pytest

from ganlstm_fast.cli import main
from ganlstm_fast.training import TrainConfig
from ganlstm_fast.training.errors import InputError


@pytest.mark.parametrize(
    ("arguments", "meant", "help_of"),
    [
        ("trian", "train", ""),
        ("train lstm-gann", "lstm-gan", " train"),
        ("train dcgan --stepz=3", "--steps", " train dcgan"),
        ("train lstm-gan --loss hing", "hinge", " train lstm-gan"),
        ("generate run --outptu made.csv", "--output", " generate"),
        ("train mlp-gan --utterly-other 3", None, " train mlp-gan"),
    ],
)
def test_a_typo_is_answered(arguments, meant, help_of, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments.split())
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    near = f"; did you mean {meant}?" if meant else ""
    assert said.endswith(f"{near}; see ganlstm-fast{help_of} --help\n")
    assert ("did you mean" in said) == (meant is not None)


def test_a_typo_in_a_column_is_answered(tmp_path, capsys):
    options = ("--columns", "temp_max,temp_mim", "--out", str(tmp_path / "run"))
    assert main(("train", "lstm-gan", *options)) == 2
    said = capsys.readouterr().err
    assert "has no column temp_mim; it has date, " in said
    assert said.endswith("did you mean temp_min?\n")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"steps": "a"}, "steps: expected a whole number, got 'a'"),
        ({"steps": True}, "steps: expected a whole number, got True"),
        ({"lr_g": "fast"}, "lr_g: expected a number, got 'fast'"),
        ({"columns": "wind"}, "columns: expected a tuple, got 'wind'"),
        ({"bidirectional": 1}, "bidirectional: expected True or False, got 1"),
        ({"data": 3}, "a pandas DataFrame, a NumPy array or a torch Tensor, got 3"),
        ({"loss": "hing"}, "relativistic-average-lsgan, got hing; did you mean hinge?"),
    ],
)
def test_a_setting_of_another_type(setting, said):
    with pytest.raises(InputError) as error:
        TrainConfig(**setting)
    assert str(error.value).endswith(said)


def test_settings_take_what_stands_for_their_type():
    config = TrainConfig(data=Path("table.csv"), steps=np.int64(3), lr_g=1, columns=["wind"])
    assert (config.steps, config.lr_g) == (3, 1)

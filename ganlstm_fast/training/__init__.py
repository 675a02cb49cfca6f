"""Training of the models of :mod:`ganlstm_fast.models`, from Python.

>>> import pandas as pd
>>> from ganlstm_fast.training import TrainConfig, generate, train
>>> days = pd.date_range("2024-01-01", periods=60)
>>> table = pd.DataFrame({"temperature": [3, 5, 8, 6] * 15, "wind": [3, 1, 2] * 20}, days)
>>> result = train(TrainConfig(data=table, steps=2, metrics="none"), out="runs/table")
>>> list(generate(result.folder, count=1000).columns)
['sample', 'step', 'temperature', 'wind']

Each model has a class of settings in :mod:`ganlstm_fast.training.configs`; ``help(TrainConfig)``
says what they are. ``data`` is the path of a file or folder, or, for models of tables, a DataFrame,
an array or a tensor.

A trained run is used by :func:`generate`, :func:`forecast`, :func:`score`, :func:`classify`,
:func:`translate` and :func:`evaluate_run`, and :func:`load_trained` gives its model. What cannot be
used raises :class:`InputError`, whose message names the setting.

What trains is loaded when it is first used, so that the command's help is quick.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from ganlstm_fast.training.configs import MODELS, TrainConfig
from ganlstm_fast.training.errors import InputError, TrainingError

if TYPE_CHECKING:
    from ganlstm_fast.training.api import TrainResult, train
    from ganlstm_fast.training.outputs import write_series
    from ganlstm_fast.training.using import (
        classify,
        evaluate_run,
        forecast,
        generate,
        load_trained,
        score,
        translate,
    )

_LATER = {
    "TrainResult": "api",
    "classify": "using",
    "evaluate_run": "using",
    "forecast": "using",
    "generate": "using",
    "load_trained": "using",
    "score": "using",
    "train": "api",
    "translate": "using",
    "write_series": "outputs",
}
_EXTRA = ("lightning_fabric", "matplotlib", "pandas", "scipy", "sklearn", "threadpoolctl", "tqdm")

__all__ = [
    "MODELS",
    "InputError",
    "TrainConfig",
    "TrainResult",
    "TrainingError",
    "classify",
    "evaluate_run",
    "forecast",
    "generate",
    "load_trained",
    "score",
    "train",
    "translate",
    "write_series",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Only looked for: importing scikit-learn takes a second, and only some metrics need it.
    missing = [extra for extra in _EXTRA if not _is_there(extra)]
    if missing:
        raise ModuleNotFoundError(
            f"training needs {', '.join(missing)}, which is not installed: "
            'pip install "ganlstm_fast[train]"',
            name=missing[0],
        )
    found = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = found
    return found


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # It was made unavailable in this process.
        return False

"""Training of the models of :mod:`ganlstm_fast.models`, from Python::

from ganlstm_fast.training import TrainConfig, generate, train

result = train(TrainConfig(data="series.csv", steps=2000), out="runs/mine")
print(result.metrics["discriminative_score"])
series, columns = generate(result.folder, count=1000)

Each model has a class of settings in :mod:`ganlstm_fast.training.configs`. What trains is loaded
when it is first used, so that the command's help is quick.
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
    # Looked for and not imported: scikit-learn takes a second, and is needed for some metrics only.
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

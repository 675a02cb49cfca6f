"""Use of a trained run: samples of its generator, and whatever else its model can do.

Each function computes on ``device``: "cpu", "cuda", "cuda:1", ..., or "auto", a GPU if there is
one. The same seed gives other random numbers on another kind of device.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ganlstm_fast.training.checkpoint import load_checkpoint
from ganlstm_fast.training.config import Settings
from ganlstm_fast.training.configs import MODELS, model_of
from ganlstm_fast.training.devices import AUTO, find_device
from ganlstm_fast.training.errors import InputError, did_you_mean
from ganlstm_fast.training.outputs import finish
from ganlstm_fast.training.progress import Bar
from ganlstm_fast.training.recipes.base import Recipe, build
from ganlstm_fast.training.state import resume_run
from ganlstm_fast.training.tables.given import TableLike
from ganlstm_fast.training.trainer import cpu_threads, own_random

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Trained:
    """A model from a checkpoint, in eval mode; a GAN's generator has its averaged weights.

    Attributes:
        recipe: the class of its recipe.
        config: its settings.
        data: the checkpoint's description of the data.
        content: all of the checkpoint.
    """

    recipe: type[Recipe]
    config: Settings
    data: dict[str, Any]
    model: nn.Module
    content: dict[str, Any]

    def __repr__(self) -> str:
        done = f"{self.content['step']} of {self.config.steps} steps"
        where = next(self.model.parameters()).device
        columns = ", ".join(self.data.get("columns", ()))
        return f"{self.name}{columns and f' of {columns}'}: {done}, on {where}\n{self.config!r}"

    @property
    def name(self) -> str:
        """The model's name."""
        return next(n for n, model in MODELS.items() if model.config is type(self.config))

    def able(self, what: str) -> Any:
        """The recipe's function ``what``; raises InputError where its model has none."""
        found = getattr(self.recipe, what, None)
        if found is None:
            able = [n for n, model in MODELS.items() if hasattr(model.load(), what)]
            raise InputError(f"a run of {self.name} cannot {what}; runs of {', '.join(able)} can")
        return found


def load_trained(run: str | Path, device: str = "cpu") -> Trained:
    """The model of a run.

    Args:
        run: the run's folder, or its checkpoint.
        device: where the model is to be; the caller has to bring its inputs there.

    Raises:
        InputError: a checkpoint that cannot be used, or a device that is not there.
    """
    content = load_checkpoint(Path(run))
    found = model_of(content["kind"])
    config, data, recipe = found.config.from_dict(content["config"]), content["data"], found.load()
    where = find_device(device)
    model = build(recipe, config, data)
    try:
        model.load_state_dict(content["model"])
        weights = content.get("best", {}).get("weights")
        if "average" in content:
            if weights is None:
                prefix = "module."
                average = content["average"].items()
                weights = {k.removeprefix(prefix): v for k, v in average if k.startswith(prefix)}
            model.generator.load_state_dict(weights)
        elif weights is not None:
            model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{run}: the checkpoint does not fit its settings: {reason}") from None
    return Trained(recipe, config, data, model.to(where).eval(), content)


def generate(
    run: str | Path,
    count: int,
    seed: int = 0,
    device: str = AUTO,
    *,
    as_tensor: bool = False,
    **given: Any,
) -> pd.DataFrame | Tensor | list[str] | tuple[Tensor, list[str]]:
    """Samples from the generator of a run.

    Example:
        >>> from ganlstm_fast.training import TrainConfig, generate, train
        >>> train(TrainConfig(steps=2, metrics="none"), out="runs/weather").folder
        PosixPath('runs/weather')
        >>> made = generate("runs/weather", count=3)
        >>> made.shape, list(made.columns[:4])
        ((72, 6), ['sample', 'step', 'precipitation', 'temp_max'])
        >>> tensor, columns = generate("runs/weather", count=3, as_tensor=True)
        >>> tensor.shape
        torch.Size([3, 24, 4])

    Args:
        run: the run's folder, or its checkpoint.
        as_tensor: return a tensor and names, of every model.
        given: of models of series and of ``text-gan``: ``seq_len``, the steps of a sample, of any
            number; of ``conditional-lstm-gan``: ``month``, 1 to 12, and ``after``, a table with the
            columns of the run, as :func:`score` takes it, whose last rows the samples follow, of
            the ``series`` of that name where there are several; of ``text-to-image``: ``text``; of
            ``sound-gan``: ``note``, such as A4; of ``cyclegan``: ``images``, a file or a folder of
            them, all of which are translated, and the ``direction``, "a-to-b" or "b-to-a". None is
            the same as left out.

    Returns:
        Of series a DataFrame in the units of the run's data, a row a step: ``sample`` and ``step``,
        both from 1, the time where the samples follow rows whose times are known, and the channels.
        Of texts a list of str. Of others a tensor of float32: images [count, channels, height,
        width], videos [count, frames, channels, height, width], sounds [count, samples].

        With ``as_tensor``: of series [count, steps, channels] float64 and the channels' names; of
        texts the numbers of symbols [count, symbols] int64, of others the same as without, and no
        names.

    Raises:
        InputError: a checkpoint that cannot be used, ``count`` below 1, a device not there, or
            what the run's model is not given.
    """
    found, made = _generated(run, count, seed, device, given)
    if as_tensor:
        return made, found.data.get("columns", [])
    return found.recipe.as_result(made, found.data)


def _generated(
    run: str | Path, count: int, seed: int, device: str, given: dict[str, Any]
) -> tuple[Trained, Tensor]:
    if count < 1:
        raise InputError(f"`count`: expected 1 or more, got {count}")
    found = load_trained(run, device)
    make = found.able("generate")
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if name not in found.recipe.given:
            near = did_you_mean(name, found.recipe.given)
            raise InputError(f"`{name}`: a run of {found.name} does not take {name}{near}")
    with torch.no_grad():
        return found, make(found.model, found.config, found.data, count, seed, **given)


def generate_to(
    run: str | Path,
    count: int = 100,
    output: str | Path | None = None,
    seed: int = 0,
    device: str = AUTO,
    **given: Any,
) -> str | None:
    """Write samples from the generator of a run to a file, or to the standard output.

    The arguments are those of :func:`generate`.

    Returns:
        What was written, in words; None for the standard output.

    Raises:
        InputError: as :func:`generate`, or a file that cannot be written.
    """
    found, made = _generated(run, count, seed, device, given)
    data = found.data | given
    if output is None:
        found.able("write")(sys.stdout, made, data)
        return None
    return f"wrote {output}: {found.able('write')(Path(output), made, data)}"


def score(
    run: str | Path, data: TableLike | None = None, seed: int = 0, device: str = AUTO
) -> pd.DataFrame:
    """How unusual each window of a series is, by a run of ``anomaly``.

    Example:
        >>> from ganlstm_fast.training import score, train
        >>> from ganlstm_fast.training.configs import AnomalyConfig
        >>> settings = {"steps": 2, "search_steps": 1, "planted": 1, "metrics": "none"}
        >>> folder = train(AnomalyConfig(**settings), out="runs/usual").folder
        >>> import numpy as np
        >>> table = score(folder, data=np.random.default_rng(0).random((30, 4)))
        >>> table.shape, table["total"].idxmax() < 7
        ((7, 6), True)

    Args:
        data: a table with the columns of the run: the path of a CSV file, a DataFrame, or an array
            or tensor [rows, channels] or [series, steps, channels], whose channels are those of
            the run in their order; None is what the run was trained on.
        seed: of the search for the noise that makes a window.

    Returns:
        A line a window, by series and time: its series where there are several, ``first_row`` and
        ``last_row`` as rows of the table from 1, the score ``total`` and its parts ``critic`` and
        ``reconstruction``, the higher, the more unusual, and ``flagged``, whether the total is
        above the run's threshold or a column changes that was constant in training. The threshold
        is a quantile of the totals of held-out windows (``threshold_quantile``): by 0.99, the
        default, 1 in 100 usual windows is flagged by construction. The table's ``attrs`` have
        ``threshold``, None where the run has none and flags nothing, and the columns ``changed``.

    Raises:
        InputError: a run or data that cannot be used, or a run of another model.
    """
    found = load_trained(run, device)
    return found.able("score")(found.model, found.config, found.data, data, seed)


def forecast(
    run: str | Path,
    data: TableLike | None = None,
    device: str = AUTO,
    series: str | None = None,
    *,
    quantiles: bool = False,
    as_tensor: bool = False,
) -> pd.DataFrame | tuple[Tensor, list[str]]:
    """What follows a series, by a run of ``lstm-forecaster``.

    Example:
        >>> from ganlstm_fast.training import forecast, train
        >>> from ganlstm_fast.training.configs import ForecasterConfig
        >>> train(ForecasterConfig(horizon=2, steps=2, metrics="none"), out="runs/days").step
        2
        >>> ahead = forecast("runs/days", quantiles=True)
        >>> list(ahead.columns[:5])
        ['date', 'step', 'precipitation_q10', 'precipitation_q50', 'precipitation_q90']
        >>> ahead.date.dt.strftime("%Y-%m-%d").tolist()
        ['2016-01-01', '2016-01-02']

    Args:
        data: a table with the columns of the run, as :func:`score` takes it; None is what the run
            was trained on.
        series: the name of the one to forecast, where there are several.
        quantiles: all that the run was trained for, and not the median only.

    Returns:
        A line a row that is forecast: its time, in the column of dates of the data, where the data
        has one and rows come evenly; its ``step``, from 1; its series where there are several; and
        the values in the units of the data. Quantiles are columns such as ``temp_max_q10``, the
        0.1-quantile of ``temp_max``.

        With ``as_tensor`` [horizon, channels (, quantiles)] float64, and the channels' names.

    Raises:
        InputError: as :func:`score`, or ``quantiles`` of a run that was trained for the mean.
    """
    found = load_trained(run, device)
    able = found.able("forecast")
    made, table = able(found.model, found.config, found.data, data, series, quantiles)
    return (made, found.data["columns"]) if as_tensor else table


def classify(
    run: str | Path, data: TableLike | None = None, device: str = AUTO, texts: Sequence[str] = ()
) -> pd.DataFrame:
    """The classes of sequences, by a run of ``lstm-classifier`` that was trained on a table, or of
    texts, by one of ``text-classifier``.

    Example:
        >>> import pandas as pd
        >>> from ganlstm_fast.training import classify, train
        >>> from ganlstm_fast.training.configs import TextClassifierConfig
        >>> table = pd.DataFrame({"text": ["good"] * 9 + ["bad"] * 9, "label": [1] * 9 + [0] * 9})
        >>> settings = TextClassifierConfig(data=table, steps=2, metrics="none")
        >>> folder = train(settings, out="runs/words").folder
        >>> list(classify(folder, texts=["good", "bad"]).columns)
        ['text', 'class', 'p_0', 'p_1']

    Args:
        data: a table with the columns of the run, as :func:`score` takes it, the label's not
            needed; None is what the run was trained on.
        texts: of ``text-classifier``, in the place of a table.

    Returns:
        A line a sequence: its name or text, its most likely ``class``, and ``p_NAME``, the
        probability of each class.

    Raises:
        InputError: as :func:`score`.
    """
    found = load_trained(run, device)
    able = found.able("classify")
    if not texts:
        return able(found.model, found.config, found.data, data)
    if "symbols" not in found.data:
        raise InputError(f"a run of {found.name} classifies sequences of numbers, not texts")
    if data is not None:
        raise InputError("`data`: expected none beside texts")
    return able(found.model, found.config, found.data, None, texts)


def translate(
    run: str | Path, texts: Sequence[str], device: str = AUTO, picture: str | Path | None = None
) -> list[str]:
    """What each of ``texts`` is in the other column's symbols, by a ``sequence-to-sequence`` run.

    Args:
        picture: a PNG file for where the decoder looked in the first four texts.

    Raises:
        InputError: a text that is empty or has a symbol that the run's data does not have, a run or
            device that cannot be used, or a run of another model.
    """
    found = load_trained(run, device)
    path = None if picture is None else Path(picture)
    return found.able("translate")(found.model, found.config, found.data, texts, path)


def evaluate_run(
    run: str | Path,
    metrics: str = "quick",
    device: str = AUTO,
    progress: type[tqdm] = Bar,
    data: TableLike | None = None,
) -> dict[str, Any]:
    """Score a run's model on the data that it was trained on, and write its files anew.

    Args:
        data: what the run was trained on, if that was a table in memory, which checkpoints do not
            hold, or a file that is elsewhere now.

    Returns:
        What metrics.json then holds.

    Raises:
        InputError: as when a run is resumed.
    """
    changes = {"metrics": metrics, "device": device, "devices": 1, "nodes": 1, "strategy": "auto"}
    given = {} if data is None else {"data": data}
    found = resume_run(Path(run), {**changes, **given})
    state = found.state
    with cpu_threads(state.config.threads), own_random(state.device):
        return finish(found, progress)

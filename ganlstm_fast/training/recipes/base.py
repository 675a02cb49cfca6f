"""What a recipe is."""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ganlstm_fast.training.config import Settings
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.fabric import OneProcess, scaler_of

if TYPE_CHECKING:
    from pathlib import Path

    from lightning_fabric import Fabric

    from ganlstm_fast.training.state import Run, State


# The most samples of each kind that `--metrics quick` judges, where making or judging one takes
# long.
QUICK = 150


class Recipe(ABC):
    """How a model is trained: its data, networks, step, and what a run leaves.

    Args:
        config: the settings.

    Raises:
        InputError: data that cannot be used.

    Attributes:
        columns: names of the numbers that a step returns.
        name: of the data, for the run's folder.
        data: the checkpoint's description of the data: its ``fingerprint``, and all that
            :meth:`model` and the users of a trained model need to know.
        size: how many samples make an epoch.
        notes: warnings about the data for the user.
        found: what was detected about the data, in a few words each.
        given: what ``generate`` takes by keyword beside the count and the seed.
    """

    columns: ClassVar[tuple[str, ...]]
    given: ClassVar[tuple[str, ...]] = ()
    name: str
    data: dict[str, Any]
    size: int
    notes: list[str]
    found: list[str]

    def __init__(self, config: Settings) -> None:
        self.config = config
        self.notes, self.found = [], []

    @staticmethod
    @abstractmethod
    def model(config: Any, data: dict[str, Any]) -> nn.Module:
        """The model, with weights drawn from torch's generator."""

    def untrained(self) -> nn.Module:
        """The model before training; the same seed gives the same weights."""
        return build(type(self), self.config, self.data)

    @abstractmethod
    def describe(self) -> str:
        """The training data, in a few words."""

    @abstractmethod
    def setup(self, fabric: Fabric | OneProcess) -> None:
        """Make networks and optimisers, and move them and the data to the device."""

    @abstractmethod
    def parts(self) -> dict[str, Any]:
        """All objects whose state is saved, by name: ``model`` and what belongs to it."""

    @abstractmethod
    def step(self, state: State) -> Tensor:
        """Train a step.

        Returns:
            [len(columns)], without a graph and on the run's device: nothing waits for it.
        """

    @abstractmethod
    def best_part(self) -> nn.Module:
        """The network whose weights early stopping keeps and samples are made with."""

    @abstractmethod
    def watched(self) -> float:
        """What early stopping watches, the lower the better. Leaves no trace.

        Raises:
            UndefinedScore: it has no value for this data, or for what the model now makes.
        """

    def troubles(self, state: State) -> dict[str, str]:
        """Signs that training goes wrong, by name: lines that the user gets once each."""
        return {}

    def show(self, folder: Path) -> None:
        """Draw the model's present output into the run's folder; called at each checkpoint."""
        return None

    @staticmethod
    def as_result(made: Tensor, data: dict[str, Any]) -> Any:
        """The form in which :func:`~ganlstm_fast.training.generate` returns what was made."""
        return made

    @abstractmethod
    def finish(self, run: Run, progress: Any) -> dict[str, Any]:
        """Write pictures and tables into the run's folder.

        Returns:
            The scores, for :func:`~ganlstm_fast.training.undefined.for_json`; ``told`` has remarks
            on some of them, by name.
        """


def build(recipe: type[Recipe], config: Settings, data: dict[str, Any]) -> nn.Module:
    """The untrained model of a run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return recipe.model(config, data)


def length_of(config: Any, seq_len: int | None) -> int:
    """How many steps to generate: ``seq_len``, or for None as many as were trained on."""
    if seq_len is None:
        return config.seq_len
    if not isinstance(seq_len, numbers.Integral) or seq_len < 1:
        raise InputError(f"`seq_len`: expected a whole number, 1 or more, got {seq_len}")
    return seq_len


def update(
    fabric: Fabric | OneProcess,
    network: nn.Module,
    loss: Tensor,
    optimiser: Optimizer,
    clip: float,
) -> Tensor:
    """Step ``network`` down ``loss``; returns the norm of the gradient before clipping."""
    optimiser.zero_grad(set_to_none=True)
    fabric.backward(loss)
    largest = clip if clip > 0 else math.inf
    norm = fabric.clip_gradients(network, optimiser, max_norm=largest, error_if_nonfinite=False)
    optimiser.step()
    if scaler_of(fabric) is not None:
        # Where the gradient is not finite the scaler has skipped the step, as it should.
        norm = norm.where(norm.isfinite(), 0)
    return norm

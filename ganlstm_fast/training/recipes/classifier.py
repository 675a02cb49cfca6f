"""Classes of sequences."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlstm_fast.models import LSTMClassifier
from ganlstm_fast.nn.masks import zero_padding
from ganlstm_fast.training.configs import ClassifierConfig
from ganlstm_fast.training.data import MinMaxScaler, constant_columns
from ganlstm_fast.training.datasets import (
    Labelled,
    digit_columns,
    digit_rows,
    load_sequences,
    split_by_class,
)
from ganlstm_fast.training.datasets.labelled import HELD_OUT
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.metrics.texts import most_frequent
from ganlstm_fast.training.outputs import trained
from ganlstm_fast.training.pictures import plot_confusion
from ganlstm_fast.training.recipes.series import learnt_columns, ranges, scaler_of
from ganlstm_fast.training.recipes.supervised import SupervisedRecipe
from ganlstm_fast.training.state import Run
from ganlstm_fast.training.tables.given import TableLike, name_of, shown
from ganlstm_fast.training.undefined import check_finite, defined_all

if TYPE_CHECKING:
    import pandas as pd

# With early stopping one sequence in this many is watched instead of trained on.
WATCHED = 6
# Sequences classified at once.
BATCH = 1024


def digest(*tensors: Tensor) -> str:
    """A hash of the values."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


class LabelledRecipe(SupervisedRecipe):
    """Samples with a label each.

    Attributes:
        seen, test: the samples trained on, and those that the scores are computed on.
    """

    seen: Labelled
    test: Labelled

    def take_in(self, train: Labelled, held: Tensor) -> None:
        """Train on ``train``, without those ``held`` [n] bool if something is watched."""
        self.data["fingerprint"] = digest(train.inputs, train.labels)
        self.data["classes"] = list(train.classes)
        self.seen = train.take(~held) if self.config.patience else train
        self.train, self.held = _tensors(self.seen), _tensors(train.take(held))

    def loss(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = network(batch["inputs"], lengths=batch.get("lengths"))
        return F.cross_entropy(logits, batch["labels"])

    def rivals(self) -> dict[str, float]:
        """The accuracy of simple classifiers."""
        return {"accuracy_of_most_frequent_class": most_frequent(self.seen, self.test)}

    def finish(self, run: Run, progress: Any) -> dict[str, Any]:
        """confusion.png, and accuracy and loss on the held-out sequences."""
        chances = chances_of(trained(run), self.test.inputs, self.test.lengths)
        labels, guess = self.test.labels, chances.argmax(1)
        classes = len(self.test.classes)
        confusion = torch.bincount(labels * classes + guess, minlength=classes**2)
        confusion = confusion.view(classes, classes)
        plot_confusion(run.folder / "confusion.png", confusion, self.test.classes)

        def scores() -> dict[str, Any]:
            check_finite("probabilities", chances)
            right = chances[torch.arange(len(labels)), labels]
            return {
                "accuracy": (guess == labels).double().mean().item(),
                "cross_entropy": -right.clamp_min(1e-12).log().mean().item(),
                "confusion": confusion.tolist(),
            }

        names = ("accuracy", "cross_entropy", "confusion")
        return {"count": len(labels), **defined_all(names, scores), **self.rivals()}


class ClassifierRecipe(LabelledRecipe):
    """Sequences of a file, or digits as sequences of their rows or columns of pixels."""

    config: ClassifierConfig
    name = "digits"

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__(config)
        if config.data is None:
            train, self.test = digit_rows() if config.sequences == "rows" else digit_columns()
            self.data = {}
        else:
            train, self.test, self.data = _from_table(config)
            self.name, self.found = name_of(config.data), self.data["notes"]
        self.data["channels"] = train.inputs.shape[2]
        self.take_in(train, torch.arange(len(train)) % WATCHED == WATCHED - 1)

    @staticmethod
    def model(config: ClassifierConfig, data: dict[str, Any]) -> nn.Module:
        return LSTMClassifier(
            data["channels"],
            len(data["classes"]),
            hidden=config.hidden,
            layers=config.layers,
            bidirectional=config.bidirectional,
            dropout=config.dropout,
            attention=config.attention,
        )

    def describe(self) -> str:
        classes = f"{self.size}, {len(self.data['classes'])} classes"
        if self.config.data is None:
            return f"digits as sequences of {self.config.sequences}: {classes}"
        columns = ", ".join(learnt_columns(self.data))
        return f"{self.name}: sequences of {columns}: {classes}; every fifth is held out"

    @staticmethod
    def classify(
        model: LSTMClassifier,
        config: ClassifierConfig,
        data: dict[str, Any],
        given: TableLike | None,
    ) -> pd.DataFrame:
        """A line a sequence: its name, its class, and the probability of each class.

        Args:
            given: the sequences; None: what was trained on.
        """
        given = config.data if given is None else given
        if config.data is None:
            raise InputError("a run of the digits has no columns to find in a table")
        found = load_sequences(
            given,
            config.series_column,
            None,
            data["columns"],
            config.date_column,
            config.fill,
        )
        scaled = zero_padding(scaler_of(data).scale(found.values), found.lengths)
        table = class_table(chances_of(model, scaled, found.lengths), data["classes"])
        table.insert(0, config.series_column, found.names, allow_duplicates=True)
        return table


def chances_of(model: LSTMClassifier, inputs: Tensor, lengths: Tensor | None) -> Tensor:
    """The classes' probabilities [n, classes], on the CPU."""
    where, parts = next(model.parameters()).device, []
    for start in range(0, len(inputs), BATCH):
        rows = slice(start, start + BATCH)
        few = None if lengths is None else lengths[rows]
        parts.append(model.predict_proba(inputs[rows].to(where), lengths=few).cpu())
    return torch.cat(parts)


def class_table(chances: Tensor, classes: list[str]) -> pd.DataFrame:
    """A line a sequence: its most likely class, and the probability of each class."""
    import pandas as pd

    table = pd.DataFrame(chances.numpy(), columns=[f"p_{name}" for name in classes])
    most = [classes[k] for k in chances.argmax(1).tolist()]
    table.insert(0, "class", most, allow_duplicates=True)
    return table


def _from_table(config: ClassifierConfig) -> tuple[Labelled, Labelled, dict[str, Any]]:
    """To train on, held out, and what a checkpoint tells of the columns and their ranges."""
    columns = config.series_column, config.label_column, config.columns, config.date_column
    found = load_sequences(config.data, *columns, config.fill)
    train, test = split_labelled(config.data, found.values, found.labels, found.lengths)
    classes = train.classes
    valid = torch.arange(train.inputs.shape[1]) < train.lengths[:, None]
    scaler = MinMaxScaler.fit(train.inputs[valid])
    rows = found.values[torch.arange(found.values.shape[1]) < found.lengths[:, None]]
    notes = [*found.notes, *constant_columns(found.columns, rows, scaler, config.data)]
    parts = (
        Labelled(zero_padding(scaler.scale(p.inputs), p.lengths), p.labels, classes, p.lengths)
        for p in (train, test)
    )
    return *parts, {"notes": notes, **ranges(found.columns, scaler)}


def split_labelled(
    data: TableLike, inputs: Tensor, labels: Sequence[str], lengths: Tensor
) -> tuple[Labelled, Labelled]:
    """What was read from ``data``, to train on and held out.

    Raises:
        InputError: one class alone, or none that has a sample to hold out.
    """
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise InputError(f"{shown(data)}: expected two classes or more, got {', '.join(classes)}")
    numbers = {name: k for k, name in enumerate(classes)}
    found = torch.tensor([numbers[label] for label in labels])
    train, test = split_by_class(Labelled(inputs, found, classes, lengths))
    if not len(test):
        raise InputError(
            f"{shown(data)}: expected {HELD_OUT} sequences or more of a class, since every "
            f"{HELD_OUT}th is held out"
        )
    return train, test


def _tensors(part: Labelled) -> dict[str, Tensor]:
    found = {"inputs": part.inputs, "labels": part.labels}
    return found if part.lengths is None else {**found, "lengths": part.lengths}

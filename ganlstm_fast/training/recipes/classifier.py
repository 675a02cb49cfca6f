"""Classes of sequences."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlstm_fast.models import LSTMClassifier
from ganlstm_fast.training.configs import ClassifierConfig
from ganlstm_fast.training.datasets import Labelled, digit_columns, digit_rows
from ganlstm_fast.training.outputs import trained
from ganlstm_fast.training.pictures import plot_confusion
from ganlstm_fast.training.recipes.supervised import SupervisedRecipe
from ganlstm_fast.training.state import Run

# Every so manieth sequence is watched and not trained on, if something is watched.
WATCHED = 6


def digest(*tensors: Tensor) -> str:
    """A hash of the values."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


class ClassifierRecipe(SupervisedRecipe):
    """Digits as sequences of their rows or columns of pixels."""

    config: ClassifierConfig
    name = "digits"

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__(config)
        train, self.test = digit_rows() if config.sequences == "rows" else digit_columns()
        self.data = {
            "fingerprint": digest(train.inputs, train.labels),
            "channels": train.inputs.shape[2],
            "classes": list(train.classes),
        }
        held = torch.arange(len(train)) % WATCHED == WATCHED - 1
        self.held = _tensors(train.take(held))
        self.train = _tensors(train.take(~held) if config.patience else train)

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
        return f"digits as sequences of {self.config.sequences}: {self.size}, 10 classes"

    def loss(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = network(batch["inputs"], lengths=batch.get("lengths"))
        return F.cross_entropy(logits, batch["labels"])

    def finish(self, run: Run, progress: Any) -> dict[str, Any]:
        """confusion.png, and accuracy and loss on the held-out sequences."""
        model, test = trained(run), _tensors(self.test)
        where = next(model.parameters()).device
        lengths = test.get("lengths")
        chances = model.predict_proba(test["inputs"].to(where), lengths=lengths).cpu()
        labels, guess = self.test.labels, chances.argmax(1)
        classes = len(self.test.classes)
        confusion = torch.bincount(labels * classes + guess, minlength=classes**2)
        confusion = confusion.view(classes, classes)
        plot_confusion(run.folder / "confusion.png", confusion, self.test.classes)
        right = chances[torch.arange(len(labels)), labels]
        return {
            "count": len(labels),
            "accuracy": (guess == labels).double().mean().item(),
            "cross_entropy": -right.clamp_min(1e-12).log().mean().item(),
            "confusion": confusion.tolist(),
        }


def _tensors(part: Labelled) -> dict[str, Tensor]:
    found = {"inputs": part.inputs, "labels": part.labels}
    return found if part.lengths is None else {**found, "lengths": part.lengths}

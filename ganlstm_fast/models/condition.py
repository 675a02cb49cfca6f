"""Conditions of a generative model: labels, static features, a history."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganlstm_fast.models.sequence import LSTMClass, SequenceEncoder, ValuesAndChanges
from ganlstm_fast.nn import FastLSTM
from ganlstm_fast.nn.masks import Lengths
from ganlstm_fast.ops.validation import check_counts, check_tensor, describe


def check_labels(labels: object, classes: int) -> None:
    """Check that ``labels`` is [batch] int64; on the CPU its values too, 0..classes - 1.

    Raises:
        TypeError: not an int64 tensor. ValueError: another shape, or a value out of range.
    """
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        raise TypeError(f"labels: expected an int64 tensor, got {describe(labels)}")
    if labels.dim() != 1:
        raise ValueError(f"labels: expected shape (batch,), got {tuple(labels.shape)}")
    if labels.device.type == "cpu" and ((labels < 0) | (labels >= classes)).any():
        raise ValueError(f"labels: expected values in 0..{classes - 1}, got {labels.tolist()}")


class ConditionEncoder(nn.Module):
    """One or more conditions -> what a network reads of them, [batch, size].

    Args:
        labels: the number of classes of a label, which is embedded in ``embedding`` numbers.
        features: the number of static features, taken as they are: scale them to about unit size.
        history: the channels of a series in [0, 1] whose last state an LSTM of ``embedding`` units
            gives. 0 turns any of the three off.
        embedding: see above.
        lstm: the layer's class, with the constructor of ``torch.nn.LSTM``.
    """

    def __init__(
        self,
        *,
        labels: int = 0,
        features: int = 0,
        history: int = 0,
        embedding: int = 16,
        lstm: LSTMClass = FastLSTM,
    ) -> None:
        super().__init__()
        check_counts(0, labels=labels, features=features, history=history)
        check_counts(embedding=embedding)
        self.features = features
        self.labels = nn.Embedding(labels, embedding) if labels else None
        self.history = None
        if history:
            prepare = ValuesAndChanges(history)
            encoder = SequenceEncoder(prepare.size, embedding, lstm=lstm)
            self.history = nn.ModuleDict({"prepare": prepare, "encoder": encoder})
        self.size = features + embedding * (bool(labels) + bool(history))

    def forward(
        self,
        *,
        labels: Tensor | None = None,
        features: Tensor | None = None,
        history: Tensor | None = None,
        history_lengths: Lengths | None = None,
    ) -> Tensor | None:
        """Encode the conditions.

        Args:
            labels: [batch] int64.
            features: [batch, features].
            history: [batch, steps, channels]; ``history_lengths`` [batch] for a padded one.

        Returns:
            [batch, size]; None where ``size`` is 0.

        Raises:
            TypeError, ValueError: a condition that is missing, that was not asked for in the
                constructor, or of the wrong shape or type.
        """
        parts = {
            "labels": (labels, self.labels is not None),
            "features": (features, self.features > 0),
            "history": (history, self.history is not None),
        }
        for name, (value, wanted) in parts.items():
            if wanted != (value is not None):
                expected = "a tensor, since the model has it" if wanted else "None"
                raise ValueError(f"{name}: expected {expected}, got {describe(value)}")
        encoded = []
        if labels is not None:
            check_labels(labels, self.labels.num_embeddings)
            encoded.append(self.labels(labels))
        if features is not None:
            check_tensor("features", features, (None, self.features))
            encoded.append(features)
        if history is not None:
            x = self.history["prepare"](history)
            encoded.append(self.history["encoder"](x, history_lengths))
        return torch.cat(encoded, 1) if encoded else None

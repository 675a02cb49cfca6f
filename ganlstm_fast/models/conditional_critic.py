"""A critic of series under a condition."""

from __future__ import annotations

from torch import Tensor, nn

from ganlstm_fast.models.base import normalized
from ganlstm_fast.models.condition import ConditionEncoder, check_labels
from ganlstm_fast.nn.masks import Lengths


class ConditionalCritic(nn.Module):
    """Series [batch, steps, channels] in [0, 1] and a condition -> scores [batch].

    Args:
        body: a critic of series.
        encoder: of the condition that the body reads beside the values of each step; of size 0:
            none.
        classes: of a label that enters by projection: its embedding's product with the body's
            features is added to the score (Miyato and Koyama, 2018, equation 3). 0: none.
        spectral_norm: on that embedding.
    """

    def __init__(
        self, body: nn.Module, encoder: ConditionEncoder, classes: int, spectral_norm: bool
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.body = body
        self.projection = None
        if classes:
            embedding = nn.Embedding(classes, body.size)
            nn.init.xavier_uniform_(embedding.weight)
            self.projection = normalized(embedding, spectral_norm)

    def _split(self, condition: dict[str, Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """The label for the projection, and what the encoder makes of the rest."""
        labels = None
        if self.projection is not None:
            condition = dict(condition)
            labels = condition.pop("labels", None)
            check_labels(labels, self.projection.num_embeddings)
        return labels, self.encoder(**condition)

    def features(
        self, series: Tensor, *, lengths: Lengths | None = None, **condition: Tensor
    ) -> Tensor:
        """The body's features [batch, size]."""
        return self.body.features(series, self._split(condition)[1], lengths=lengths)

    def forward(
        self, series: Tensor, *, lengths: Lengths | None = None, **condition: Tensor
    ) -> Tensor:
        """``condition``: the keyword arguments of the encoder's forward."""
        labels, encoded = self._split(condition)
        if labels is None:
            return self.body(series, encoded, lengths=lengths)
        features = self.body.features(series, encoded, lengths=lengths)
        return self.body.head(features).squeeze(1) + (self.projection(labels) * features).sum(1)

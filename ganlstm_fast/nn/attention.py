"""Attention over the steps of a sequence: a weighted mean of an LSTM's outputs.

Both layers are called as ``pooled, weights = layer(values, query, lengths=lengths)``. Plain PyTorch
operators, differentiable to any order: a gradient penalty can go through them, which it cannot
through ``F.scaled_dot_product_attention``, whose fused kernels have no second derivative.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ganlstm_fast.nn.masks import Lengths, step_mask
from ganlstm_fast.ops.validation import check_counts, check_tensor, describe

if TYPE_CHECKING:
    from ganlstm_fast.nn.drop_in import called_as

__all__ = ["AdditiveAttention", "DotProductAttention", "masked_softmax"]


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the last dimension where ``mask`` is True, exactly zero elsewhere.

    A row without a True is all zeros, and neither it nor its gradient has NaNs. Masked scores have
    a gradient of exactly zero. Differentiable to any order.

    Args:
        scores: (..., T), any floating dtype.
        mask: bool, broadcastable to ``scores``; None masks nothing.
    """
    if mask is None:
        return scores.softmax(-1)
    # Not -inf: softmax would turn a row without a True into NaN.
    masked = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return masked.softmax(-1).masked_fill(~mask, 0)


class _Attention(nn.Module):
    """What the two layers share: their arguments."""

    def __init__(self, features: int, query_features: int | None) -> None:
        super().__init__()
        check_counts(features=features)
        if query_features is not None:
            check_counts(query_features=query_features)
        self.features = features
        self.query_features = query_features

    def forward(
        self,
        values: Tensor,
        query: Tensor | None = None,
        *,
        lengths: Lengths | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Pool ``values`` over its steps.

        Args:
            values: (B, T, features).
            query: (B, query_features), where the layer has ``query_features``, else None; or
                (B, Q, query_features), Q queries of each sequence, such as all steps of a decoder.
            lengths: (B,) integers in 1..T for a padded batch.
            mask: in the place of ``lengths``, bool (B, T), True at the valid steps; a row may have
                none. Other steps are not read (they may hold NaN), and their weights and gradients
                are exactly zero.

        Returns:
            pooled and weights, see the class; both are zero where no step is valid. Of several
            queries both have a dimension Q after the first.

        Raises:
            TypeError, ValueError: an argument of the wrong type or shape, ``lengths`` and ``mask``
                together, a query that is missing or that the layer does not have.
        """
        check_tensor("values", values, (None, None, self.features))
        batch, steps, _ = values.shape
        if self.query_features is not None:
            one = isinstance(query, Tensor) and query.dim() != 3
            check_tensor("query", query, (batch, *([] if one else [None]), self.query_features))
        elif query is not None:
            raise ValueError("query: expected None, since the layer has no query_features")
        if lengths is not None:
            if mask is not None:
                raise ValueError("mask: expected None beside lengths")
            mask = step_mask(lengths, batch, steps, values.device)
        if mask is not None:
            _check_mask(mask, batch, steps)
            values = values.masked_fill(~mask.unsqueeze(2), 0)
            mask = mask.unsqueeze(1)
        if query is not None and query.dim() == 3:
            return self._pool(values, query, mask)
        pooled, weights = self._pool(values, None if query is None else query.unsqueeze(1), mask)
        return pooled.squeeze(1), weights.squeeze(1)

    if TYPE_CHECKING:

        @called_as(forward)
        def __call__(self) -> Any: ...

    def _pool(
        self, values: Tensor, query: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """As the forward, for ``query`` (B, Q, query_features) or None and ``mask`` (B, 1, T)."""
        raise NotImplementedError


def _check_mask(mask: object, batch: int, steps: int) -> None:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"mask: expected a bool tensor, got {describe(mask)}")
    if tuple(mask.shape) != (batch, steps):
        raise ValueError(f"mask: expected shape ({batch}, {steps}), got {tuple(mask.shape)}")


class AdditiveAttention(_Attention):
    """``sum_t a_t h_t`` with ``a = softmax_t(v . tanh(W h_t + U q))`` (Bahdanau et al., 2015).

    Without a query U is absent: the weights depend on each step alone (Raffel and Ellis, 2015).

    Returns of a call: pooled (B, features) and weights (B, T).

    Args:
        features: of ``values``.
        hidden: the size of W h_t; None is ``features``.
        query_features: of the query; None for a layer without one.
    """

    def __init__(
        self, features: int, hidden: int | None = None, *, query_features: int | None = None
    ) -> None:
        super().__init__(features, query_features)
        hidden = features if hidden is None else hidden
        check_counts(hidden=hidden)
        self.key = nn.Linear(features, hidden)
        self.query: nn.Linear | None = None
        if query_features is not None:
            self.query = nn.Linear(query_features, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)

    def _pool(
        self, values: Tensor, query: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        keys = self.key(values).unsqueeze(1)
        if self.query is not None:
            keys = keys + self.query(query).unsqueeze(2)
        weights = masked_softmax(self.score(keys.tanh()).squeeze(3), mask)
        return torch.matmul(weights, values), weights


class DotProductAttention(_Attention):
    """Scaled dot-product attention with several heads (Vaswani et al., 2017).

    Head i pools ``V_i h_t`` with weights ``softmax_t(q_i . K_i h_t / sqrt(features / heads))``; the
    heads stand side by side. The query is ``U q``, or a parameter where there is none. There are no
    biases and no output projection: with one query, a linear layer that follows can already
    represent them.

    Returns of a call: pooled (B, features) and weights (B, heads, T).

    Args:
        features: of ``values``, divisible by ``heads``.
        heads: how many.
        query_features: of the query; None for a learned one.
    """

    def __init__(self, features: int, heads: int = 1, *, query_features: int | None = None) -> None:
        super().__init__(features, query_features)
        check_counts(heads=heads)
        if features % heads:
            raise ValueError(f"heads: expected a divisor of {features} features, got {heads}")
        self.heads = heads
        self.key = nn.Linear(features, features, bias=False)
        self.value = nn.Linear(features, features, bias=False)
        self.query: nn.Parameter | nn.Linear
        if query_features is None:
            self.query = nn.Parameter(torch.randn(features))
        else:
            self.query = nn.Linear(query_features, features, bias=False)

    def _pool(
        self, values: Tensor, query: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        size = self.features // self.heads
        per_head = (self.heads, size, self.features)
        q = self.query.view(1, 1, -1) if query is None else self.query(query)
        q = q.unflatten(2, (self.heads, size)) / math.sqrt(size)
        # The projections of keys and values move out of the sums over steps: they are applied to
        # the queries and to what was pooled, not to each step.
        q = torch.einsum("bqhd,hdf->bqhf", q, self.key.weight.view(per_head))
        queries = q.shape[1:3]
        scores = torch.matmul(q.flatten(1, 2), values.transpose(1, 2)).unflatten(1, queries)
        weights = masked_softmax(scores, None if mask is None else mask.unsqueeze(1))
        pooled = torch.matmul(weights.flatten(1, 2), values).unflatten(1, queries)
        pooled = torch.einsum("bqhf,hdf->bqhd", pooled, self.value.weight.view(per_head))
        return pooled.flatten(2), weights

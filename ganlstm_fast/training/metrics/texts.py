"""Simple rivals of models that read texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ganlstm_fast.training.datasets import Labelled


def most_frequent(train: Labelled, test: Labelled) -> float:
    """Accuracy of the class that most samples of ``train`` have."""
    most = torch.bincount(train.labels, minlength=len(train.classes)).argmax()
    return (test.labels == most).double().mean().item()


def symbol_frequencies(train: Labelled, test: Labelled, symbols: int) -> float:
    """Accuracy of a classifier that counts symbols and does not see their order.

    Naive Bayes with add-one smoothing (Manning et al., Introduction to Information Retrieval,
    2008, chapter 13), over padded ``inputs`` [n, steps] int64 with ``lengths``.
    """

    def counts(part: Labelled) -> Tensor:
        found = torch.zeros(len(part), symbols + 1)
        steps = torch.arange(part.inputs.size(1))
        # The padding is counted apart, in the last column.
        inputs = part.inputs.masked_fill(steps >= part.lengths[:, None], symbols)
        found.scatter_add_(1, inputs, torch.ones(inputs.shape))
        return found[:, :symbols]

    seen, classes = counts(train), len(train.classes)
    of_class = torch.stack([seen[train.labels == k].sum(0) for k in range(classes)]) + 1
    chances = (of_class / of_class.sum(1, keepdim=True)).log()
    prior = torch.bincount(train.labels, minlength=classes).double().log()
    guess = (counts(test) @ chances.T + prior).argmax(1)
    return (guess == test.labels).double().mean().item()


def nearest_targets(
    sources: Sequence[str], train: Sequence[tuple[str, str]], group: int = 3, batch: int = 256
) -> list[str]:
    """For each of ``sources`` the target of the pair in ``train`` whose source is most like it.

    By the cosine of the groups of symbols that each has.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, group), use_idf=False)
    known = vectors.fit_transform([source for source, _ in train])
    asked, found = vectors.transform(sources), []
    for start in range(0, len(sources), batch):
        likeness = asked[start : start + batch] @ known.T
        found += [train[k][1] for k in likeness.toarray().argmax(1)]
    return found


def right_symbols(made: Sequence[str], targets: Sequence[str]) -> float:
    """The share of all targets' symbols that the output has in the same place."""
    pairs = zip(made, targets, strict=True)
    right = sum(a == b for one, other in pairs for a, b in zip(one, other, strict=False))
    return right / sum(map(len, targets))

"""Scores of images that were translated from one kind to another, by classifiers of real ones.

The classifiers are scikit-learn's support vector machines with a Gaussian kernel, on pixels;
large images are averaged down to 32 pixels first.
"""

from __future__ import annotations

from typing import Any

import torch
from sklearn.svm import SVC
from torch import Tensor

from ganlstm_fast.training.datasets.labelled import Labelled
from ganlstm_fast.training.metrics.images import ImageClassifier
from ganlstm_fast.training.undefined import defined, defined_for

KINDS = ("a", "b")


def evaluate_translations(
    train: tuple[Labelled, Labelled],
    test: tuple[Labelled, Labelled],
    translated: tuple[Tensor, Tensor],
    back: tuple[Tensor, Tensor],
) -> dict[str, Any]:
    """Whether translations look like the other kind, and still show what they showed.

    Args:
        train, test: real images of kinds a and b [n, channels, size, size] in [-1, 1].
        translated: those of ``test``, a translated to b, and b to a.
        back: these translated back.

    Returns:
        For each direction ``style_a_to_b``, the share that a classifier of both kinds takes for
        the other kind, and, where both kinds have the same classes, ``recognised_a_to_b``, the
        share whose class a classifier of real images of the other kind recognises: of
        ``generated`` (translated), of ``untranslated`` ones, and of held-out ``real`` ones of the
        other kind. ``cycle_error_a`` and ``cycle_error_b``: the mean absolute difference of images
        and what came back, from 0 to 2.
    """
    found: dict[str, Any] = {}
    both = Labelled(torch.cat([k.inputs for k in train]), _kinds(*map(len, train)), KINDS)
    style = defined(lambda: ImageClassifier.fit(both, network=_machine()))
    for source, target in ((0, 1), (1, 0)):
        way = f"{KINDS[source]}_to_{KINDS[target]}"
        kinds = {
            "generated": Labelled(translated[source], test[source].labels, test[source].classes),
            "untranslated": test[source],
            "real": test[target],
        }
        names, other = train[source].classes, train[target]
        if len(names) > 1 and names == other.classes:
            digits = defined(lambda other=other: ImageClassifier.fit(other, network=_machine()))
            found[f"recognised_{way}"] = _shares(digits, kinds)
        of_target = {
            kind: Labelled(part.inputs, torch.full_like(part.labels, target), KINDS)
            for kind, part in kinds.items()
        }
        found[f"style_{way}"] = _shares(style, of_target)
    for name, part, returned in zip(KINDS, test, back, strict=True):
        found[f"cycle_error_{name}"] = float((returned - part.inputs).abs().mean())
    return found


def _shares(classifier: Any, kinds: dict[str, Labelled]) -> dict[str, Any]:
    """The accuracy for each of ``kinds``, or why there is no classifier."""
    if not isinstance(classifier, ImageClassifier):
        return dict.fromkeys(kinds, classifier)
    return defined_for(kinds, classifier.accuracy)


def _machine() -> SVC:
    return SVC(C=10)


def _kinds(a: int, b: int) -> Tensor:
    return torch.arange(2).repeat_interleave(torch.tensor([a, b]))

"""How well a score finds planted anomalies."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ganlstm_fast.training.datasets.anomalies import Planted
from ganlstm_fast.training.errors import UndefinedScore
from ganlstm_fast.training.undefined import Undefined, check_finite
from ganlstm_fast.training.windows import Stretches


def area_under_roc(
    scores: Tensor, planted: Planted, seq_len: int | None = None
) -> dict[str, float | Undefined]:
    """The area under the ROC curve of the windows' scores: of all anomalies, and of each kind.

    It is the chance that a window with an anomaly has a higher score than one without (Fawcett, An
    introduction to ROC analysis, 2006): 1 is perfect, 0.5 is chance.

    Args:
        scores: [windows], of all windows of ``planted.rows``; the higher, the stranger.
        seq_len: rows of a window; None: what the number of scores says, where all rows follow each
            other.

    Returns:
        ``all``, and one for each kind: its windows against those without any anomaly. For the kinds
        in ``planted.missing`` the reason.

    Raises:
        UndefinedScore: nothing was planted, no window is without an anomaly, or scores that are not
            finite: a curve needs windows of both classes.
        ValueError: not a score for each window.
    """
    from sklearn.metrics import roc_auc_score

    strange, seq_len = _strange(scores, planted, seq_len)

    def area(anomalous: Tensor) -> float:
        kept = anomalous | ~strange
        return float(roc_auc_score(anomalous[kept].numpy(), scores[kept].numpy()))

    kinds = sorted({event.kind for event in planted.events})
    areas = {kind: area(planted.window_labels(seq_len, kind)) for kind in kinds}
    missing = {kind: Undefined(reason) for kind, reason in planted.missing.items()}
    return {"all": area(strange), **missing, **areas}


def threshold_of(usual: Tensor, quantile: float) -> float:
    """The score above which a window is flagged.

    Args:
        usual: [windows], the scores of usual windows that were not trained on.
        quantile: of these scores. By construction a share of ``1 - quantile`` of these windows is
            flagged, and about as many of others like them.

    Raises:
        UndefinedScore: there are no scores, or some are not finite.
    """
    if not len(usual):
        raise UndefinedScore("a threshold needs the scores of some windows")
    check_finite("scores", usual)
    return float(usual.double().quantile(quantile))


def scores_at(
    threshold: float, scores: Tensor, planted: Planted, seq_len: int | None = None
) -> dict[str, Any]:
    """What is found by flagging the windows whose score is above ``threshold``.

    Args:
        scores, seq_len: as for :func:`area_under_roc`.

    Returns:
        ``anomalies_found``, the share of the anomalies with a flagged window; ``recall``,
        the share of the windows with an anomaly that are flagged; ``precision``, the share of the
        flagged windows that have one, which depends on how many were planted, and has no value
        where none is flagged; ``found_of``, by kind, how many of its anomalies are found and how
        many there are.

    Raises:
        UndefinedScore, ValueError: as for :func:`area_under_roc`.
    """
    from sklearn.metrics import precision_score, recall_score

    strange, seq_len = _strange(scores, planted, seq_len)
    flagged = scores > threshold
    first = (planted.stretches or Stretches.whole(len(planted.rows))).first_rows(seq_len)
    found_of: dict[str, list[int]] = {}
    for event in planted.events:
        has_it = (first < event.stop) & (first + seq_len > event.start)
        count = found_of.setdefault(event.kind, [0, 0])
        count[0] += bool(flagged[has_it].any())
        count[1] += 1
    truth = strange.numpy(), flagged.numpy()
    none = Undefined("no window is above the threshold")
    return {
        "anomalies_found": sum(n for n, _ in found_of.values()) / len(planted.events),
        "precision": float(precision_score(*truth)) if flagged.any() else none,
        "recall": float(recall_score(*truth)),
        "found_of": found_of,
    }


def _strange(scores: Tensor, planted: Planted, seq_len: int | None) -> tuple[Tensor, int]:
    """[windows] bool, which have an anomaly, and the rows of a window; raises the measures'
    errors."""
    known = planted.stretches or Stretches.whole(len(planted.rows))
    if seq_len is None:
        seq_len = len(planted.rows) - len(scores) + 1
    count = len(known.first_rows(seq_len)) if 1 <= seq_len <= len(planted.rows) else 0
    if scores.ndim != 1 or not len(scores) == count > 0:
        raise ValueError(
            f"scores: expected one for each window of {len(planted.rows)} rows, "
            f"got shape {tuple(scores.shape)}"
        )
    check_finite("scores", scores)
    strange = planted.window_labels(seq_len)
    if not strange.any() and planted.missing:
        reasons = dict.fromkeys(planted.missing.values())
        raise UndefinedScore(f"no anomaly could be planted: {'; '.join(reasons)}")
    if strange.all() or not strange.any():
        raise UndefinedScore(
            "planted: expected windows both with and without an anomaly, got all "
            f"{len(strange)} {'with' if strange.all() else 'without'} one"
        )
    return strange, seq_len

"""How well a score finds planted anomalies."""

from __future__ import annotations

from torch import Tensor

from ganlstm_fast.training.datasets.anomalies import Planted


def area_under_roc(scores: Tensor, planted: Planted) -> dict[str, float]:
    """The area under the ROC curve of the windows' scores: of all anomalies, and of each kind.

    It is the chance that a window with an anomaly has a higher score than one without (Fawcett, An
    introduction to ROC analysis, 2006): 1 is perfect, 0.5 is chance.

    Args:
        scores: [rows - seq_len + 1], of all windows of ``planted.rows``; the higher, the stranger.

    Returns:
        ``all``, and by kind: its windows against those without any anomaly.

    Raises:
        ValueError: no score for each window, or no window without an anomaly.
    """
    from sklearn.metrics import roc_auc_score

    seq_len = len(planted.rows) - len(scores) + 1
    if scores.ndim != 1 or not 1 <= seq_len <= len(planted.rows):
        raise ValueError(
            f"scores: expected one for each window of {len(planted.rows)} rows, "
            f"got shape {tuple(scores.shape)}"
        )
    strange = planted.window_labels(seq_len)
    if strange.all() or not strange.any():
        raise ValueError("planted: expected windows both with and without an anomaly")

    def area(anomalous: Tensor) -> float:
        kept = anomalous | ~strange
        return float(roc_auc_score(anomalous[kept].numpy(), scores[kept].numpy()))

    kinds = sorted({event.kind for event in planted.events})
    return {"all": area(strange)} | {k: area(planted.window_labels(seq_len, k)) for k in kinds}

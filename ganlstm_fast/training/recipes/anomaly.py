"""Windows of a series that are unlike the training data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ganlstm_fast.models import AnomalyScores, anomaly_scores
from ganlstm_fast.models.base import eval_mode
from ganlstm_fast.training.checkpoint import add_to_data
from ganlstm_fast.training.configs import AnomalyConfig
from ganlstm_fast.training.datasets import plant_anomalies
from ganlstm_fast.training.metrics.anomaly import area_under_roc, scores_at, threshold_of
from ganlstm_fast.training.outputs import write_table
from ganlstm_fast.training.pictures import plot_scores
from ganlstm_fast.training.recipes.series import LSTMGANRecipe, read_series, scaler_of
from ganlstm_fast.training.splits import check_room, held_out_words, last_rows
from ganlstm_fast.training.state import Run
from ganlstm_fast.training.tables.given import TableLike
from ganlstm_fast.training.undefined import (
    Undefined,
    check_finite,
    defined,
    defined_all,
    defined_for,
    shown,
)
from ganlstm_fast.training.windows import Stretches, windows

if TYPE_CHECKING:
    import pandas as pd

# Training windows that others are compared with.
USUAL = 512
# What is said of flagging the windows above the threshold.
AT_THRESHOLD = ("anomalies_found", "precision", "recall")


class AnomalyRecipe(LSTMGANRecipe):
    """An LSTM-GAN of all but the last rows, which scores these with anomalies planted in them.

    Attributes:
        usual: [held-out rows, channels], before anomalies were planted.
    """

    config: AnomalyConfig

    def __init__(self, config: AnomalyConfig) -> None:
        super().__init__(config)
        random = torch.Generator().manual_seed(config.seed)
        known = self.series.stretches
        held = last_rows(config.held_out, known, usual=730, share=2)

        def fits(held: Tensor | int, seq_len: int) -> bool:
            left = known.left(held)
            return min(known.part(left).longest, known.part(~left).longest) >= seq_len

        check_room(known, held, fits, seq_len=config.seq_len)
        self.held_out, left = held_out_words(held), known.left(held)
        self.usual = self.rows[~left]
        self.planted = plant_anomalies(
            self.usual,
            config.planted,
            gap=config.seq_len,
            stretches=known.part(~left),
            strict=False,
            generator=random,
        )
        kinds: dict[str, list[str]] = {}
        for kind, reason in self.planted.missing.items():
            kinds.setdefault(reason, []).append(kind)
        self.notes += [
            f"not all {config.planted} anomalies of the kind {', '.join(of)} could be planted to "
            f"test with: {reason}"
            for reason, of in kinds.items()
        ]
        self.real_to_score, self.stretches_to_score = self.rows[left], known.part(left)
        self.samples = windows(self.rows[left], config.seq_len, self.stretches_to_score)
        some = torch.linspace(0, len(self.samples) - 1, min(USUAL, len(self.samples))).long()
        self.data["usual"] = self.samples[some].clone()

    def describe(self) -> str:
        return f"{super().describe()}; {self.held_out}"

    def finish(self, run: Run, progress: Any) -> dict[str, Any]:
        """Those of an LSTM-GAN, and scores.csv, scores.png, the area under the ROC curve, and what
        is found at the threshold, which the checkpoint keeps.

        The scores have no value if nothing could be planted, or if they are not finite.
        """
        metrics = super().finish(run, progress)
        config, planted = self.config, self.planted
        gan = self.untrained().to(run.state.device)
        gan.load_state_dict(self.raw.state_dict())
        gan.generator.load_state_dict(_best(run))
        found = defined(lambda: self._held_out_scores(gan))
        if isinstance(found, Undefined):
            names = ("area_under_roc", "threshold", *AT_THRESHOLD)
            return metrics if config.metrics == "none" else metrics | dict.fromkeys(names, found)
        scores, threshold = found
        level = None if isinstance(threshold, Undefined) else threshold
        if run.checkpoint.exists():  # One under another name can be evaluated too.
            add_to_data(run.checkpoint, threshold=level)
        lines = table(scores, config.seq_len, planted.stretches, level)
        write_table(run.folder / "scores.csv", lines)
        plot_scores(run.folder / "scores.png", scores.total, planted, config.seq_len, level)
        metrics["threshold"] = threshold
        return metrics if config.metrics == "none" else metrics | self._judged(scores, threshold)

    def _judged(self, scores: AnomalyScores, threshold: float | Undefined) -> dict[str, Any]:
        """How well the planted anomalies are found."""
        planted, seq_len = self.planted, self.config.seq_len
        areas = defined_for(scores._asdict(), lambda part: area_under_roc(part, planted, seq_len))
        told = {
            f"area under the ROC curve, {name}": ", ".join(
                f"{kind} {shown(value)}" for kind, value in area.items()
            )
            for name, area in areas.items()
            if not isinstance(area, Undefined)
        }
        if isinstance(threshold, Undefined):
            at = dict.fromkeys(AT_THRESHOLD, threshold)
        else:
            judged = threshold, scores.total, planted, seq_len
            at = defined_all(AT_THRESHOLD, lambda: scores_at(*judged))
        kinds = at.pop("found_of", {})
        if kinds:
            told["planted anomalies above the threshold"] = ", ".join(
                f"{kind} {n} of {count}" for kind, (n, count) in kinds.items()
            )
        return {"area_under_roc": areas, "told": told, **at}

    def _held_out_scores(self, gan: nn.Module) -> tuple[AnomalyScores, float | Undefined]:
        """The scores of all windows of the planted rows, and the threshold from the rows without
        anomalies."""
        config, planted = self.config, self.planted
        score = scorer(gan, config, self.data, config.seed)
        found = score(windows(planted.rows, config.seq_len, planted.stretches))
        changed, usual = planted.window_labels(config.seq_len), found.total.clone()
        if changed.any():
            as_they_were = windows(self.usual, config.seq_len, planted.stretches)[changed]
            usual[changed] = score(as_they_were).total
        return found, defined(lambda: threshold_of(usual, config.threshold_quantile))

    @staticmethod
    def score(
        model: nn.Module,
        config: AnomalyConfig,
        data: dict[str, Any],
        given: TableLike | None,
        seed: int = 0,
    ) -> pd.DataFrame:
        """The scores of all windows of a series.

        Args:
            given: the series; None: what was trained on.

        Returns:
            A line a window: its series where there are several, its first and last row in the
            table, from 1, and their times where it has dates, its scores, and whether it is
            ``flagged``: its total is above the threshold of the run, or a column changes in it
            that was constant in training. The table's ``attrs`` have the ``threshold``, None where
            the run has none, in which case nothing is flagged, and the columns that have
            ``changed``.
        """
        series, scaler = read_series(config, given, data["columns"]), scaler_of(data)
        known, threshold = series.stretches, data.get("threshold")
        samples = windows(scaler.scale(series.values), config.seq_len, known)
        scores = scorer(model, config, data, seed)(samples)
        found = table(scores, config.seq_len, known, threshold)
        changed = scaler.changed(series.values)
        if threshold is not None and changed.any():
            found["flagged"] |= windows(changed, config.seq_len, known).any((1, 2)).numpy()
        names = [c for c, told in zip(data["columns"], changed.any(0), strict=True) if told]
        found.attrs = {"threshold": threshold, "changed": names}
        first, last = (found[c].to_numpy(copy=True) - 1 for c in ("first_row", "last_row"))
        file_rows = series.file_rows.numpy() + 1
        found["first_row"], found["last_row"] = file_rows[first], file_rows[last]
        if series.times is not None:
            found.insert(2, "first_time", series.times[first])
            found.insert(3, "last_time", series.times[last])
        if series.series:
            of_window = series.names_of(torch.from_numpy(first))
            found.insert(0, config.series_column, of_window, allow_duplicates=True)
        return found


def _best(run: Run) -> dict[str, Tensor]:
    best = run.state.best
    return best["weights"] if best else run.state.recipe.average.module.state_dict()


def scorer(
    gan: nn.Module, config: AnomalyConfig, data: dict[str, Any], seed: int
) -> Callable[[Tensor], AnomalyScores]:
    """What scores windows [n, seq_len, channels] in [0, 1] against usual ones.

    Raises:
        UndefinedScore: the critic's features are not finite.
    """
    where = next(gan.parameters()).device
    random = torch.Generator(where).manual_seed(seed)
    usual = data["usual"].to(where)
    with torch.no_grad(), eval_mode(gan):
        features = gan.critic.features(usual)
    check_finite("features of the critic", features)
    options = {
        "weight": config.weight,
        "usual_features": features,
        "generator": random,
        "steps": config.search_steps,
    }
    reference = anomaly_scores(gan, usual, **options)

    def score(samples: Tensor) -> AnomalyScores:
        samples = samples.contiguous().to(where)
        found = anomaly_scores(gan, samples, reference=reference, **options)
        return AnomalyScores(*(part.cpu() for part in found))

    return score


def table(
    scores: AnomalyScores, seq_len: int, stretches: Stretches, threshold: float | None
) -> pd.DataFrame:
    """A line a window: its first and last row, from 1, its scores, and whether it is flagged."""
    import pandas as pd

    first = stretches.first_rows(seq_len).numpy() + 1
    parts = {name: part.numpy() for name, part in scores._asdict().items()}
    found = pd.DataFrame({"first_row": first, "last_row": first + seq_len - 1, **parts})
    above = scores.total > (math.inf if threshold is None else threshold)
    return found.assign(flagged=above.numpy())

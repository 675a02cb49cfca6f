"""The settings of a training run."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ganlstm_fast.losses import LOSSES
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.metrics import PROTOCOLS

METRICS = (*PROTOCOLS, "none")

# What may differ when a run is resumed: nothing here changes the numbers of a step.
RESUMABLE = ("data", "steps", "epochs", "device", "checkpoint_every", "metrics")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of :func:`ganlstm_fast.training.train`; the defaults suit the bundled weather.

    Attributes:
        data: a CSV file; None is the bundled daily weather of Seattle.
        columns: columns to learn; None takes all columns of numbers.
        seq_len: rows in a window.
        loss: a name in ``ganlstm_fast.losses.LOSSES``.
        label_smoothing: the critic's label of real windows is less than 1 by this; for ``lsgan``,
            ``minimax`` and ``non-saturating``.
        penalty: weight of the gradient penalty, 0 for none; None is 10 for ``wgan-gp`` (its own
            penalty), 1 for the others (R1, Mescheder et al. 2018).
        penalty_every: the penalty is part of every so manieth step of the critic, with so many
            times its weight (lazy regularisation: Karras et al., Analyzing and Improving the Image
            Quality of StyleGAN, 2020, section 3.1).
        penalty_fraction: the part of a batch that the penalty is taken of.
        lr_g, lr_d: learning rates of generator and critic.
        beta1, beta2: of Adam, for both.
        clip: largest norm of the gradient of each network; 0 does not clip.
        n_critic: steps of the critic for one of the generator.
        batch_size: windows a step.
        steps: steps of the generator; epochs, if given, sets them: an epoch is as many steps as
            the windows fill batches.
        hidden, layers: of both LSTMs. noise: noise values a step.
        ema: decay of the average of the generator's weights from which samples are drawn.
        seed: of weights, noise and data order.
        device: as for ``torch.device``.
        threads: of the CPU. For small models one is about as fast as more, does not suffer when
            cores are shared, and sums in the same order on every machine.
        checkpoint_every: steps between checkpoints.
        metrics: ``full`` (the published protocol), ``quick`` (fewer iterations) or ``none``.
    """

    data: str | None = None
    columns: tuple[str, ...] | None = None
    seq_len: int = 24
    loss: str = "wgan-gp"
    label_smoothing: float = 0.0
    penalty: float | None = None
    penalty_every: int = 1
    penalty_fraction: float = 1.0
    lr_g: float = 2e-4
    lr_d: float = 1e-4
    beta1: float = 0.5
    beta2: float = 0.9
    clip: float = 10.0
    n_critic: int = 3
    batch_size: int = 32
    steps: int = 12000
    epochs: int | None = None
    hidden: int = 32
    layers: int = 1
    noise: int = 16
    ema: float = 0.999
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    checkpoint_every: int = 500
    metrics: str = "full"

    def __post_init__(self) -> None:
        """Raises InputError where a setting has a value it cannot have."""
        counts = ("n_critic", "batch_size", "steps", "hidden", "layers", "noise", "penalty_every")
        for name in (*counts, "threads", "checkpoint_every"):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        self._require("seq_len", self.seq_len >= 2, "2 or more")
        self._require("epochs", self.epochs is None or self.epochs >= 1, "1 or more")
        for name in ("lr_g", "lr_d"):
            value = getattr(self, name)
            self._require(name, value > 0 and math.isfinite(value), "more than 0")
        for name in ("clip", "penalty"):
            value = getattr(self, name)
            ok = value is None or (value >= 0 and math.isfinite(value))
            self._require(name, ok, "0 or more")
        self._require("penalty_fraction", 0 < self.penalty_fraction <= 1, "more than 0, at most 1")
        for name in ("beta1", "beta2", "ema", "label_smoothing"):
            self._require(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._require("seed", 0 <= self.seed < 2**63, "0 or more and below 2^63")
        self._require("loss", self.loss in LOSSES, f"one of {', '.join(LOSSES)}")
        ok = self.label_smoothing == 0 or LOSSES[self.loss].has_real_label
        self._require("label_smoothing", ok, f"0 with --loss {self.loss}")
        self._require("metrics", self.metrics in METRICS, f"one of {', '.join(METRICS)}")

    def _require(self, name: str, ok: bool, expected: str) -> None:
        if not ok:
            option = name.replace("_", "-")
            raise InputError(f"--{option}: expected {expected}, got {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint: only numbers, strings, lists and None."""
        values = dataclasses.asdict(self)
        values["columns"] = list(self.columns) if self.columns is not None else None
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """The inverse of :meth:`to_dict`; raises InputError where the names are not ours."""
        columns = values.get("columns")
        try:
            return cls(**{**values, "columns": None if columns is None else tuple(columns)})
        except TypeError as error:
            raise InputError(f"the checkpoint's settings are not understood: {error}") from None

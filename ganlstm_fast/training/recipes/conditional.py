"""Generated series under a condition: the month, or the rows before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ganlstm_fast.models import ConditionalLSTMGAN
from ganlstm_fast.training.configs import ConditionalConfig
from ganlstm_fast.training.data import Series
from ganlstm_fast.training.datasets.series import MONTHS
from ganlstm_fast.training.errors import InputError, UndefinedScore
from ganlstm_fast.training.outputs import trained
from ganlstm_fast.training.recipes.base import length_of
from ganlstm_fast.training.recipes.series import (
    LSTMGANRecipe,
    latest,
    learnt_columns,
    rows_before,
    scaler_of,
)
from ganlstm_fast.training.splits import check_room, held_out_words, last_rows
from ganlstm_fast.training.state import Run
from ganlstm_fast.training.tables.given import TableLike
from ganlstm_fast.training.undefined import check_finite, defined_for, shown
from ganlstm_fast.training.windows import windows_at


class ConditionalRecipe(LSTMGANRecipe):
    """Windows of a table, each with the month of its middle row, the rows before it, or both."""

    given = ("month", "after", "series", "seq_len")
    config: ConditionalConfig

    def __init__(self, config: ConditionalConfig) -> None:
        super().__init__(config)
        before = self.reach - config.seq_len
        known = self.series.stretches
        held = last_rows(config.held_out, known, usual=365, share=4)
        sizes = {"seq_len": config.seq_len, **({"history": before} if before else {})}

        def fits(held: Tensor | int, seq_len: int, history: int = 0) -> bool:
            return known.has_room(history + seq_len, held, history)

        check_room(known, held, fits, **sizes)
        self.held_out, self.before = held_out_words(held), before
        self.months = None if config.condition == "history" else months_of(self.series)
        first, last = known.split(before + config.seq_len, held, before)
        self.samples, self.inputs = self._take(first)
        self.test, self.test_inputs = self._take(last)
        left = known.left(held)
        self.real_to_score, self.stretches_to_score = self.rows[left], known.part(left)
        if before:
            self.data |= latest(self.series, self.rows, before)

    @property
    def reach(self) -> int:
        config = self.config
        return config.seq_len + (config.history if config.condition != "month" else 0)

    def _take(self, first: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The windows that start at the rows ``first``, and their conditions."""
        before, seq_len = self.before, self.config.seq_len
        both = windows_at(self.rows, before + seq_len, first)
        inputs = {}
        if self.months is not None:
            inputs["labels"] = self.months[first + before + seq_len // 2]
        if before:
            inputs["history"] = both[:, :before]
        return both[:, before:], inputs

    @staticmethod
    def model(config: ConditionalConfig, data: dict[str, Any]) -> nn.Module:
        channels = len(learnt_columns(data))
        return ConditionalLSTMGAN(
            channels,
            config.noise,
            config.hidden,
            config.layers,
            labels=0 if config.condition == "history" else len(MONTHS),
            history=0 if config.condition == "month" else channels,
            embedding=config.embedding,
            bidirectional=config.bidirectional,
            critic=config.critic,
            spectral_norm=config.spectral_norm,
            projection=config.projection,
        )

    def describe(self) -> str:
        given = {
            "month": "the month",
            "history": "the rows before",
            "both": "month and rows before",
        }
        return f"{super().describe()}, given {given[self.config.condition]}; {self.held_out}"

    def finish(self, run: Run, progress: Any) -> dict[str, Any]:
        """Those of an LSTM-GAN, and how well samples follow the condition on the held-out rows."""
        metrics = super().finish(run, progress)
        if self.config.metrics == "none":
            return metrics
        generator = trained(run)
        where = next(generator.parameters()).device
        random = torch.Generator(where).manual_seed(self.config.seed)
        inputs = {name: value.to(where) for name, value in self.test_inputs.items()}
        mixed = torch.randperm(len(self.test), generator=random, device=where)
        other = {name: value[mixed] for name, value in inputs.items()}

        def error(given: dict[str, Tensor]) -> float:
            """The error of the mean of several samples, which keeps what the condition
            determines."""
            made = [
                generator.sample(len(self.test), self.config.seq_len, random, **given).cpu()
                for _ in range(8)
            ]
            mean = torch.stack(made).mean(0)
            check_finite("generated", mean)
            if given is other and len(mean) < 2:
                raise UndefinedScore("a single window is held out: there is no other condition")
            return (mean - self.test).abs().mean().item()

        errors = defined_for({"generated": inputs, "other condition": other}, error)
        metrics["condition_error"] = errors
        metrics["told"] = {
            "error of the mean, held out": "{generated}, with the conditions of other windows "
            "{other condition}".format(**{k: shown(v, 4) for k, v in errors.items()})
        }
        return metrics

    @staticmethod
    def generate(
        model: nn.Module,
        config: ConditionalConfig,
        data: dict[str, Any],
        count: int,
        seed: int,
        month: int | None = None,
        after: TableLike | None = None,
        series: str | None = None,
        seq_len: int | None = None,
    ) -> Tensor:
        """Series [count, seq_len, channels] under a condition.

        Where they follow rows whose times are known, ``data`` is given their own as ``following``.

        Args:
            month: 1 to 12, of all of them; None: January, February, ... in turn.
            after: a table whose last rows they follow; None: what was trained on.
            series: the name of the one they follow, where there are several.
            seq_len: None: as long as those trained on.
        """
        steps = length_of(config, seq_len)
        where = next(model.parameters()).device
        given = {}
        if month is not None and not 1 <= month <= len(MONTHS):
            raise InputError(f"`month`: expected 1 to {len(MONTHS)}, got {month}")
        if month is not None and config.condition == "history":
            raise InputError("`month`: the run was trained with `condition=history`")
        if after is not None and config.condition == "month":
            raise InputError("`after`: the run was trained with `condition=month`")
        if config.condition != "history":
            in_turn = torch.arange(count, device=where) % len(MONTHS)
            given["labels"] = in_turn if month is None else torch.full_like(in_turn, month - 1)
        if series is not None and config.condition == "month":
            raise InputError("`series`: the run was trained with `condition=month`")
        if config.condition != "month":
            before = rows_before(config, data, config.history, after, series)
            data["following"] = before.times(steps)
            given["history"] = before.rows.to(where).expand(count, -1, -1).contiguous()
        random = torch.Generator(where).manual_seed(seed)
        made = model.generator.sample(count, steps, random, **given).cpu()
        return scaler_of(data).unscale(made)


def months_of(series: Series) -> Tensor:
    """[rows] int64, January as 0; raises InputError where no column says the dates."""
    if series.times is None:
        raise InputError(
            f"{series.name} has no column of dates, from which the month is read; name one as "
            "`date_column`, or give `condition=history`"
        )
    return torch.from_numpy(series.times.astype("datetime64[M]").astype("int64") % 12)

"""Generated series under a condition: the month, or the rows before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ganlstm_fast.models import ConditionalLSTMGAN
from ganlstm_fast.training.configs import ConditionalConfig
from ganlstm_fast.training.data import split_by_time, windows
from ganlstm_fast.training.datasets import load_months
from ganlstm_fast.training.datasets.series import MONTHS
from ganlstm_fast.training.errors import InputError, UndefinedScore
from ganlstm_fast.training.outputs import trained
from ganlstm_fast.training.recipes.series import LSTMGANRecipe, rows_before, scaler_of
from ganlstm_fast.training.state import Run
from ganlstm_fast.training.undefined import check_finite, defined_for, shown


class ConditionalRecipe(LSTMGANRecipe):
    """Windows of a table, each with the month of its middle row, the rows before it, or both."""

    given = ("month", "after")
    config: ConditionalConfig

    def __init__(self, config: ConditionalConfig) -> None:
        super().__init__(config)
        before = config.history if config.condition != "month" else 0
        length = before + config.seq_len
        both = windows(self.rows, length)
        first, last = split_by_time(len(self.rows), length, config.held_out, context=before)
        inputs = {}
        if config.condition != "history":
            months = load_months(config.data, config.date_column)
            inputs["labels"] = months[torch.arange(len(both)) + before + config.seq_len // 2]
        if before:
            inputs["history"] = both[:, :before]
        self.samples, self.inputs = _take(both[:, before:], inputs, first)
        self.test, self.test_inputs = _take(both[:, before:], inputs, last)
        self.real_to_score = self.rows[: -config.held_out]
        if before:
            self.data["last"] = self.rows[-before:].clone()

    @staticmethod
    def model(config: ConditionalConfig, data: dict[str, Any]) -> nn.Module:
        channels = len(data["columns"])
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
        return (
            f"{super().describe()}, given {given[self.config.condition]}; the last "
            f"{self.config.held_out} rows are held out"
        )

    def finish(self, run: Run, progress: Any) -> dict[str, Any]:
        """As for an LSTM-GAN, and how well the condition is followed on the held-out rows."""
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
            """Of the mean of several samples: the error of what the condition tells."""
            made = [
                generator.sample(len(self.test), self.config.seq_len, random, **given).cpu()
                for _ in range(8)
            ]
            mean = scaler_of(self.data).settle(torch.stack(made).mean(0))
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
        after: str | None = None,
    ) -> Tensor:
        """Series [count, seq_len, channels] under a condition.

        Args:
            month: 1 to 12, of all of them; None: January, February, ... in turn.
            after: a file whose last rows they follow; None: what was trained on.
        """
        where = next(model.parameters()).device
        given = {}
        if month is not None and not 1 <= month <= len(MONTHS):
            raise InputError(f"--month: expected 1 to {len(MONTHS)}, got {month}")
        if month is not None and config.condition == "history":
            raise InputError("--month: the run was trained with --condition history")
        if after is not None and config.condition == "month":
            raise InputError("--after: the run was trained with --condition month")
        if config.condition != "history":
            in_turn = torch.arange(count, device=where) % len(MONTHS)
            given["labels"] = in_turn if month is None else torch.full_like(in_turn, month - 1)
        if config.condition != "month":
            rows = data["last"] if after is None else rows_before(after, data, config.history)
            given["history"] = rows.to(where).expand(count, -1, -1).contiguous()
        random = torch.Generator(where).manual_seed(seed)
        made = model.generator.sample(count, config.seq_len, random, **given).cpu()
        return scaler_of(data).unscale(made)


def _take(
    samples: Tensor, inputs: dict[str, Tensor], index: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    return samples[index], {name: value[index] for name, value in inputs.items()}

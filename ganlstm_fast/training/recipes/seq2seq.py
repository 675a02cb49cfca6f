"""Texts to texts, such as dates in words to dates in ISO 8601."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlstm_fast.models import SequenceToSequence
from ganlstm_fast.nn.masks import masked_mean
from ganlstm_fast.training.configs import SequenceToSequenceConfig
from ganlstm_fast.training.datasets import Vocabulary, date_pairs, load_texts, pad_texts
from ganlstm_fast.training.datasets.labelled import HELD_OUT
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.metrics.texts import nearest_targets, right_symbols
from ganlstm_fast.training.outputs import trained, write_table
from ganlstm_fast.training.pictures import plot_attention
from ganlstm_fast.training.recipes.base import QUICK
from ganlstm_fast.training.recipes.supervised import SupervisedRecipe
from ganlstm_fast.training.splits import evenly
from ganlstm_fast.training.state import Run
from ganlstm_fast.training.tables.given import name_of, shown

# With early stopping one source in this many is watched instead of trained on.
WATCHED = 6
# Texts translated at once, and shown in the picture.
BATCH, SHOWN = 256, 4

Pairs = Sequence[tuple[str, str]]


class SequenceToSequenceRecipe(SupervisedRecipe):
    """Pairs of texts of a file, or dates."""

    config: SequenceToSequenceConfig

    def __init__(self, config: SequenceToSequenceConfig) -> None:
        super().__init__(config)
        if config.data is None:
            self.name, (self.pairs, self.test) = "dates", date_pairs()
        else:
            self.name = name_of(config.data)
            columns = config.source_column, config.target_column
            self.pairs, self.test = _apart(load_texts(config.data, columns), HELD_OUT)
            if not self.test:
                raise InputError(
                    f"{shown(config.data)}: expected {HELD_OUT} different texts or more, since "
                    f"every {HELD_OUT}th is held out"
                )
        texts = [*self.pairs, *self.test]
        content = "\n".join("\t".join(pair) for pair in texts)
        self.data = {
            "fingerprint": hashlib.sha256(content.encode()).hexdigest(),
            "symbols": Vocabulary.of("".join(source for source, _ in texts)).symbols,
            "targets": Vocabulary.of("".join(target for _, target in texts)).symbols,
            "longest": max(len(target) for _, target in texts),
        }
        train, held = _apart(self.pairs, WATCHED)
        self.held = _tensors(held or train, self.data)
        self.train = _tensors(train if config.patience else self.pairs, self.data)

    @staticmethod
    def model(config: SequenceToSequenceConfig, data: dict[str, Any]) -> nn.Module:
        return SequenceToSequence(
            len(data["symbols"]),
            len(data["targets"]) + 1,
            embedding=config.embedding,
            hidden=config.hidden,
            layers=config.layers,
            dropout=config.dropout,
            attention=config.attention,
        )

    def describe(self) -> str:
        what = "dates in words, each" if self.config.data is None else "texts, each"
        return f"{self.name}: {self.size} {what} with its translation; {len(self.test)} held out"

    def loss(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = network(batch["source"], batch["target"], lengths=batch["lengths"])
        wanted = F.pad(batch["target"], (0, 1))  # the edge after the last symbol
        each = F.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
        # The mean over each text comes first, so that the shares of all processes weigh the same.
        return masked_mean(each[..., None], batch["target_lengths"] + 1).mean()

    def finish(self, run: Run, progress: Any) -> dict[str, Any]:
        """translations.csv, attention.png, and how many held-out texts are translated exactly."""
        import pandas as pd

        model, config = trained(run), self.config
        judged = self.test
        if config.metrics == "quick":
            judged = [judged[k] for k in evenly(len(judged), QUICK).tolist()]
        sources, targets = zip(*judged, strict=True)
        made = translate(model, self.data, sources, config.beams)
        table = {"source": sources, "target": targets, "translation": made}
        write_table(run.folder / "translations.csv", pd.DataFrame(table))
        # Some of different lengths, so that different ways to write are among them.
        order = sorted(range(len(sources)), key=lambda k: len(sources[k]))
        some = [order[(2 * k + 1) * len(order) // (2 * SHOWN)] for k in range(SHOWN)]
        shown = [(sources[k], made[k] or targets[k]) for k in dict.fromkeys(some)]
        draw_attention(run.folder / "attention.png", model, self.data, shown)
        if config.metrics == "none":
            return {}
        greedy = translate(model, self.data, sources, 1)
        nearest = nearest_targets(sources, self.pairs)
        kinds = {"": made, "_greedy": greedy, "_of_nearest_text": nearest}
        found: dict[str, Any] = {"count": len(sources)}
        for kind, texts in kinds.items():
            right = sum(a == b for a, b in zip(texts, targets, strict=True))
            found[f"exact_match{kind}"] = right / len(targets)
            found[f"right_symbols{kind}"] = right_symbols(texts, targets)
        return found

    @staticmethod
    def translate(
        model: SequenceToSequence,
        config: SequenceToSequenceConfig,
        data: dict[str, Any],
        texts: Sequence[str],
        picture: Path | None = None,
    ) -> list[str]:
        """What each of ``texts`` is in the other column's symbols.

        Args:
            picture: a file for where the decoder looked, of the first texts.
        """
        made = translate(model, data, texts, config.beams)
        if picture is not None:
            shown = [pair for pair in zip(texts, made, strict=True) if pair[1]][:SHOWN]
            if not shown:
                raise InputError(f"{picture}: nothing to draw, the translations are empty")
            draw_attention(picture, model, data, shown)
        return made


def translate(
    model: SequenceToSequence, data: dict[str, Any], texts: Sequence[str], beams: int
) -> list[str]:
    """The texts that the model writes for ``texts``.

    Raises:
        InputError: an empty text, or one with a symbol that the run's data does not have.
    """
    symbols, targets = Vocabulary(data["symbols"]), Vocabulary(data["targets"])
    where, made = next(model.parameters()).device, []
    for start in range(0, len(texts), BATCH):
        some = texts[start : start + BATCH]
        source, lengths = (part.to(where) for part in pad_texts(some, symbols, start))
        # One more step, for the end.
        found = model.translate(source, data["longest"] + 1, lengths=lengths, beams=beams)
        rows = zip(found.symbols.cpu(), found.lengths.tolist(), strict=True)
        made += [targets.decode(row[:length] - 1) for row, length in rows]
    return made


def draw_attention(
    path: Path, model: SequenceToSequence, data: dict[str, Any], pairs: Pairs
) -> None:
    """A picture of where the decoder looked when it wrote the second text of each of ``pairs``."""
    where = next(model.parameters()).device
    batch = {name: value.to(where) for name, value in _tensors(pairs, data).items()}
    weights = model.attended(batch["source"], batch["target"], lengths=batch["lengths"]).cpu()
    cases = [
        (source, target, w[: len(target) + 1, : len(source)])
        for w, (source, target) in zip(weights, pairs, strict=True)
    ]
    plot_attention(path, cases)


def _apart(pairs: Pairs, every: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The pairs in two parts: the second has every ``every``-th source, the first all others."""
    numbers = {source: k for k, source in enumerate(dict.fromkeys(s for s, _ in pairs))}
    held = [numbers[source] % every == every - 1 for source, _ in pairs]
    parts = ([], [])
    for pair, apart in zip(pairs, held, strict=True):
        parts[apart].append(pair)
    return parts


def _tensors(pairs: Pairs, data: dict[str, Any]) -> dict[str, Tensor]:
    """The symbols' numbers; those of the target are from 1, since the edge is 0."""
    sources, targets = zip(*pairs, strict=True)
    source, lengths = pad_texts(sources, Vocabulary(data["symbols"]))
    target, target_lengths = pad_texts(targets, Vocabulary(data["targets"]))
    valid = torch.arange(target.size(1)) < target_lengths[:, None]
    return {
        "source": source,
        "lengths": lengths,
        "target": (target + 1).masked_fill(~valid, 0),
        "target_lengths": target_lengths,
    }

"""Classes of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ganlstm_fast.models import LSTMClassifier
from ganlstm_fast.training.configs import TextClassifierConfig
from ganlstm_fast.training.datasets import (
    Labelled,
    Vocabulary,
    load_texts,
    one_line,
    pad_texts,
    text_pieces,
)
from ganlstm_fast.training.metrics.texts import symbol_frequencies
from ganlstm_fast.training.recipes.classifier import (
    WATCHED,
    LabelledRecipe,
    chances_of,
    class_table,
    split_labelled,
)
from ganlstm_fast.training.tables.given import TableLike, name_of

if TYPE_CHECKING:
    import pandas as pd


class TextClassifierRecipe(LabelledRecipe):
    """Texts of a file, or pieces of the bundled ones."""

    config: TextClassifierConfig

    def __init__(self, config: TextClassifierConfig) -> None:
        super().__init__(config)
        if config.data is None:
            self.name, (pieces, held_out) = "texts", text_pieces()
            texts, labels = zip(*pieces, *held_out, strict=True)
            inputs, lengths = self._read(texts)
            classes = tuple(sorted(set(labels)))
            numbers = torch.tensor([classes.index(label) for label in labels])
            every = Labelled(inputs, numbers, classes, lengths)
            test = torch.arange(len(texts)) >= len(pieces)
            train, self.test = every.take(~test), every.take(test)
        else:
            self.name = name_of(config.data)
            rows = load_texts(config.data, (config.text_column, config.label_column))
            texts, labels = zip(*rows, strict=True)
            inputs, lengths = self._read([one_line(text) for text in texts])
            train, self.test = split_labelled(config.data, inputs, labels, lengths)
        # The last ones of each class, because neighbouring pieces share most of their symbols.
        held = torch.zeros(len(train), dtype=torch.bool)
        for k in range(len(train.classes)):
            of_class = (train.labels == k).nonzero()[:, 0]
            held[of_class[len(of_class) - len(of_class) // WATCHED :]] = True
        self.take_in(train, held)

    def _read(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The symbols' numbers and lengths of the texts, whose symbols are learnt."""
        longest = self.config.longest
        cut = sum(len(text) > longest for text in texts)
        if cut:
            self.found.append(f"{cut} of {len(texts)} texts are cut to {longest} symbols")
        texts = [text[:longest] for text in texts]
        vocabulary = Vocabulary.of("".join(texts))
        self.data = {"symbols": vocabulary.symbols, "notes": self.found}
        return pad_texts(texts, vocabulary)

    @property
    def draws(self) -> bool:
        return super().draws or self.config.noise > 0

    @staticmethod
    def model(config: TextClassifierConfig, data: dict[str, Any]) -> nn.Module:
        return LSTMClassifier(
            config.embedding,
            len(data["classes"]),
            symbols=len(data["symbols"]),
            hidden=config.hidden,
            layers=config.layers,
            bidirectional=config.bidirectional,
            dropout=config.dropout,
            attention=None if config.attention == "none" else config.attention,
        )

    def describe(self) -> str:
        classes = ", ".join(self.data["classes"])
        symbols = f"{len(self.data['symbols'])} symbols"
        return f"{self.name}: {self.size} texts of {symbols}: {classes}; {len(self.test)} held out"

    def loss(self, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        if network.training and self.config.noise:
            inputs = batch["inputs"]
            others = torch.randint_like(inputs, len(self.data["symbols"]))
            other = torch.rand(inputs.shape, device=inputs.device) < self.config.noise
            batch = {**batch, "inputs": torch.where(other, others, inputs)}
        return super().loss(network, batch)

    def rivals(self) -> dict[str, float]:
        """Beside the most frequent class, a classifier that does not see the symbols' order."""
        counted = symbol_frequencies(self.seen, self.test, len(self.data["symbols"]))
        return {**super().rivals(), "accuracy_of_symbol_frequencies": counted}

    @staticmethod
    def classify(
        model: LSTMClassifier,
        config: TextClassifierConfig,
        data: dict[str, Any],
        given: TableLike | None,
        texts: Sequence[str] = (),
    ) -> pd.DataFrame:
        """A line a text: the text, its class, and the probability of each class.

        Args:
            given: the texts, in the column that the run's were in; None: what was trained on,
                unless ``texts`` are given.
        """
        given = config.data if given is None else given
        if not texts and given is None:
            texts = [text for part in text_pieces() for text, _ in part]
        elif not texts:
            texts = [text for (text,) in load_texts(given, (config.text_column,))]
        lines = [one_line(text) for text in texts]
        cut = [line[: config.longest] for line in lines]
        table = class_table(
            chances_of(model, *pad_texts(cut, Vocabulary(data["symbols"]))), data["classes"]
        )
        table.insert(0, config.text_column, lines, allow_duplicates=True)
        return table

"""Texts with a label each, or in pairs: of a table, or pieces of the bundled ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ganlstm_fast.training.datasets.labelled import HELD_OUT
from ganlstm_fast.training.datasets.text import BUNDLED, Vocabulary, load_text
from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.tables.given import TableLike
from ganlstm_fast.training.tables.read import read_table

# By class.
TEXTS = {"alice": BUNDLED.with_name("alice.txt"), "sonnets": BUNDLED}
# Symbols of a block, and of its pieces. Every fifth block is held out.
BLOCK, SHORTEST, LONGEST = 500, 80, 200


def one_line(text: str) -> str:
    """``text`` with one space in the place of each space, tab or line end, or several of them."""
    return " ".join(text.split())


def load_texts(data: TableLike, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """The cells of ``columns`` as text, a row each, of a file or a DataFrame.

    Raises:
        InputError: as :func:`~ganlstm_fast.training.tables.read.read_table`, no such column, or an
            empty cell.
    """
    table = read_table(data, as_text=True)
    table.require(*columns)
    for column in columns:
        cells = table.frame[column]
        empty = np.flatnonzero((cells.isna() | (cells.str.strip() == "")).to_numpy())
        if len(empty):
            raise InputError(f"{table.file}: column {column} is empty in {table.at(empty)}")
    return list(table.frame[list(columns)].itertuples(index=False, name=None))


def pad_texts(
    texts: Sequence[str], vocabulary: Vocabulary, before: int = 0
) -> tuple[Tensor, Tensor]:
    """The numbers [n, longest] int64 of the texts' symbols, padded with 0, and lengths [n] int64.

    Args:
        before: how many texts precede these; errors number texts from there.

    Raises:
        InputError: a text that is empty or has a symbol that is not in ``vocabulary``.
    """
    lengths = [len(text) for text in texts]
    if 0 in lengths:
        raise InputError(f"text {before + lengths.index(0) + 1} is empty")
    try:
        # All at once, since a vocabulary can be as large as a thousand texts.
        numbers = vocabulary.encode("".join(texts)).split(lengths)
    except InputError:
        known = set(vocabulary.symbols)
        wrong = next(k for k, text in enumerate(texts) if not known.issuperset(text))
        try:
            vocabulary.encode(texts[wrong])
        except InputError as error:
            raise InputError(f"text {before + wrong + 1}: {error}") from None
        raise
    return torch.nn.utils.rnn.pad_sequence(numbers, batch_first=True), torch.tensor(lengths)


def text_pieces(seed: int = 0) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pieces of the two bundled texts with the text's name each, to train on and held out.

    Both texts are cut into blocks of whole paragraphs (a sonnet is one), and every fifth is held
    out. A piece has 80 to 200 symbols of one block and begins with a word; line ends are spaces, so
    that they do not tell verse from prose. Training pieces start at every word that has room for
    one, and are drawn from the longer text so that both have as many; held-out pieces follow one
    another.
    """
    random = torch.Generator().manual_seed(seed)
    train, test = {}, []
    for name, file in TEXTS.items():
        train[name] = []
        for number, block in enumerate(_blocks(load_text(file))):
            held = number % HELD_OUT == HELD_OUT - 1
            pieces = [(piece, name) for piece in _pieces(block, held, random)]
            (test if held else train[name]).extend(pieces)
    least = min(map(len, train.values()))
    some = []
    for pieces in train.values():
        drawn = torch.randperm(len(pieces), generator=random)[:least]
        some += [pieces[k] for k in drawn.sort().values.tolist()]
    return some, test


def _blocks(text: str) -> Iterator[str]:
    """Whole paragraphs one after the other, together so long as a block at least."""
    block = ""
    for paragraph in text.split("\n\n"):
        block = one_line(f"{block} {paragraph}")
        if len(block) >= BLOCK:
            yield block
            block = ""


def _pieces(block: str, apart: bool, random: torch.Generator) -> Iterator[str]:
    """Pieces from every word, or where the piece before ends."""
    start = 0
    while len(block) - start >= SHORTEST:
        length = int(torch.randint(SHORTEST, LONGEST + 1, (), generator=random))
        yield block[start : start + length].rstrip()
        start = block.find(" ", start + length if apart else start) + 1
        if not start:
            return

"""How like real text generated text is: groups of symbols, words, and language models.

A text is windows [n, steps] int64 of numbers of symbols; no two windows overlap. Groups of
symbols ("n-grams") do not cross a window's edge.

Counts depend on the number of samples. So every kind of text is counted in parts of equal size, and
a score is the mean over the parts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlstm_fast.models.base import eval_mode
from ganlstm_fast.nn import FastLSTM
from ganlstm_fast.training.datasets import Vocabulary
from ganlstm_fast.training.errors import UndefinedScore
from ganlstm_fast.training.recipes.adam import Adam
from ganlstm_fast.training.undefined import defined_for

# Lengths of the groups of symbols that are counted, and of those that are looked for in another
# text: the former are about a word, and two texts hardly share one of the latter by chance.
COUNTED = (2, 3, 4)
GROUP, LONG = 4, 16
# Most parts of a text, and windows of a part.
PARTS, WINDOWS = 8, 500
# Training steps of a language model, by ``--metrics``.
ITERATIONS = {"quick": 100, "full": 400}
BATCH, LEARNING_RATE = 32, 3e-3


def evaluate_texts(
    train: Tensor,
    held: Tensor,
    made: Tensor,
    vocabulary: Vocabulary,
    iterations: int,
    seed: int = 0,
    tick: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Scores of ``generated`` text, beside those of ``real`` text, of ``noise``, symbols drawn at
    the frequency that they have in real text, and of ``shuffled`` real text, its words in random
    order.

    ==================================== =======================================================
    ``entropy_of_N_grams``               of the groups of N symbols, in bits
    ``distance_of_N_grams``              :func:`jensen_shannon` to those of the held-out text
    ``overlap_of_4_grams``               :func:`share_in`: groups that the held-out text has
    ``coverage_of_4_grams``              the converse: groups of the held-out text that this has
    ``self_overlap_of_4_grams``          :func:`self_overlap`: groups that another window has
    ``copied_16_grams``                  groups that the text trained on has: more than ``real``
                                         is learnt by heart
    ``known_words``                      :func:`known_words`: words that the text trained on has
    ``language_model``                   its negative log-likelihood by an LSTM that was trained
                                         on real text, in nats a symbol
    ``reverse_language_model``           that of held-out text by an LSTM that was trained on
                                         this (Zhao et al., Adversarially Regularized
                                         Autoencoders, 2018, "reverse perplexity"): high where
                                         part of what real text has is never made
    ==================================== =======================================================

    ``real`` is text that the other side of a comparison does not contain: held-out text where a
    score compares with the training text, training text where it compares with held-out text.

    Args:
        train, held, made: [n, steps] int64, what was trained on, held out and generated.
        iterations: steps of the training of each language model.
        tick: called after each of them, ``4 * iterations`` times in all.
    """
    random = torch.Generator().manual_seed(seed)
    count, steps = len(vocabulary), made.shape[1]
    beside_held = kinds_of(train, made, vocabulary, random)
    beside_train = kinds_of(held, made, vocabulary, random)
    size = min(WINDOWS, *(len(text) for text in beside_held.values()), len(held))
    held_part = held[torch.randperm(len(held), generator=random)[:size]]

    def parts(measure: Callable[[Tensor], float]) -> dict[str, Any]:
        def mean(text: Tensor) -> float:
            found = [measure(part) for part in text.split(size)[:PARTS] if len(part) == size]
            return sum(found) / len(found)

        return defined_for(beside_held, mean)

    scores: dict[str, Any] = {}
    for n in COUNTED:
        scores[f"entropy_of_{n}_grams"] = parts(lambda part, n=n: entropy(part, n, count))
    for n in COUNTED:
        scores[f"distance_of_{n}_grams"] = parts(
            lambda part, n=n: jensen_shannon(held_part, part, n, count)
        )
    name = f"of_{GROUP}_grams"
    scores[f"overlap_{name}"] = parts(lambda part: share_in(part, held_part, GROUP, count))
    scores[f"coverage_{name}"] = parts(lambda part: share_in(held_part, part, GROUP, count))
    scores[f"self_overlap_{name}"] = parts(lambda part: self_overlap(part, GROUP, count))
    scores[f"copied_{LONG}_grams"] = defined_for(
        beside_train, lambda text: share_in(text, train, min(LONG, steps), count)
    )
    words = vocabulary.decode(train.flatten())
    scores["known_words"] = defined_for(
        beside_train, lambda text: known_words(map(vocabulary.decode, text), words)
    )
    enough = min(len(text) for text in beside_held.values())
    models = {
        name: trained_language_model(text[:enough], count, iterations, seed, tick)
        for name, text in beside_held.items()
    }
    scores["language_model"] = defined_for(
        beside_train, lambda text: models["real"].negative_log_likelihood(text)
    )
    scores["reverse_language_model"] = defined_for(
        models, lambda model: model.negative_log_likelihood(held)
    )
    return scores


def kinds_of(
    real: Tensor, made: Tensor, vocabulary: Vocabulary, random: torch.Generator
) -> dict[str, Tensor]:
    """Generated text; ``real`` text, its words in random order, and noise of its frequencies.

    Args:
        real: [n, steps], windows that follow each other.
    """
    drawn = torch.randint(real.numel(), made.shape, generator=random)
    order = torch.randperm(len(real), generator=random)
    text = vocabulary.decode(real.flatten())
    words = re.findall(r"\S+", text)
    mixed = iter(words[k] for k in torch.randperm(len(words), generator=random).tolist())
    return {
        "generated": made,
        "real": real[order],
        "noise": real.flatten()[drawn],
        # Spaces and line ends stay where they are among the words.
        "shuffled": vocabulary.encode(re.sub(r"\S+", lambda _: next(mixed), text)).view(real.shape),
    }


def entropy(text: Tensor, n: int, symbols: int) -> float:
    """Of the groups of ``n`` symbols in ``text`` [any number, steps], in bits.

    Raises:
        UndefinedScore: as :func:`groups`.
    """
    counts = torch.unique(groups(text, n, symbols), return_counts=True)[1].double()
    share = counts / counts.sum()
    return -torch.special.xlogy(share, share).sum().item() / math.log(2)


def share_in(text: Tensor, other: Tensor, n: int, symbols: int) -> float:
    """The share of the groups of ``n`` symbols of ``text`` that stand in ``other`` too.

    Raises:
        UndefinedScore: as :func:`groups`.
    """
    found = torch.isin(groups(text, n, symbols), groups(other, n, symbols))
    return found.double().mean().item()


def self_overlap(text: Tensor, n: int, symbols: int) -> float:
    """The share of the groups of ``n`` symbols that stand in another window of ``text`` too.

    Nearly 1 where all windows are alike; what Self-BLEU (Zhu et al., Texygen, 2018) is to BLEU.

    Raises:
        UndefinedScore: as :func:`groups`.
    """
    number = torch.unique(groups(text, n, symbols), return_inverse=True)[1].view(len(text), -1)
    windows = torch.arange(len(text))[:, None].expand_as(number)
    # Each pair of a group and a window once: a group of one window alone has one pair.
    pairs = torch.unique(torch.stack((number.flatten(), windows.flatten())), dim=1)
    elsewhere = torch.bincount(pairs[0]) > 1
    return elsewhere[number].double().mean().item()


def known_words(windows: Iterable[str], text: str) -> float:
    """The share of the words in ``windows`` (strings) that stand in ``text``.

    Words stand between spaces or line ends, without punctuation around them. Words cut by a
    window's edge are left out.

    Raises:
        UndefinedScore: no word.
    """
    known = set(map(bare, text.split()))
    found = [bare(word) in known for window in windows for word in inner_words(window)]
    if not found:
        raise UndefinedScore("the text has no whole words between spaces")
    return sum(found) / len(found)


def inner_words(window: str) -> list[str]:
    """The words of a window except the first and the last, which its edges may have cut."""
    return [word for word in window.split()[1:-1] if bare(word)]


def bare(word: str) -> str:
    """``word`` in lower case, without the punctuation at its ends."""
    ends = "".join(c for c in set(word) if not c.isalnum())
    return word.strip(ends).lower()


def jensen_shannon(a: Tensor, b: Tensor, n: int, symbols: int) -> float:
    """How far the frequencies of groups of ``n`` symbols differ, from 0 (equal) to 1 (none shared).

    The Jensen-Shannon divergence in bits (Lin, 1991) of the groups in ``a`` and ``b``
    [any number, steps] of numbers below ``symbols``.

    Raises:
        UndefinedScore: as :func:`groups`.
    """
    both = [groups(part, n, symbols) for part in (a, b)]
    # Only groups that occur: 5,000 symbols have 10^11 groups of 3.
    there, number = torch.unique(torch.cat(both), return_inverse=True)
    counts = [
        torch.bincount(part, minlength=len(there)) for part in number.split(list(map(len, both)))
    ]
    p, q = (count.double() / count.sum() for count in counts)
    middle = (p + q) / 2
    divergences = [torch.special.xlogy(x, x / middle).nan_to_num().sum() for x in (p, q)]
    return max(0.0, (sum(divergences) / 2 / torch.log(torch.tensor(2.0))).item())


def groups(text: Tensor, n: int, symbols: int) -> Tensor:
    """A number [windows * (steps - n + 1)] int64 for each group of ``n`` symbols.

    Equal groups have equal numbers. Different ones have different numbers where ``symbols ** n``
    is below 2^63, and nearly always above, where the sum is taken modulo 2^64.

    Raises:
        UndefinedScore: no windows, or windows shorter than a group.
    """
    if not len(text) or text.shape[1] < n:
        raise UndefinedScore(
            f"{len(text)} sequences of {text.shape[1]} symbols have no groups of {n}"
        )
    # No power of an odd base is 0 modulo 2^64.
    base, place = symbols | 1, torch.ones(n, dtype=torch.int64)
    for k in range(1, n):
        place[k] = place[k - 1] * base
    return (text.unfold(1, n, 1) * place).sum(-1).flatten()


class LanguageModel(nn.Module):
    """Numbers of symbols [n, steps] int64 -> logits [n, steps, symbols] of each after those before.

    Args:
        symbols: how many there are.
    """

    EMBEDDING, HIDDEN, DROPOUT = 32, 128, 0.3

    def __init__(self, symbols: int) -> None:
        super().__init__()
        # The last number stands before the first symbol.
        self.embedding = nn.Embedding(symbols + 1, self.EMBEDDING)
        self.lstm = FastLSTM(self.EMBEDDING, self.HIDDEN, batch_first=True)
        self.dropout = nn.Dropout(self.DROPOUT)
        self.head = nn.Linear(self.HIDDEN, symbols)

    def forward(self, text: Tensor) -> Tensor:
        before = F.pad(text[:, :-1], (1, 0), value=self.head.out_features)
        return self.head(self.dropout(self.lstm(self.dropout(self.embedding(before)))[0]))

    def loss(self, text: Tensor) -> Tensor:
        """The mean negative log-likelihood of a symbol, in nats."""
        return F.cross_entropy(self(text).flatten(0, 1), text.flatten())

    @torch.no_grad()
    def negative_log_likelihood(self, text: Tensor, batch: int = 256) -> float:
        """:meth:`loss` in eval mode, of any number of windows."""
        with eval_mode(self):
            total = sum(self.loss(part).double() * len(part) for part in text.split(batch))
        return (total / len(text)).item()


def trained_language_model(
    text: Tensor,
    symbols: int,
    iterations: int,
    seed: int = 0,
    tick: Callable[[], object] = lambda: None,
) -> LanguageModel:
    """A language model of the windows ``text`` [n, steps] int64. Leaves torch's generator alone."""
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LanguageModel(symbols)
        optimiser = Adam(model.parameters(), lr=LEARNING_RATE)
        for _ in range(iterations):
            pick = torch.randint(len(text), (BATCH,), generator=random)
            optimiser.zero_grad(set_to_none=True)
            model.loss(text[pick]).backward()
            optimiser.step()
            tick()
    return model

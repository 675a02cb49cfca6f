"""Beam search: the likeliest sequence that a decoder can write, by keeping the best beginnings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ganlstm_fast.ops.validation import check_counts

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Written:
    """The best sequence of each row of a batch.

    Attributes:
        symbols: [batch, steps] int64, without the end, ``edge`` after it.
        lengths: [batch] int64, symbols before the end; 0 where nothing was written.
        scores: [batch], the mean logarithm of a symbol's probability, the end included.
    """

    symbols: Tensor
    lengths: Tensor
    scores: Tensor


@torch.no_grad()
def beam_search(
    step: Callable[[Tensor, State], tuple[Tensor, State]],
    state: State,
    steps: int,
    beams: int = 4,
    edge: int = 0,
) -> Written:
    """Write up to ``steps`` symbols for each row, keeping the ``beams`` likeliest beginnings.

    The result is the sequence with the highest mean log-probability per symbol among those kept at
    the end; by the sum, short ones would win (Wu et al., 2016, section 7). One beam is greedy.

    Args:
        step: ``logits, state = step(symbols, state)`` of batch * beams beginnings at once, those of
            a row side by side: from the last symbol of each [batch * beams] int64, ``edge`` at
            first, to ``logits`` [batch * beams, number of symbols].
        state: before the first symbol: tensors [layers, batch, ...].
        edge: the symbol that stands before the first one and after the last one.

    Raises:
        TypeError, ValueError: a count that is not an integer of 1 or more.
    """
    check_counts(steps=steps, beams=beams)
    batch, device = state[0].size(1), state[0].device
    row = torch.arange(batch, device=device)
    state = tuple(part.repeat_interleave(beams, 1) for part in state)
    written = torch.empty(batch, beams, 0, dtype=torch.int64, device=device)
    last = torch.full((batch * beams,), edge, device=device)
    counts = last.new_zeros(batch, beams)
    ended = counts.bool()
    # All beams of a row begin alike, so that only its first one may go on at first.
    total = torch.full((batch, beams), -torch.inf, device=device)
    total[:, 0] = 0
    for _ in range(steps):
        logits, state = step(last, state)
        chances = logits.float().log_softmax(1).view(batch, beams, -1)
        # An ended sequence stays as it is: its only continuation is the edge, with probability 1.
        stays = torch.full_like(chances[0, 0], -torch.inf)
        stays[edge] = 0
        chances = torch.where(ended[..., None], stays, chances)
        total, best = (total[..., None] + chances).flatten(1).topk(beams, 1)
        source, symbol = best // chances.size(2), best % chances.size(2)
        before = written.gather(1, source[..., None].expand(written.shape))
        written = torch.cat((before, symbol[..., None]), 2)
        ended = ended.gather(1, source)
        counts = counts.gather(1, source) + ~ended
        ended = ended | (symbol == edge)
        if ended.all():
            break
        chosen = (beams * row[:, None] + source).flatten()
        state = tuple(part.index_select(1, chosen) for part in state)
        last = symbol.flatten()
    scores, best = (total / counts).max(1)
    return Written(written[row, best], (counts - ended.long())[row, best], scores)

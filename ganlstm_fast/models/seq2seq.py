"""A sequence of symbols to another one: LSTM encoder, LSTM decoder with attention.

Sutskever et al., 2014, with attention (Bahdanau et al., 2015) after the decoder's LSTM, as in Luong
et al., 2015: the LSTM does not wait for it, and takes all steps of a training in one call.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlstm_fast.models.base import eval_mode
from ganlstm_fast.models.beam_search import State, Written, beam_search
from ganlstm_fast.models.sequence import LSTMClass, check_symbols, make_attention, run_lstm
from ganlstm_fast.nn import FastLSTM
from ganlstm_fast.nn.masks import Lengths
from ganlstm_fast.ops.validation import check_counts

EDGE = 0


class SequenceToSequence(nn.Module):
    """Symbols [batch, source steps] int64 -> symbols [batch, target steps] int64.

    Number 0 of the target's symbols is its edge: before the first symbol and after the last one.

    Args:
        symbols: how many the source has, numbered from 0.
        targets: how many the target has, the edge among them.
        embedding: numbers that a symbol is, on both sides.
        hidden, layers: of the decoder, and of each direction of the encoder.
        dropout: of both LSTMs between their layers, of the embeddings, and before the logits.
        attention: ``"additive"`` or ``"dot"``.
        lstm: the layers' class, with the constructor of ``torch.nn.LSTM``.
    """

    def __init__(
        self,
        symbols: int,
        targets: int,
        *,
        embedding: int = 32,
        hidden: int = 64,
        layers: int = 1,
        dropout: float = 0.0,
        attention: str = "additive",
        lstm: LSTMClass = FastLSTM,
    ) -> None:
        super().__init__()
        check_counts(symbols=symbols, embedding=embedding, hidden=hidden, layers=layers)
        check_counts(2, targets=targets)
        options = {"num_layers": layers, "batch_first": True}
        options["dropout"] = dropout if layers > 1 else 0.0
        self.source = nn.Embedding(symbols, embedding)
        self.encoder = lstm(embedding, hidden, bidirectional=True, **options)
        self.bridge = nn.Linear(2 * hidden, 2 * hidden)
        self.target = nn.Embedding(targets, embedding)
        self.decoder = lstm(embedding, hidden, **options)
        self.attention = make_attention(attention, 2 * hidden, query_features=hidden)
        self.join = nn.Linear(3 * hidden, hidden)
        self.head = nn.Linear(hidden, targets)
        self.dropout = nn.Dropout(dropout)

    def forward(self, source: Tensor, target: Tensor, *, lengths: Lengths | None = None) -> Tensor:
        """Logits [batch, target steps + 1, targets] of each symbol after those before it, and of
        the end: the decoder is given the right ones (teacher forcing, Williams and Zipser, 1989).

        Args:
            source: [batch, source steps] int64; ``lengths`` [batch] for a padded batch.
            target: [batch, target steps] int64, after whose end the symbols do not matter.

        Raises:
            TypeError, ValueError: symbols of the wrong type, shape, or (on the CPU) number.
        """
        check_symbols("target", target, self.target.num_embeddings)
        read, state = self.encode(source, lengths)
        return self.decode(read, F.pad(target, (1, 0), value=EDGE), state, lengths)[0]

    def encode(self, source: Tensor, lengths: Lengths | None = None) -> tuple[Tensor, State]:
        """What was read at each step [batch, steps, 2 * hidden], and the decoder's first state."""
        check_symbols("source", source, self.source.num_embeddings)
        read, last = run_lstm(self.encoder, self.dropout(self.source(source)), lengths)
        # Of each layer both directions' last states, side by side.
        last = last.unflatten(0, (-1, 2)).transpose(1, 2).flatten(2)
        hidden, cell = self.bridge(last).tanh().chunk(2, 2)
        return read, (hidden.contiguous(), cell.contiguous())

    def decode(
        self, read: Tensor, before: Tensor, state: State, lengths: Lengths | None = None
    ) -> tuple[Tensor, Tensor, State]:
        """Logits [batch, steps, targets], the attention's weights [batch, steps, source steps], and
        the state after the symbols ``before`` [batch, steps]."""
        outputs, state = self.decoder(self.dropout(self.target(before)), state)
        pooled, weights = self.attention(read, outputs, lengths=lengths)
        if weights.dim() == 4:  # of one head
            weights = weights.squeeze(2)
        joined = self.join(torch.cat((outputs, pooled), 2)).tanh()
        return self.head(self.dropout(joined)), weights, state

    @torch.no_grad()
    def translate(
        self, source: Tensor, steps: int, *, lengths: Lengths | None = None, beams: int = 4
    ) -> Written:
        """The likeliest target of at most ``steps`` symbols, the end among them, in eval mode, by
        :func:`beam_search`. Args: ``source`` and ``lengths`` as for the forward."""
        with eval_mode(self):
            read, first = self.encode(source, lengths)
            read = read.repeat_interleave(beams, 0)
            each = None if lengths is None else torch.as_tensor(lengths).repeat_interleave(beams)

            def step(last: Tensor, state: State) -> tuple[Tensor, State]:
                logits, _, state = self.decode(read, last[:, None], state, each)
                return logits[:, 0], state

            return beam_search(step, first, steps, beams, EDGE)

    @torch.no_grad()
    def attended(self, source: Tensor, target: Tensor, *, lengths: Lengths | None = None) -> Tensor:
        """Where the decoder looked before each symbol of ``target`` and the end: rows of sum 1,
        [batch, target steps + 1, source steps]. Args: as for the forward."""
        with eval_mode(self):
            read, state = self.encode(source, lengths)
            before = F.pad(target, (1, 0), value=EDGE)
            return self.decode(read, before, state, lengths)[1]

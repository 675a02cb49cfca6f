"""A generative adversarial network for series: an LSTM generator and a critic of sequences.

RCGAN's layout (Esteban, Hyland and Rätsch, 2017): the generator turns a sequence of noise into a
sequence of values, one a step, and the critic reads the whole sequence.
"""

from __future__ import annotations

from torch import Tensor, nn

from ganlstm_fast.models.critics import LSTMCritic, make_critic, uses_spectral_norm
from ganlstm_fast.models.lstm_generator import LSTMGenerator
from ganlstm_fast.models.sequence import LSTMClass
from ganlstm_fast.nn import FastLSTM
from ganlstm_fast.nn.masks import Lengths

__all__ = ["LSTMGAN", "LSTMCritic", "LSTMGenerator"]


class LSTMGAN(nn.Module):
    """The pair, as ``generator`` and ``critic``. To make series::

        fake = gan(gan.generator.noise(32, 24))  # [32, 24, channels]

    and to score them ``gan.critic(fake)``, [32]. Both take ``lengths=`` for a padded batch.

    Args:
        channels, noise, hidden, layers, lstm: of :class:`LSTMGenerator` and the critic.
        bidirectional: of the generator.
        critic: ``"lstm"``, ``"bilstm"``, ``"attention"`` or ``"conv"``.
        spectral_norm: of the critic; None is on for ``"conv"`` and off for the others.
    """

    def __init__(
        self,
        channels: int,
        noise: int = 16,
        hidden: int = 32,
        layers: int = 1,
        lstm: LSTMClass = FastLSTM,
        *,
        bidirectional: bool = False,
        critic: str = "lstm",
        spectral_norm: bool | None = None,
    ) -> None:
        super().__init__()
        options = {"bidirectional": bidirectional}
        self.generator = LSTMGenerator(channels, noise, hidden, layers, lstm, **options)
        norm = uses_spectral_norm(critic, spectral_norm)
        self.critic = make_critic(critic, channels, hidden, layers, lstm, norm)

    def forward(self, noise: Tensor, *, lengths: Lengths | None = None) -> Tensor:
        return self.generator(noise, lengths=lengths)

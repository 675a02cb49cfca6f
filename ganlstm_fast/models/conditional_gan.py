"""A generative adversarial network for series under a condition (Mirza and Osindero, 2014)."""

from __future__ import annotations

from torch import Tensor, nn

from ganlstm_fast.models.condition import ConditionEncoder
from ganlstm_fast.models.conditional_critic import ConditionalCritic
from ganlstm_fast.models.critics import make_critic, uses_spectral_norm
from ganlstm_fast.models.lstm_generator import LSTMGenerator
from ganlstm_fast.models.sequence import LSTMClass
from ganlstm_fast.nn import FastLSTM
from ganlstm_fast.nn.masks import Lengths
from ganlstm_fast.ops.validation import check_counts


class ConditionalLSTMGenerator(LSTMGenerator):
    """Noise [batch, steps, noise] and a condition -> series [batch, steps, channels] in [0, 1].

    Args:
        encoder: of the condition, which the LSTM reads at each step beside the noise.
        others: as for :class:`LSTMGenerator`.
    """

    def __init__(
        self,
        channels: int,
        encoder: ConditionEncoder,
        noise: int = 16,
        hidden: int = 32,
        layers: int = 1,
        lstm: LSTMClass = FastLSTM,
        *,
        bidirectional: bool = False,
    ) -> None:
        options = {"bidirectional": bidirectional, "condition": encoder.size}
        super().__init__(channels, noise, hidden, layers, lstm, **options)
        self.encoder = encoder

    def forward(
        self, noise: Tensor, *, lengths: Lengths | None = None, **condition: Tensor
    ) -> Tensor:
        """``condition``: the keyword arguments of the encoder's forward."""
        return super().forward(noise, self.encoder(**condition), lengths=lengths)


class ConditionalLSTMGAN(nn.Module):
    """The pair, as ``generator`` and ``critic``, each with an encoder of its own for the condition.

    The condition is given by keyword, the same to both::

        fake = gan(gan.generator.noise(32, 24), labels=month)  # [32, 24, channels]
        scores = gan.critic(fake, labels=month)
        gradient_penalty(gan.critic, real, fake, critic_kwargs={"labels": month})

    Args:
        channels, noise, hidden, layers, lstm, bidirectional, critic, spectral_norm: as for
            :class:`~ganlstm_fast.models.LSTMGAN`.
        labels, features, history, embedding: the conditions there are, one or more, as for
            :class:`~ganlstm_fast.models.condition.ConditionEncoder`.
        projection: the critic takes the label by projection, else as the other conditions.
    """

    def __init__(
        self,
        channels: int,
        noise: int = 16,
        hidden: int = 32,
        layers: int = 1,
        lstm: LSTMClass = FastLSTM,
        *,
        labels: int = 0,
        features: int = 0,
        history: int = 0,
        embedding: int = 16,
        bidirectional: bool = False,
        critic: str = "lstm",
        spectral_norm: bool | None = None,
        projection: bool = False,
    ) -> None:
        super().__init__()
        check_counts(0, labels=labels, features=features, history=history)
        if not (labels or features or history):
            raise ValueError("labels, features, history: expected one or more above 0, got none")
        if projection and not labels:
            raise ValueError("projection: expected False without labels, got True")
        other = {"features": features, "history": history, "embedding": embedding, "lstm": lstm}
        encoder = ConditionEncoder(labels=labels, **other)
        sizes = (noise, hidden, layers, lstm)
        self.generator = ConditionalLSTMGenerator(
            channels, encoder, *sizes, bidirectional=bidirectional
        )
        encoder = ConditionEncoder(labels=0 if projection else labels, **other)
        norm = uses_spectral_norm(critic, spectral_norm)
        sizes = (channels, hidden, layers, lstm, norm)
        body = make_critic(critic, *sizes, condition=encoder.size)
        self.critic = ConditionalCritic(body, encoder, labels if projection else 0, norm)

    def forward(
        self, noise: Tensor, *, lengths: Lengths | None = None, **condition: Tensor
    ) -> Tensor:
        return self.generator(noise, lengths=lengths, **condition)

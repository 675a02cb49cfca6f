"""A generative adversarial network for images under a text (Reed et al., 2016).

Reed et al., Generative Adversarial Text to Image Synthesis, 2016: the text's code is joined with
the noise, and the critic judges an image together with a text. Here an LSTM that is trained jointly
computes the code, which enters the critic by projection (Miyato and Koyama, cGANs with Projection
Discriminator, 2018, equation 3), with a linear map in the place of a label's embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganlstm_fast.models.base import VectorGenerator, normalized, sample_in_batches
from ganlstm_fast.models.dcgan import DCCritic, DCGenerator
from ganlstm_fast.models.sequence import LSTMClass, SequenceEncoder
from ganlstm_fast.nn import FastLSTM
from ganlstm_fast.nn.masks import Lengths
from ganlstm_fast.ops.validation import check_counts, describe


class TextEncoder(nn.Module):
    """Words [batch, steps] int64 -> the LSTM's last state [batch, size].

    Args:
        words: how many there are.
        embedding: numbers that a word is.
        hidden: units of the LSTM, which is ``size``.
        lstm: the layer's class, with the constructor of ``torch.nn.LSTM``.
    """

    def __init__(
        self, words: int, embedding: int = 32, hidden: int = 64, lstm: LSTMClass = FastLSTM
    ) -> None:
        super().__init__()
        check_counts(words=words, embedding=embedding, hidden=hidden)
        self.words = nn.Embedding(words, embedding)
        self.sequence = SequenceEncoder(embedding, hidden, lstm=lstm)
        self.size = self.sequence.size

    def forward(self, words: Tensor, lengths: Lengths | None = None) -> Tensor:
        """``lengths``: [batch], of padded texts."""
        if not isinstance(words, Tensor) or words.dtype != torch.int64 or words.dim() != 2:
            raise TypeError(
                f"words: expected an int64 tensor of shape (batch, steps), got {describe(words)}"
            )
        return self.sequence(self.words(words), lengths)


class TextToImageGenerator(VectorGenerator):
    """Noise [batch, noise] and a text -> images [batch, channels, size, size] in [-1, 1].

    Args:
        encoder: of the text, whose code a :class:`DCGenerator` gets beside the noise.
        others: as for :class:`DCGenerator`.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        size: int = 64,
        channels: int = 3,
        noise: int = 64,
        width: int = 64,
    ) -> None:
        super().__init__(noise)
        self.encoder = encoder
        self.images = DCGenerator(size, channels, noise + encoder.size, width)

    def forward(self, noise: Tensor, words: Tensor, lengths: Lengths | None = None) -> Tensor:
        return self.images(torch.cat((noise, self.encoder(words, lengths)), 1))

    def sample(
        self,
        words: Tensor,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
        batch: int = 1024,
    ) -> Tensor:
        """An image of each text, made ``batch`` at a time, in eval mode."""

        def make(rows: slice) -> Tensor:
            noise = self.noise(rows.stop - rows.start, generator)
            return self(noise, words[rows], None if lengths is None else lengths[rows])

        return sample_in_batches(self, len(words), batch, make)


class TextToImageCritic(nn.Module):
    """Images and a text -> scores [batch]: of the image, and of whether the text is of it.

    Args:
        encoder: of the text.
        size, channels, width: of a :class:`DCCritic` with spectral norm.
    """

    def __init__(
        self, encoder: TextEncoder, size: int = 64, channels: int = 3, width: int = 64
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.images = DCCritic(size, channels, width, "spectral")
        features = self.images.head.in_features
        self.projection = normalized(nn.Linear(encoder.size, features, bias=False), on=True)

    def forward(self, images: Tensor, words: Tensor, lengths: Lengths | None = None) -> Tensor:
        features = self.images.features(images)
        match = (self.projection(self.encoder(words, lengths)) * features).sum(1)
        return self.images.head(features).squeeze(1) + match


class TextToImageGAN(nn.Module):
    """The pair, as ``generator`` and ``critic``, each with an encoder of the text of its own::

        fake = gan(gan.generator.noise(len(words)), words, lengths)
        scores = gan.critic(fake, words, lengths)
        loss = gradient_penalty(gan.critic, real, kind="r1", critic_args=(words, lengths))

    Args:
        words, embedding, hidden, lstm: as for :class:`TextEncoder`.
        size, channels, noise, width: as for :class:`DCGenerator`.
    """

    def __init__(
        self,
        words: int,
        size: int = 64,
        channels: int = 3,
        noise: int = 64,
        width: int = 64,
        *,
        embedding: int = 32,
        hidden: int = 64,
        lstm: LSTMClass = FastLSTM,
    ) -> None:
        super().__init__()
        text = (words, embedding, hidden, lstm)
        self.generator = TextToImageGenerator(TextEncoder(*text), size, channels, noise, width)
        self.critic = TextToImageCritic(TextEncoder(*text), size, channels, width)

    def forward(self, noise: Tensor, words: Tensor, lengths: Lengths | None = None) -> Tensor:
        return self.generator(noise, words, lengths)

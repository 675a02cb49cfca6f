"""The shapes that are measured, once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LSTMShape:
    """Batch, time steps, input size, hidden size, layers, directions."""

    B: int
    T: int
    I: int  # noqa: E741
    H: int
    layers: int = 1
    directions: int = 1

    def __str__(self) -> str:
        text = f"B{self.B} T{self.T} I{self.I} H{self.H}"
        if (self.layers, self.directions) != (1, 1):
            text += f", layers {self.layers}, directions {self.directions}"
        return text


# In the order of cost. Each set contains the one before it.
LSTM_QUICK = (LSTMShape(64, 24, 6, 24), LSTMShape(32, 128, 64, 128))
LSTM_DEFAULT = (*LSTM_QUICK, LSTMShape(128, 24, 28, 64))
LSTM_FULL = (
    *LSTM_DEFAULT,
    LSTMShape(1, 1000, 32, 128),
    LSTMShape(16, 1000, 32, 128),
    LSTMShape(64, 256, 64, 256),
    LSTMShape(64, 50, 512, 512),
)
LSTM_SHAPES = {
    "quick": LSTM_QUICK,
    "default": LSTM_DEFAULT,
    "large": LSTM_FULL,
    "full": LSTM_FULL,
}

_STACK = (LSTMShape(128, 24, 28, 64, layers=2, directions=2),)
LSTM_LAYERS = {"quick": (), "default": (), "large": _STACK, "full": _STACK}
_BFLOAT16 = (
    LSTMShape(32, 128, 64, 128),
    LSTMShape(16, 1000, 32, 128),
    LSTMShape(64, 256, 64, 256),
    LSTMShape(64, 50, 512, 512),
)
LSTM_BFLOAT16 = {
    "quick": (),
    "default": _BFLOAT16[:1],
    "large": _BFLOAT16,
    "full": _BFLOAT16,
}
LSTM_PACKED = (LSTMShape(64, 200, 128, 128),)
LSTM_STREAMING = (LSTMShape(1, 100, 32, 128),)

_CRITIC_STEP = ("LSTM WGAN-GP step", LSTMShape(32, 128, 64, 128))
_MEMORY = (
    ("LSTM forward+backward", LSTMShape(256, 1000, 64, 128)),
    _CRITIC_STEP,
    ("LSTM WGAN-GP step", LSTMShape(16, 1000, 32, 128)),
)
LSTM_MEMORY = {"quick": (), "default": (_CRITIC_STEP,), "large": _MEMORY, "full": _MEMORY}

# The convolution weights of networks under spectral norm.
SPECTRAL_NORM_WEIGHTS = {
    "DCGAN-64 discriminator": (
        (64, 3, 4, 4),
        (128, 64, 4, 4),
        (256, 128, 4, 4),
        (512, 256, 4, 4),
        (1, 512, 4, 4),
    ),
}

# Samples, batch first.
PENALTY_SHAPES = ((256, 24, 28),)

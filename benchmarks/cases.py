"""What is measured: the shapes, and the groups of work on each kind of device."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace


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
    *(("LSTM forward+backward", LSTMShape(256, T, 64, 128)) for T in (250, 500, 1000)),
    _CRITIC_STEP,
    ("LSTM WGAN-GP step", LSTMShape(16, 1000, 32, 128)),
)
LSTM_MEMORY = {"quick": (), "default": (_CRITIC_STEP,), "large": _MEMORY, "full": _MEMORY}

# On a GPU. The first is the one to quote.
_CUDA_QUICK = (LSTMShape(64, 128, 64, 128), LSTMShape(64, 24, 6, 24))
_CUDA = (
    *_CUDA_QUICK,
    LSTMShape(128, 24, 28, 64),
    LSTMShape(256, 24, 64, 128),
    LSTMShape(64, 1000, 64, 128),
    LSTMShape(256, 128, 64, 64),
    LSTMShape(64, 256, 64, 256),
    LSTMShape(32, 200, 128, 384),
    LSTMShape(64, 100, 512, 512),
    LSTMShape(32, 1000, 32, 64),
)
LSTM_CUDA = {"quick": _CUDA_QUICK, "default": _CUDA, "large": _CUDA, "full": _CUDA}
# float32 with full products.
_FULL_PRODUCTS = (*_CUDA_QUICK[:1], LSTMShape(64, 256, 64, 256))
LSTM_CUDA_FLOAT32 = {
    "quick": (),
    "default": _FULL_PRODUCTS,
    "large": _CUDA,
    "full": _CUDA,
}
LSTM_CUDA_BFLOAT16 = {
    "quick": (),
    "default": _FULL_PRODUCTS,
    "large": _CUDA,
    "full": _CUDA,
}
# Of which times have been published for cuDNN and FlashRNN.
LSTM_CUDA_FLOAT16 = (LSTMShape(16, 1024, 768, 768),)
# For the time of a step.
LSTM_CUDA_STEPS = tuple(LSTMShape(64, 1000, H, H) for H in (64, 128, 256))
_CUDA_MEMORY = (
    ("LSTM forward+backward", LSTMShape(256, 1000, 64, 128)),
    ("LSTM WGAN-GP critic step", LSTMShape(64, 128, 64, 128)),
)
LSTM_CUDA_MEMORY = {
    "quick": (),
    "default": _CUDA_MEMORY,
    "large": _CUDA_MEMORY,
    "full": _CUDA_MEMORY,
}

# Weights under spectral norm, of layers and of whole networks.
SPECTRAL_NORM_LAYERS = {
    "Conv 64x3x4x4": ((64, 3, 4, 4),),
    "Conv 512x256x4x4": ((512, 256, 4, 4),),
    "Conv 1024x1024x3x3": ((1024, 1024, 3, 3),),
    "Linear 4096": ((4096, 4096),),
}


def _residual_blocks(channels: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Two 3x3 convolutions and a 1x1 one around them, from each number of channels to the next."""
    shapes: list[tuple[int, ...]] = []
    for before, after in itertools.pairwise(channels):
        shapes += [(after, before, 3, 3), (after, after, 3, 3), (after, before, 1, 1)]
    return tuple(shapes)


SPECTRAL_NORM_NETWORKS = {
    "DCGAN-64 discriminator": (
        (64, 3, 4, 4),
        (128, 64, 4, 4),
        (256, 128, 4, 4),
        (512, 256, 4, 4),
        (1, 512, 4, 4),
    ),
    "SNGAN-ResNet-128 discriminator": (
        *_residual_blocks((3, 64, 128, 256, 512, 1024)),
        (1024, 1024, 3, 3),
        (1024, 1024, 3, 3),
        (1, 1024),
    ),
    "40 small layers": ((32, 32, 3, 3),) * 40,
}
SPECTRAL_NORM = {
    "quick": {"DCGAN-64 discriminator": SPECTRAL_NORM_NETWORKS["DCGAN-64 discriminator"]},
    "default": SPECTRAL_NORM_LAYERS | SPECTRAL_NORM_NETWORKS,
    "large": SPECTRAL_NORM_LAYERS | SPECTRAL_NORM_NETWORKS,
    "full": SPECTRAL_NORM_LAYERS | SPECTRAL_NORM_NETWORKS,
}

# One size doubled at a time, from one shape.
_FROM = LSTMShape(32, 64, 32, 64)
GROWTH_LSTM = (
    _FROM,
    *(replace(_FROM, **{name: 2**k * getattr(_FROM, name)}) for name in "TBH" for k in (1, 2)),
    *(replace(_FROM, layers=layers) for layers in (2, 4)),
)
GROWTH_LSTM_STEPS = tuple(replace(_FROM, T=T) for T in (64, 128, 256))
GROWTH_LAYERS = tuple(((32, 32, 3, 3),) * count for count in (5, 10, 20))
GROWTH_SAMPLES = tuple((B, 1000, 16) for B in (8, 16, 32))

# Samples, batch first.
PENALTY_SHAPES = {
    "quick": ((256, 24, 28),),
    "default": ((64, 16), (256, 24, 28), (64, 1000, 16), (64, 3, 128, 128)),
}
PENALTY_SHAPES["large"] = PENALTY_SHAPES["full"] = PENALTY_SHAPES["default"]

# Critics of a WGAN-GP step and their samples, batch first.
PENALTY_CRITICS = {
    "quick": {"MLP 784-256-256-1": (64, 784)},
    "default": {
        "MLP 784-256-256-1": (64, 784),
        "LSTM 64": (64, 24, 6),
        "DCGAN-64": (16, 3, 64, 64),
    },
}
PENALTY_CRITICS["large"] = PENALTY_CRITICS["full"] = PENALTY_CRITICS["default"]

# Scores of a critic: one a sample, one a step of a series, PatchGAN's.
_SCORES = ((64,), (64, 1), (4096,), (64, 1000), (16, 1, 30, 30))
SCORE_SHAPES = {"quick": (), "default": _SCORES[:1], "large": _SCORES, "full": _SCORES}

# Whole training steps.
TRAIN_STEPS = {
    "quick": ("LSTM-GAN",),
    "default": (
        "MLP GAN",
        "DCGAN-64",
        "LSTM-GAN",
        "conditional LSTM-GAN",
        "text to image",
        "video GAN",
        "sound GAN",
        "text GAN",
        "CycleGAN",
        "LSTM forecaster",
        "LSTM classifier",
        "LSTM text classifier",
        "LSTM sequence to sequence",
    ),
}
TRAIN_STEPS["large"] = TRAIN_STEPS["full"] = TRAIN_STEPS["default"]

TRAIN_STEP_MEMORY = {
    "quick": (),
    "default": (),
    "large": ("DCGAN-128",),
    "full": ("DCGAN-128",),
}

_PENALTY = ("interpolate", "penalty, value and both gradients", "penalty, value and gradient")
# The groups of ``--full`` on each kind of device; the report names those that a device lacks.
GROUPS = {
    "cpu": (
        *_PENALTY,
        "WGAN-GP critic step",
        "LSTM forward+backward",
        "LSTM WGAN-GP step",
        "spectral norm forward+backward",
        "critic loss and gradients, non-saturating",
        "critic loss and gradients, non-saturating, smoothed",
        "critic loss and gradients, hinge",
        "critic loss and gradients, lsgan",
        "critic loss and gradients, relativistic",
        "critic loss and gradients, relativistic-average",
        "LSTM forward",
        "LSTM forward, bf16",
        "LSTM forward+backward, bf16",
        "LSTM packed, forward+backward",
        "LSTM streaming",
        "peak memory, LSTM forward+backward",
        "peak memory, LSTM WGAN-GP step",
        "peak memory, training step",
        "spectral norm forward",
        "spectral norm, 3 calls a step, forward+backward",
        "spectral norm, discriminator step",
        "training step",
    ),
    "cuda": (
        *_PENALTY,
        "CUDA LSTM forward, tf32",
        "CUDA LSTM forward+backward, tf32",
        "CUDA LSTM WGAN-GP critic step, tf32",
        "CUDA LSTM forward, fp16",
        "CUDA LSTM forward+backward, fp16",
        "CUDA LSTM forward, bf16",
        "peak memory, CUDA LSTM forward+backward, tf32",
        "peak memory, CUDA LSTM WGAN-GP critic step, tf32",
        "CUDA LSTM forward+backward, bf16",
        "CUDA LSTM forward, fp32",
        "CUDA LSTM forward+backward, fp32",
        "CUDA LSTM WGAN-GP critic step, bf16",
        "CUDA LSTM WGAN-GP critic step, fp32",
        "spectral norm forward",
        "spectral norm forward+backward",
    ),
}

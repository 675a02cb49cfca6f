"""Code that mypy must refuse: it also reports lines in which it finds no error."""

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

import ganlstm_fast as gf
from ganlstm_fast import losses


def lstm(x: Tensor, packed: PackedSequence) -> None:
    gf.FastLSTM("x", 4)  # type: ignore[arg-type]
    gf.FastLSTM(3, 4, banana=3)  # type: ignore[call-arg]
    gf.FastLSTM(3)  # type: ignore[call-arg]
    gf.FastLSTM(3, 4, dtype="float32")  # type: ignore[arg-type]
    layer = gf.FastLSTM(3, 4)
    layer([1, 2])  # type: ignore[call-overload]
    layer(x, x)  # type: ignore[call-overload]
    layer(x, lengths=2)  # type: ignore[call-overload]
    layer(packed, lengths=[2])  # type: ignore[call-overload]
    layer.forward(x, banana=3)  # type: ignore[call-overload]
    gf.SNLSTM(3, 4, norm="conv")  # type: ignore[call-arg]
    gf.FastLSTMCell(3, 4, recompute=True)  # type: ignore[call-arg]
    gf.FastLSTMCell(3, 4)(x, x)  # type: ignore[arg-type]


def spectral_norm_layers(x: Tensor) -> None:
    gf.SNLinear(3, 4, banana=3)  # type: ignore[call-arg]
    gf.SNLinear(3, "4")  # type: ignore[arg-type]
    gf.SNLinear(3, 4)(x, x)  # type: ignore[call-arg]
    gf.SNEmbedding(3, 4, padding_idx="0")  # type: ignore[arg-type]
    gf.SNConv1d(3, 4, (3, 3))  # type: ignore[arg-type]
    gf.SNConv2d(3, 4, 3, output_padding=1)  # type: ignore[call-arg]
    gf.SNConv2d(3, 4, 3, padding_mode="same")  # type: ignore[arg-type]
    gf.SNConv3d(3, 4)  # type: ignore[call-arg]
    gf.SNConvTranspose2d(3, 4, 3, padding="same")  # type: ignore[arg-type]
    gf.SNConvTranspose2d(3, 4, 3)(x, banana=[5])  # type: ignore[call-arg]


def functions(x: Tensor, model: nn.Module) -> None:
    gf.spectral_norm(x)  # type: ignore[type-var]
    gf.spectral_norm(model).in_features = "x"  # type: ignore[assignment]
    gf.accelerate("model")  # type: ignore[arg-type]
    gf.lstm(x, x, lengths="x")  # type: ignore[arg-type]
    gf.lstm_cell(x, [x, x])  # type: ignore[call-arg]
    gf.interpolate(x, (x, x))  # type: ignore[type-var]
    gf.penalty(x, centre=1.0)  # type: ignore[call-arg]
    gf.gradient_penalty(x.sum, x, kind=3)  # type: ignore[arg-type]
    gf.explain(dtype="float32")  # type: ignore[arg-type]
    gf.use_impl(3)  # type: ignore[arg-type]
    losses.hinge_critic_loss(x)  # type: ignore[call-arg]

"""Correct code of a user, with the types that mypy must infer. Nothing runs it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from typing_extensions import assert_type

import ganlstm_fast as gf
from ganlstm_fast import losses
from ganlstm_fast.convert import Report
from ganlstm_fast.models.critics import LSTMCritic
from ganlstm_fast.models.lstm_gan import LSTMGAN
from ganlstm_fast.nn import AdditiveAttention


def lstm(x: Tensor, packed: PackedSequence, either: Tensor | PackedSequence, n: list[int]) -> None:
    layer = gf.FastLSTM(3, 4, 2, batch_first=True, device="cpu", dtype=torch.float64, impl="cpu")
    y, (h, c) = layer(x)
    assert_type(y, Tensor)
    assert_type(h, Tensor)
    assert_type(layer(x, (h, c), lengths=n), tuple[Tensor, tuple[Tensor, Tensor]])
    assert_type(layer.forward(x, lengths=c), tuple[Tensor, tuple[Tensor, Tensor]])
    assert_type(layer(packed)[0], PackedSequence)
    assert_type(layer(either)[0], Tensor | PackedSequence)
    assert_type(gf.SNLSTM(3, 4, proj_size=2, recompute=True, eps=1e-6)(x)[0], Tensor)
    assert_type(gf.FastLSTMCell(3, 4, False, torch.device("cpu"))(x, (h, c)), tuple[Tensor, Tensor])
    torchs: nn.LSTM = layer
    assert_type(torchs.hidden_size, int)


def spectral_norm_layers(x: Tensor) -> None:
    assert_type(gf.SNLinear(3, 4, bias=False, n_power_iterations=2)(x), Tensor)
    assert_type(gf.SNEmbedding(3, 4, padding_idx=0)(x), Tensor)
    assert_type(gf.SNConv1d(3, 4, (3,), padding="same")(x), Tensor)
    assert_type(gf.SNConv2d(3, 4, (3, 3), 1, norm="conv", input_size=(8, 8))(x), Tensor)
    assert_type(gf.SNConv3d(3, 4, 3, padding_mode="circular")(x), Tensor)
    assert_type(gf.SNConvTranspose1d(3, 4, 3)(x, output_size=[5]), Tensor)
    assert_type(gf.SNConvTranspose2d(3, 4, 3, 2, 1, (1, 1))(x), Tensor)
    assert_type(gf.SNConvTranspose3d(3, 4, (1, 2, 3), device="meta")(x), Tensor)
    assert_type(AdditiveAttention(3)(x, lengths=[1, 2]), tuple[Tensor, Tensor])


def conversions(model: nn.Sequential, conv: nn.Conv2d) -> None:
    assert_type(gf.spectral_norm(conv, eps=1e-6), nn.Conv2d)
    assert_type(gf.remove_spectral_norm(conv), nn.Conv2d)
    assert_type(gf.accelerate(model), Report)
    assert_type(gf.to_torch(model).changed[0].module, str)
    assert_type(gf.explain("cuda:0", torch.bfloat16), str)
    with gf.use_impl("reference", "lstm"), gf.spectral_norm_step(model):
        pass


def functions(x: Tensor, weights: Sequence[Tensor], critic: nn.Module) -> None:
    assert_type(gf.lstm(x, [weights], lengths=[1]), tuple[Tensor, Tensor, Tensor])
    assert_type(gf.lstm_cell(x, weights, x, x), tuple[Tensor, Tensor])
    assert_type(gf.interpolate(x, x), Tensor)
    assert_type(gf.interpolate((x, x), (x, x)), tuple[Tensor, ...])
    assert_type(gf.penalty([x, x], center=0.0), Tensor)
    assert_type(gf.gradient_penalty(critic, x, x, kind="r1", critic_args=[x]), Tensor)
    assert_type(losses.gan_loss("hinge").critic(x, x), Tensor)
    assert_type(losses.hinge_generator_loss(x), Tensor)


def models() -> None:
    assert_type(LSTMGAN(2), LSTMGAN)
    assert_type(LSTMCritic(2), LSTMCritic)

"""Layers: drop-in replacements of torch's."""

from ganlstm_fast.nn.attention import AdditiveAttention, DotProductAttention
from ganlstm_fast.nn.lstm import FastLSTM, FastLSTMCell
from ganlstm_fast.nn.sn_lstm import SNLSTM
from ganlstm_fast.nn.spectral_norm import (
    SNConv1d,
    SNConv2d,
    SNConv3d,
    SNConvTranspose1d,
    SNConvTranspose2d,
    SNConvTranspose3d,
    SNEmbedding,
    SNLinear,
    SpectralNorm,
    remove_spectral_norm,
    spectral_norm,
)
from ganlstm_fast.nn.spectral_norm_step import spectral_norm_step

__all__ = [
    "SNLSTM",
    "AdditiveAttention",
    "DotProductAttention",
    "FastLSTM",
    "FastLSTMCell",
    "SNConv1d",
    "SNConv2d",
    "SNConv3d",
    "SNConvTranspose1d",
    "SNConvTranspose2d",
    "SNConvTranspose3d",
    "SNEmbedding",
    "SNLinear",
    "SpectralNorm",
    "remove_spectral_norm",
    "spectral_norm",
    "spectral_norm_step",
]

"""Fused LSTM, spectral-norm and gradient-penalty operators for PyTorch, to second order."""

import sys

__version__ = "0.1.0"

# The command shows its help and answers a typo without torch, whose import takes a second or two.
# It loads the modules that it needs by itself. Python sets argv[0] to "-m" while it imports the
# package of the module to run, which may be another one that imports this package.
_IS_COMMAND = "".join(sys.argv[:1]).endswith("/ganlstm-fast") or (
    sys.argv[:1] == ["-m"]
    and "-m" in sys.orig_argv
    and sys.orig_argv[sys.orig_argv.index("-m") + 1] == "ganlstm_fast"
)

if not _IS_COMMAND:
    from ganlstm_fast.convert import accelerate, to_torch
    from ganlstm_fast.losses import gradient_penalty
    from ganlstm_fast.nn import (
        SNLSTM,
        FastLSTM,
        FastLSTMCell,
        SNConv1d,
        SNConv2d,
        SNConv3d,
        SNConvTranspose1d,
        SNConvTranspose2d,
        SNConvTranspose3d,
        SNEmbedding,
        SNLinear,
        remove_spectral_norm,
        spectral_norm,
        spectral_norm_step,
    )
    from ganlstm_fast.ops.backends import empty_cache, use_impl
    from ganlstm_fast.ops.explanation import explain
    from ganlstm_fast.ops.gradient_penalty.function import interpolate, penalty
    from ganlstm_fast.ops.lstm.function import lstm, lstm_cell

__all__ = [
    "SNLSTM",
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
    "__version__",
    "accelerate",
    "empty_cache",
    "explain",
    "gradient_penalty",
    "interpolate",
    "lstm",
    "lstm_cell",
    "penalty",
    "remove_spectral_norm",
    "spectral_norm",
    "spectral_norm_step",
    "to_torch",
    "use_impl",
]

"""Models built on the layers of :mod:`ganlstm_fast.nn`."""

from ganlstm_fast.models.lstm_gan import LSTMGAN, LSTMCritic, LSTMGenerator

__all__ = ["LSTMGAN", "LSTMCritic", "LSTMGenerator"]

"""Spectral normalisation of weights. The layers are in ``ganlstm_fast.nn``."""

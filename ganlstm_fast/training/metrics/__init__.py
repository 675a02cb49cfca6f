"""How well generated data can stand in for real data.

- :mod:`.timegan`: the discriminative and the predictive score of series (the names below).
- :mod:`.series`: distances, diversity and autocorrelation of sets of series.
- :mod:`.images`: scores by a classifier of real images.
- :mod:`.translations`: scores of translated images by classifiers of real ones.
- :mod:`.videos`: scores of motion, and of whether a network tells videos from real ones.
- :mod:`.pitch`, :mod:`.sounds`: the pitch of sounds, and scores of pitch, length and spectrum.
- :mod:`.forecast`: errors of forecasts, beside simple ones.
- :mod:`.anomaly`: how well a score finds planted anomalies.
- :mod:`.texts`: simple rivals of models that read texts.
- :mod:`.generated_texts`: groups of symbols, words and language models of generated text.

All but the first import scipy or scikit-learn, and are imported where they are used.
"""

from ganlstm_fast.training.metrics.timegan import (
    NOISE_AT_LEAST,
    PROTOCOLS,
    REAL_AT_MOST,
    ParallelGRU,
    Protocol,
    discriminative_accuracies,
    evaluate,
    predictive_errors,
)

__all__ = [
    "NOISE_AT_LEAST",
    "PROTOCOLS",
    "REAL_AT_MOST",
    "ParallelGRU",
    "Protocol",
    "discriminative_accuracies",
    "evaluate",
    "predictive_errors",
]

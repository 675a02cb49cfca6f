"""The errors that a command reports in one line."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave cannot be used. The message says what is wrong and what to do."""


class UndefinedScore(InputError):
    """A score has no value for this data. The message says why; it ends no run."""


class TrainingError(RuntimeError):
    """Training cannot go on. The message names the last good checkpoint."""

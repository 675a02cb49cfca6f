"""The errors that a command reports in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave cannot be used. The message says what is wrong and what to do."""


class UndefinedScore(InputError):
    """A score has no value for this data. The message says why; it ends no run."""


class TrainingError(RuntimeError):
    """Training cannot go on. The message names the last good checkpoint."""


def did_you_mean(name: str, known: Iterable[object]) -> str:
    """The end of an error's message about a ``name`` that is not known: the one that is like it."""
    spelled = {str(one).lower(): str(one) for one in known}
    near = difflib.get_close_matches(name.lower(), spelled, n=1)
    return f"; did you mean {spelled[near[0]]}?" if near else ""

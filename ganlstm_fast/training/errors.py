"""The errors that a command reports in one line, and how a line names settings.

A message is written once, for Python and for the command line, with each setting between
backticks: `` `seq_len` `` or `` `condition=month` ``. From Python it reads ``seq_len`` and
``condition='month'``; on the command line ``--seq-len`` and ``--condition month``.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable

_SETTING = re.compile(r"`([a-z]\w*)(?:=([^`]*))?`")
_LITERAL = re.compile(r"True|False|None|[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?")


class Line(str):
    """A line for the user. As a string it is for Python; :meth:`for_command` is for a shell.

    Args:
        marked: with settings between backticks; a ``Line`` is left as it is.
    """

    marked: str

    def __new__(cls, marked: str) -> Line:
        if isinstance(marked, Line):
            return marked
        line = super().__new__(cls, _SETTING.sub(_in_python, marked))
        line.marked = marked
        return line

    def for_command(self) -> str:
        """The line with settings as options of the command line."""
        return _SETTING.sub(_as_option, self.marked)


def flag(name: str) -> str:
    """The option of the command line for a setting."""
    return f"--{name.replace('_', '-')}"


def _in_python(setting: re.Match[str]) -> str:
    name, value = setting.groups()
    if value is None:
        return name
    return f"{name}={value if _LITERAL.fullmatch(value) else repr(value)}"


def _as_option(setting: re.Match[str]) -> str:
    name, value = setting.groups()
    if value in (None, "True"):
        return flag(name)
    return flag(f"no_{name}") if value == "False" else f"{flag(name)} {shlex.quote(value)}"


class _ForUser(Exception):
    """An error with a :class:`Line`."""

    def __init__(self, message: str) -> None:
        super().__init__(Line(message))

    def for_command(self) -> str:
        """The message with settings as options of the command line."""
        return self.args[0].for_command()


class InputError(_ForUser, ValueError):
    """Something the user gave cannot be used. The message says what is wrong and what to do."""


class UndefinedScore(InputError):
    """A score has no value for this data. The message says why; it ends no run."""


class TrainingError(_ForUser, RuntimeError):
    """Training cannot go on. The message names the last good checkpoint."""


def did_you_mean(name: str, known: Iterable[object]) -> str:
    """The end of a message about an unknown ``name``: the known name that is most like it."""
    spelled = {str(one).lower(): str(one) for one in known}
    near = difflib.get_close_matches(name.lower(), spelled, n=1)
    return f"; did you mean {spelled[near[0]]}?" if near else ""

"""Scores that have no value for some data, and why.

A measure that has no value raises :class:`~ganlstm_fast.training.errors.UndefinedScore`. Code that
combines several scores calls each through :func:`defined`, so that one without a value does not
lose the others, and :func:`for_json` writes them all. Other errors are bugs, and are not caught.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from ganlstm_fast.training.errors import UndefinedScore

T = TypeVar("T")
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Undefined:
    """Stands where a score has no value. ``reason`` says why, in plain words."""

    reason: str


def defined(measure: Callable[[], T]) -> T | Undefined:
    """What ``measure()`` returns, or why it has no value."""
    try:
        return measure()
    except UndefinedScore as error:
        return Undefined(str(error))


def defined_for(
    kinds: Mapping[str, Kind], measure: Callable[[Kind], T]
) -> dict[str, T | Undefined]:
    """``measure`` of each of ``kinds``, or why that one has no value."""
    return {name: defined(lambda kind=kind: measure(kind)) for name, kind in kinds.items()}


def defined_all(names: Iterable[str], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The scores that ``measure()`` returns, or why those of ``names`` have no value."""
    found = defined(measure)
    return dict.fromkeys(names, found) if isinstance(found, Undefined) else found


def shown(value: float | Undefined | None, digits: int = 3) -> str:
    """A score as it is printed: with ``digits`` after the point, or a dash for none."""
    return "-" if value is None or isinstance(value, Undefined) else f"{value:.{digits}f}"


def check_finite(name: str, values: Tensor) -> None:
    """Raise UndefinedScore where one of ``values`` is infinite or not a number."""
    if not values.isfinite().all():
        raise UndefinedScore(f"{name}: expected finite values, got some that are not")


def for_json(scores: dict[str, Any]) -> dict[str, Any]:
    """``scores`` as metrics.json holds them.

    Args:
        scores: nested dictionaries and lists of what JSON has, and of :class:`Undefined`.

    Returns:
        The same with None for each :class:`Undefined` and for each number that is not finite, which
        JSON does not have. Where there are any, ``undefined`` has the reason of each by its path,
        such as ``mmd_squared.generated``.
    """
    reasons: dict[str, str] = {}

    def written(value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return {k: written(v, f"{path}.{k}" if path else str(k)) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [written(v, f"{path}.{k}") for k, v in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            value = Undefined(f"it came out as {value}, which is not a finite number")
        if isinstance(value, Undefined):
            reasons[path] = value.reason
            return None
        return value

    found = written(scores, "")
    return {**found, "undefined": reasons} if reasons else found


def undefined_lines(metrics: dict[str, Any]) -> list[str]:
    """Lines about the scores without a value in ``metrics``, one for each reason."""
    by_reason: dict[str, dict[str, list[str]]] = {}
    for path, reason in metrics.get("undefined", {}).items():
        score, _, part = path.partition(".")
        parts = by_reason.setdefault(reason, {}).setdefault(score.replace("_", " "), [])
        parts += [part.replace(".", " ")] if part else []
    return [
        "no "
        + ", ".join(f"{name} ({', '.join(of)})" if of else name for name, of in scores.items())
        + f": {reason}"
        for reason, scores in by_reason.items()
    ]

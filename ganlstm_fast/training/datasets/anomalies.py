"""Anomalies planted in a series, to see whether a score finds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ganlstm_fast.training.errors import InputError
from ganlstm_fast.training.windows import Stretches, windows

# A smaller change, in standard deviations of the channel, does not count as an anomaly.
CHANGE = 0.5
TRIES = 1000


@dataclass(frozen=True)
class Event:
    """An anomaly: its kind, its rows ``start`` to ``stop`` (exclusive), and its channels."""

    kind: str
    start: int
    stop: int
    channels: tuple[int, ...]


@dataclass(frozen=True)
class Planted:
    """A series with anomalies in it.

    Attributes:
        rows: [rows, channels], a changed copy.
        labels: [rows] bool, which rows were changed.
        events: the anomalies, by their first row.
        missing: by kind, why fewer than asked for were planted.
        stretches: of the rows; None: all follow each other.
    """

    rows: Tensor
    labels: Tensor
    events: tuple[Event, ...]
    missing: dict[str, str] = field(default_factory=dict)
    stretches: Stretches | None = None

    def window_labels(self, seq_len: int, kind: str | None = None) -> Tensor:
        """[windows] bool: which windows have a row of an anomaly, or of ``kind``."""
        labels = self.labels
        if kind is not None:
            labels = torch.zeros_like(labels)
            for event in self.events:
                if event.kind == kind:
                    labels[event.start : event.stop] = True
        return windows(labels[:, None], seq_len, self.stretches)[..., 0].any(1)


def _spike(stretch: Tensor, spread: Tensor, side: Tensor, strength: float) -> Tensor:
    return stretch + 2 * strength * side * spread


def _level_shift(stretch: Tensor, spread: Tensor, side: Tensor, strength: float) -> Tensor:
    return stretch + strength * side * spread


def _flat(stretch: Tensor, spread: Tensor, side: Tensor, strength: float) -> Tensor:
    return stretch[:1].expand_as(stretch)


def _swapped(stretch: Tensor, spread: Tensor, side: Tensor, strength: float) -> Tensor:
    return stretch.flip(1)


@dataclass(frozen=True)
class _Kind:
    """How an anomaly changes [rows, channels], how many channels it has, and for how many rows."""

    change: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    channels: int
    shortest: int
    longest: int


KINDS = {
    "spike": _Kind(_spike, 1, 1, 2),
    "level-shift": _Kind(_level_shift, 1, 10, 20),
    "flat": _Kind(_flat, 1, 10, 20),
    "swapped": _Kind(_swapped, 2, 10, 20),
}


def plant_anomalies(
    rows: Tensor,
    count: int = 5,
    kinds: Sequence[str] = tuple(KINDS),
    *,
    strength: float = 2.0,
    gap: int = 24,
    strict: bool = True,
    stretches: Stretches | None = None,
    generator: torch.Generator | None = None,
) -> Planted:
    """Change a copy of a series at random places, ``count`` times for each kind of anomaly.

    ============= ========= ======== ============================================================
    kind          rows      channels what happens
    ============= ========= ======== ============================================================
    spike         1 or 2    1        up or down by ``2 * strength`` standard deviations
    level-shift   10 to 20  1        up or down by ``strength`` standard deviations
    flat          10 to 20  1        the first value is held
    swapped       10 to 20  2        each has the other's values
    ============= ========= ======== ============================================================

    It skips places and channels where no value would change by half a standard deviation of its
    channel, such as a flat stretch that is flat already. Values may leave the range of the data.

    Args:
        rows: [rows, channels], scaled so that channels can be compared: of channels in different
            units, swapped ones are trivial to find.
        gap: rows between two anomalies, at least; with the length of a window or more, none has
            two.
        strict: raise where there is no room for ``count`` of each kind. Otherwise plant as many as
            fit, and say in ``missing`` why there are fewer. Where room is short, there are fewer of
            each kind rather than all of some kinds.
        stretches: of the rows, in one of which an anomaly lies; None: all follow each other.
        generator: of the random numbers, on the CPU; None is torch's own.

    Raises:
        ValueError: an unknown kind.
        InputError: with ``strict``, the series is too short for as many, or nowhere would one
            change it enough; for swapped channels, there is only one.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"kinds: expected some of {', '.join(KINDS)}, got {unknown[0]!r}")
    # The spread of a single row would be NaN with the correction, and is 0.
    changed, spread = rows.clone(), rows.std(0, correction=min(1, len(rows) - 1))
    taken = torch.zeros(len(rows), dtype=torch.bool)
    labels = torch.zeros_like(taken)
    events: list[Event] = []
    missing: dict[str, str] = {}
    crowded = False

    def below(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    def plant(name: str) -> Event | None:
        kind = KINDS[name]
        length = kind.shortest + below(kind.longest - kind.shortest + 1)
        if length > len(rows):
            return None
        start = below(len(rows) - length + 1)
        channels = torch.randperm(rows.shape[1], generator=generator)[: kind.channels]
        side = 2.0 * torch.randint(2, (kind.channels,), generator=generator) - 1
        if taken[start : start + length].any():
            return None
        if (
            stretches is not None
            and stretches.of_row[start] != stretches.of_row[start + length - 1]
        ):
            return None
        before = rows[start : start + length, channels]
        after = kind.change(before, spread[channels], side.to(rows.dtype), strength)
        if not ((after - before).abs().amax(0) > CHANGE * spread[channels]).all():
            return None
        changed[start : start + length, channels] = after
        labels[start : start + length] = True
        taken[max(0, start - gap) : start + length + gap] = True
        return Event(name, start, start + length, tuple(channels.tolist()))

    for name in kinds:
        reason = _why_never(KINDS[name], rows)
        for done in range(0 if reason else count):
            event = next((e for e in (plant(name) for _ in range(TRIES)) if e is not None), None)
            if event is None:
                reason = (
                    f"{done or 'none'} of {count} found a place in the {len(rows)} rows that is "
                    f"{gap} rows from others and where it changes enough"
                )
                crowded = True
                break
            events.append(event)
        if reason and strict:
            raise InputError(f"no place for {count} anomalies of the kind {name}: {reason}")
        if reason:
            missing[name] = reason
    events.sort(key=lambda event: event.start)
    planted = Planted(changed, labels, tuple(events), missing, stretches)
    if not crowded or count == 1:
        return planted
    fewer = plant_anomalies(
        rows,
        count // 2,
        kinds,
        strength=strength,
        gap=gap,
        stretches=stretches,
        strict=False,
        generator=generator,
    )
    counts = Counter(event.kind for event in fewer.events)
    if len(counts) <= len({event.kind for event in events}):
        return planted
    room = "of {} have room in the {} rows beside as many of the other kinds, {} rows apart"
    short = {k: f"{n} {room.format(count, len(rows), gap)}" for k, n in counts.items()}
    return replace(fewer, missing=fewer.missing | short)


def _why_never(kind: _Kind, rows: Tensor) -> str | None:
    """Why no stretch of ``rows`` [rows, channels] can have an anomaly of ``kind``."""
    count, channels = rows.shape
    if channels < kind.channels:
        return f"such an anomaly takes {kind.channels} columns, and there is only {channels}"
    if count < kind.shortest:
        return f"such an anomaly takes {kind.shortest} rows, and there are only {count}"
    if (rows == rows[:1]).all():
        return f"no column changes its value in the {count} rows"
    return None

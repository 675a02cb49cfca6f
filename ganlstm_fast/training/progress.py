"""The progress bar of a run."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from tqdm import tqdm

# The rate covers this many last seconds, and is read this often.
SECONDS = 5.0
EVERY = 0.05


class Bar(tqdm):
    """A tqdm bar whose rate, and so its remaining time, comes from the last seconds.

    tqdm's own rate is a mean over the last lines that it wrote, which in a log file are minutes,
    and over the whole run in the last of them. The first step, slower than all others, counts only
    in its own rate.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # When, and how many were done then; the latest stands at the end.
        self._seen: deque[tuple[float, float]] = deque()
        super().__init__(*arguments, **options)

    def update(self, n: float = 1) -> bool | None:
        if not self.disable:
            now, seen = time.monotonic(), self._seen
            if len(seen) > 1 and now - seen[-2][0] < EVERY:
                seen.pop()
            seen.append((now, self.n + n))
            while len(seen) > 2 and now - seen[1][0] >= SECONDS:
                seen.popleft()
        return super().update(n)

    @property
    def format_dict(self) -> dict[str, Any]:
        found = super().format_dict
        if len(self._seen) > 1:
            (then, before), (now, done) = self._seen[0], self._seen[-1]
            if now > then:
                found["rate"] = (done - before) / (now - then)
        return found

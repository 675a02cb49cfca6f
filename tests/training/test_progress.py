"""The rate that a progress bar shows."""

import io
import re

import pytest
from tqdm import tqdm

from ganlstm_fast.training import progress
from ganlstm_fast.training.progress import Bar


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves, for the bar and for tqdm."""

    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


def made(clock, kind=Bar, **options):
    bar = kind(file=io.StringIO(), unit="step", **options)
    bar._time = clock
    bar.start_t = bar.last_print_t = clock.now
    return bar


def go(bar, clock, seconds, rate):
    for _ in range(round(seconds * rate)):
        clock.now += 1 / rate
        bar.update()


def shown(bar):
    text = re.findall(r"([\d.]+)(step/s|s/step)", str(bar))[-1]
    return float(text[0]) if text[1] == "step/s" else 1 / float(text[0])


@pytest.mark.parametrize("log_file", [{}, {"mininterval": 15.0}], ids=["terminal", "log file"])
def test_it_is_that_of_the_last_seconds(clock, log_file):
    bar = made(clock, total=10_000, initial=500, **log_file)
    go(bar, clock, 20, 1 / 20)  # a step of 20 seconds
    assert shown(bar) == pytest.approx(1 / 20, rel=0.02)
    go(bar, clock, 1, 100)
    assert shown(bar) == pytest.approx(100, rel=0.01)
    go(bar, clock, 60, 100)
    assert shown(bar) == pytest.approx(100, rel=0.01)
    go(bar, clock, 6, 25)
    assert shown(bar) == pytest.approx(25, rel=0.01)
    # And with it the time that is left.
    assert "<02:09," in str(bar)
    bar.close()
    assert shown(bar) == pytest.approx(25, rel=0.01)
    assert "25.00step/s" in bar.fp.getvalue().split("\r")[-1]


def test_tqdms_own_is_not(clock):
    bar = made(clock, tqdm, total=10_000, mininterval=15.0)
    go(bar, clock, 20, 1 / 20)
    go(bar, clock, 61, 100)
    go(bar, clock, 6, 25)
    assert shown(bar) > 50
    bar.close()


def test_steps_longer_than_that(clock):
    bar = made(clock, total=100)
    go(bar, clock, 60, 1 / 30)
    go(bar, clock, 120, 1 / 40)
    assert shown(bar) == pytest.approx(1 / 40)
    bar.close()


def test_it_keeps_few_times(clock):
    bar = made(clock, total=10**9)
    go(bar, clock, 7, 10_000)
    assert len(bar._seen) <= progress.SECONDS / progress.EVERY + 2
    assert shown(bar) == pytest.approx(10_000, rel=0.01)
    bar.close()


def test_a_bar_that_is_off_shows_nothing():
    with Bar(total=3, disable=True) as bar:
        bar.update()
    assert not bar._seen

"""Cost against growth: T, B, H, the layers and the weights doubled, all else fixed.

The slopes are printed at the end of a run: time grows as the size to that exponent.
"""

from __future__ import annotations

from benchmarks.bench_gradient_penalty import penalty
from benchmarks.bench_spectral_norm import normalisation
from benchmarks.cases import GROWTH_LAYERS, GROWTH_LSTM, GROWTH_LSTM_STEPS, GROWTH_SAMPLES
from benchmarks.measure.harness import Race, Work
from benchmarks.measure.lstm_work import lstm_work


def works(preset: str) -> list[Work]:
    if preset in ("quick", "default"):
        return []
    found = [lstm_work("LSTM forward+backward", shape) for shape in GROWTH_LSTM]
    found += [lstm_work("LSTM WGAN-GP step", shape) for shape in GROWTH_LSTM_STEPS]
    found += [
        normalisation(f"{len(shapes)} small layers", shapes, True, False)
        for shapes in GROWTH_LAYERS
    ]
    return [*found, *(penalty(shape, True, False) for shape in GROWTH_SAMPLES)]


def test_growth(race: Race) -> None:
    race()

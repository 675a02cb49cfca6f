"""The LSTM's forward on a few rows and steps, which reads the weights where they are.

Its numbers are checked with the other cases of ``lstm_cases``; these tests are about its use.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ganlstm_fast import FastLSTM, FastLSTMCell
from tests.marks import needs_cpu_kernels
from tests.numerics import assert_close_to_reference

pytestmark = needs_cpu_kernels


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 5])
def test_steps_with_a_carried_state_equal_the_sequence(batch: int) -> None:
    lstm, x = FastLSTM(6, 40, num_layers=2), torch.randn(30, batch, 6)
    whole, (h, c) = lstm(x)
    outputs, state = [], None
    for step in x.split(1):
        y, state = lstm(step, state)
        outputs.append(y)
    exact = lstm.double()(x.double())
    got = (torch.cat(outputs), state)
    assert_close_to_reference(got, exact, (whole, (h, c)))


@torch.no_grad()
def test_a_cell_equals_the_layer() -> None:
    lstm, cell = FastLSTM(6, 40), FastLSTMCell(6, 40)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in lstm.state_dict().items()})
    x, state = torch.randn(30, 3, 6), None
    for step in x:
        state = cell(step, state)
    whole = [s[0] for s in lstm(x)[1]]
    exact = [s[0] for s in lstm.double()(x.double())[1]]
    assert_close_to_reference(list(state), exact, whole)


@torch.no_grad()
def test_the_number_of_threads_changes_nothing() -> None:
    lstm, x = FastLSTM(130, 131), torch.randn(1, 2, 130)
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(lstm(x)[0])
    assert all(torch.equal(results[0], other) for other in results[1:])

"""The tolerance rule itself: what it must let pass and what it must not."""

from __future__ import annotations

import pytest
import torch

from tests.numerics import assert_close_to_reference, relative_error, tolerance

TRUTH = torch.linspace(1, 2, 11, dtype=torch.float64)
EPS = torch.finfo(torch.float32).eps


def _off_by(error: float) -> torch.Tensor:
    return (TRUTH * (1 + error)).float()


def test_floor_and_twice_the_rival():
    assert tolerance(torch.float32) == 8 * EPS
    assert tolerance(torch.float32, 100 * EPS) == 200 * EPS
    assert tolerance(torch.float32, float("inf")) == 8 * EPS
    assert_close_to_reference(_off_by(6 * EPS), TRUTH)
    assert_close_to_reference(_off_by(18 * EPS), TRUTH, _off_by(10 * EPS))
    with pytest.raises(AssertionError, match="relative error"):
        assert_close_to_reference(_off_by(30 * EPS), TRUTH, _off_by(10 * EPS))


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (_off_by(10 * EPS), r"y \(torch.float32\): relative error .*, allowed"),
        (torch.full((11,), torch.nan), "11 of 11 values are NaN or infinite"),
        (torch.full((11,), torch.inf), "NaN or infinite"),
        (TRUTH[:10].float(), r"shape \(10,\), expected \(11,\)"),
        (None, "the gradient is missing"),
        ([TRUTH], "list, expected Tensor"),
    ],
)
def test_wrong_answers_fail(out, message):
    with pytest.raises(AssertionError, match=message):
        assert_close_to_reference(out, TRUTH, what="y")


def test_mistakes_of_a_test_fail():
    with pytest.raises(AssertionError, match=r"the truth is torch\.float32"):
        assert_close_to_reference(TRUTH.float(), TRUTH.float())
    with pytest.raises(AssertionError, match="the truth itself is not finite"):
        assert_close_to_reference(TRUTH.float(), TRUTH * torch.nan)


def test_none_and_zero_and_nothing():
    zero = torch.zeros(3, dtype=torch.float64)
    for out, truth in ((None, None), (None, zero), (zero, None), (zero, zero)):
        assert_close_to_reference(out, truth)
    assert_close_to_reference(torch.empty(0), torch.empty(0, dtype=torch.float64))
    with pytest.raises(AssertionError, match="relative error"):
        assert_close_to_reference(torch.full((3,), 1e-3), zero)
    assert relative_error(torch.full((3,), torch.nan), zero) == float("inf")


def test_sequences_name_the_element():
    good = TRUTH.float()
    assert_close_to_reference((good, [None, good]), (TRUTH, [None, TRUTH]), (good, [None, None]))
    with pytest.raises(AssertionError, match=r"grads\[1\]\[0\]"):
        assert_close_to_reference((good, [2 * good]), (TRUTH, [TRUTH]), what="grads")
    with pytest.raises(AssertionError, match="1 values, expected 2"):
        assert_close_to_reference([good], [TRUTH, TRUTH])

"""The LSTM's arguments: lengths, strides, empty batches, NaN, and messages for wrong ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ganlstm_fast import lstm, lstm_cell, use_impl
from tests.lstm_cases import DTYPES, Case
from tests.marks import needs_cpu_kernels

IMPLS = [pytest.param("cpu", marks=needs_cpu_kernels), "torch"]


@pytest.mark.parametrize("impl", ["cpu", "torch", "reference"])
def test_lengths_with_gaps_or_expanded(impl: str) -> None:
    x, h0, c0, *weights = Case(5, 4, 3, 3).inputs
    for given in (torch.tensor([3]).expand(4), torch.tensor([3, 0, 3, 0, 3, 0, 3, 0])[::2]):
        y = lstm(x, [weights], h0, c0, lengths=given, impl=impl)[0]
        assert torch.equal(y, lstm(x, [weights], h0, c0, lengths=[3] * 4, impl=impl)[0])


def test_lengths_of_any_integer_type_and_their_buffer() -> None:
    case = Case(300, 2, 2, 3)
    x, h0, c0, *weights = (t.clone().requires_grad_() for t in case.inputs)
    expected = lstm(x, [weights], h0, c0, lengths=[45, 255])[0]
    for dtype in (np.uint8, np.int16, np.uint64):
        buffer = np.array([45, 255], dtype=dtype)
        y = lstm(x, [weights], h0, c0, lengths=buffer)[0]
        buffer[:] = 1
        assert torch.equal(y, expected)
        grads = (torch.autograd.grad(t.sum(), x, retain_graph=True)[0] for t in (y, expected))
        assert torch.equal(*grads)
    assert lstm(x[:, :0], [weights], h0[:, :0], c0[:, :0], lengths=[])[0].shape == (300, 0, 3)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_empty_batch(dtype: torch.dtype, impl: str) -> None:
    case = Case(3, 0, 2, 4, D=2)
    got = case.run(impl, dtype)
    assert [tuple(t.shape) for t in got.outputs] == [(3, 0, 8), (2, 0, 4), (2, 0, 4)]
    for tensor, grad in zip(case.inputs, got.first, strict=True):
        assert grad is None or (grad.shape == tensor.shape and not grad.any())


@pytest.mark.parametrize("impl", IMPLS)
def test_non_contiguous_inputs(impl: str) -> None:
    case = Case(5, 4, 6, 7)
    plain = case.call(impl, *case.inputs)
    odd = [
        t.mT.contiguous().mT if t.dim() > 1 else t.repeat_interleave(2)[::2] for t in case.inputs
    ]
    assert not any(t.is_contiguous() for t in odd if t.dim() == 3)
    for a, b in zip(plain, case.call(impl, *odd), strict=True):
        torch.testing.assert_close(a, b)
    x, *rest = case.inputs
    whole = torch.stack([x, x], -1).requires_grad_()
    grad = torch.autograd.grad(case.call(impl, whole[..., 0], *rest)[0].sum(), whole)[0]
    x = x.clone().requires_grad_()
    expected = torch.autograd.grad(case.call(impl, x, *rest)[0].sum(), x)[0]
    torch.testing.assert_close(grad[..., 0], expected)
    assert not grad[..., 1].any()


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("impl", [*IMPLS, "reference"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_what_comes_after_the_end_is_not_read(dtype: torch.dtype, impl: str) -> None:
    case = Case(6, 3, 2, 5, D=2, lengths=[6, 2, 4])
    x, *rest = (t.to(dtype, copy=True).requires_grad_() for t in case.inputs)
    spoiled = x.detach().clone()
    for b, length in enumerate(case.lengths):
        spoiled[length:, b] = torch.nan
    spoiled.requires_grad_()
    outputs = case.call(impl, spoiled, *rest)
    for a, b in zip(outputs, case.call(impl, x, *rest), strict=True):
        assert torch.equal(a, b)
    assert not outputs[0][2:, 1].any()
    leaves = [spoiled, *rest]
    first = torch.autograd.grad(outputs[0].square().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum((g**2).sum() for g in first), leaves)
    for grad in (*first, *second):
        assert torch.isfinite(grad).all()
    assert not first[0][2:, 1].any()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nan_and_infinity_come_out(dtype: torch.dtype, impl: str) -> None:
    case = Case(4, 3, 3, 5)  # odd, so that a pair read past the row before would spread it
    x, *rest = (t.to(dtype) for t in case.inputs)
    x[1, 0, 0] = torch.nan
    y = case.call(impl, x, *rest)[0]
    assert torch.isnan(y[1:, 0]).all()
    assert torch.isfinite(y[:, 1:]).all()
    x[1, 0, 0] = torch.inf
    with_inf = case.call("reference", x, *rest)[0]
    eps = torch.finfo(dtype).eps  # of 1, which bounds y
    torch.testing.assert_close(
        case.call(impl, x, *rest)[0], with_inf, rtol=0, atol=8 * eps, equal_nan=True
    )


@pytest.mark.parametrize("impl", [*IMPLS, "reference"])
class TestMessages:
    def call(self, impl: str, **changes: object) -> None:
        case = Case(4, 3, 2, 5)
        x, h0, c0, *weights = case.inputs
        arguments = {"x": x, "weights": [weights], "h0": h0, "c0": c0, **changes}
        lstm(impl=impl, **arguments)

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"x": torch.zeros(4, 3)}, ValueError, r"x: expected shape \(T, B, I\), got \(4, 3\)"),
            ({"x": [1.0]}, TypeError, r"x: expected a tensor, got list"),
            ({"x": torch.zeros(4, 3, 2, dtype=torch.int32)}, TypeError, "x: expected a floating"),
            ({"x": torch.zeros(0, 3, 2).double()}, ValueError, "x: expected at least one time"),
            (
                {"x": torch.zeros(4, 3, 9).double()},
                ValueError,
                r"weight_ih: expected shape \(20, 9",
            ),
            ({"h0": torch.zeros(1, 3, 6).double()}, ValueError, r"h0: expected shape \(1, 3, 5\)"),
            ({"c0": torch.zeros(1, 3, 5)}, ValueError, "c0: expected torch.float64"),
            ({"weights": []}, ValueError, r"weights: expected \(weight_ih, weight_hh"),
            ({"lengths": [4, 5, 1]}, ValueError, r"lengths: expected values in 1..4, got 5 at in"),
            ({"lengths": [4, -1, 1]}, ValueError, r"lengths: .* got -1 at index 1"),
            ({"lengths": [4, 1]}, ValueError, r"lengths: expected shape \(3,\), got \(2,\)"),
            ({"lengths": [4.0, 1.0, 1.0]}, TypeError, "lengths: expected integers"),
            ({"lengths": "abc"}, TypeError, "lengths: expected a tensor or a sequence"),
        ],
    )
    def test_lstm(
        self, impl: str, changes: dict[str, object], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            self.call(impl, **changes)

    def test_cell(self, impl: str) -> None:
        _, h0, c0, *weights = Case(4, 3, 2, 5).inputs
        x = torch.zeros(3, 2, dtype=torch.float64)
        h, c = lstm_cell(x, weights, h0[0], c0[0], impl=impl)
        assert h.shape == c.shape == (3, 5)
        with pytest.raises(ValueError, match=r"h: expected shape \(3, 5\), got \(2, 5\)"):
            lstm_cell(x, weights, h0[0, :2], c0[0], impl=impl)


def test_use_impl_reaches_the_function() -> None:
    case = Case(3, 2, 2, 3)
    x, h0, c0, *weights = case.inputs
    x = x.clone().requires_grad_()
    with use_impl("reference"):
        y = lstm(x, [weights], h0, c0)[0]
    assert "LSTM" not in type(y.grad_fn).__name__

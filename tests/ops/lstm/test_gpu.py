"""The LSTM on a GPU: the numbers of every implementation, to second order."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ganlstm_fast import FastLSTM, gradient_penalty, lstm
from tests.gpu_cases import (
    BFLOAT16,
    DEVICE,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    GPU,
    GPU_CASES,
    IMPLS,
    KERNELS,
    NUMBERS,
    TF32,
    Numbers,
    assert_close,
    assert_orders,
    assert_same_bits,
    both_orders,
    by_case,
    case_of,
    everything,
    leaves,
    of_torchs_lstm,
    on_device,
    skips_unserved,
    tf32,
)
from tests.lstm_cases import RIVAL_DTYPES, Case, Orders
from tests.numerics import assert_close_to_reference, relative_error, tolerance

pytestmark = [*GPU, pytest.mark.usefixtures("tf32_off")]

ENDS = [7, 1, 3, 6, 2, 5]


def test_every_implementation_runs() -> None:
    """Other tests skip an implementation that does not serve their case; this one skips none."""
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("impl='cuda' is for sm_90")
    for impl in IMPLS:
        case = GPU_CASES["lengths, both directions"]
        for value in everything(case.run(impl, torch.float32, DEVICE)):
            assert value is None or torch.isfinite(value).all()


# Every case with some dtypes; every dtype with a small case and with one that spreads its units.
@pytest.mark.usefixtures("poison")
@by_case(
    {
        "one of everything": [FLOAT32, BFLOAT16],
        "odd sizes": [FLOAT32],
        "both directions, no bias": [TF32, FLOAT16],
        "lengths, both directions": NUMBERS,
        "vectors and one": [FLOAT32, BFLOAT16],
        "several windows of dz": [TF32, BFLOAT16],
        "many rows": [FLOAT32],
        "more rows": [TF32, FLOAT16],
        "H 128": NUMBERS,
        "H 200": [FLOAT32, BFLOAT16],
        "H 300": [FLOAT32, FLOAT16],
        "H 512": [FLOAT32, TF32, FLOAT16],
    }
)
@skips_unserved
def test_equals_reference_to_second_order(name: str, numbers: Numbers, impl: str) -> None:
    with tf32(numbers.tf32):
        got = case_of(name, numbers).run(impl, numbers.dtype, DEVICE)
    assert_orders(got, name, numbers, impl)


@pytest.mark.usefixtures("poison")
@by_case(
    {
        "one of everything": [FLOAT32],
        "both directions, no bias": [FLOAT16],
        "lengths, both directions": [BFLOAT16, FLOAT64],
        "H 128": [TF32, FLOAT32],
    }
)
@skips_unserved
def test_backward_that_is_not_recorded(name: str, numbers: Numbers, impl: str) -> None:
    """Such a backward keeps nothing for a second order."""
    case = case_of(name, numbers)
    with tf32(numbers.tf32):
        inputs = leaves(case, numbers.dtype)
        outputs = case.call(impl, *inputs)
        cotangents = on_device(case.cotangents, numbers.dtype)
        got = torch.autograd.grad(outputs, inputs, cotangents, retain_graph=True)
        alone = torch.autograd.grad(outputs, inputs[0], cotangents)
    assert_orders(Orders([], list(got), []), name, numbers, impl)
    assert_orders(Orders([], list(alone), []), name, numbers, impl)


@pytest.mark.parametrize(
    ("impl", "case"),
    [
        ("cell", Case(3, 2, 2, 3)),
        ("cell", Case(3, 2, 2, 3, D=2, lengths=[3, 2])),
        ("cell", Case(2, 3, 3, 2, bias=False, lengths=[1, 2, 2])),
        ("torch", Case(3, 2, 2, 3, D=2, lengths=[3, 2])),
    ],
    ids=["plain", "both directions, lengths", "no bias, lengths", "torch"],
)
@skips_unserved
def test_gradcheck_and_gradgradcheck(impl: str, case: Case) -> None:
    inputs = leaves(case, torch.float64)
    call = functools.partial(case.call, impl)
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    ("output", "numbers"), [(0, BFLOAT16), (1, FLOAT32), (2, FLOAT32)], ids=["y", "h_T", "c_T"]
)
@skips_unserved
def test_one_cotangent_alone(output: int, numbers: Numbers, impl: str) -> None:
    """The other two are absent; this one is expanded (stride 0), as sum() makes it."""
    case = Case(6, 8, 5, 16, D=2, lengths=[6, 2, 4, 1, 6, 3, 5, 4]).rounded(numbers.dtype)

    def run(impl: str, dtype: torch.dtype, device: str = DEVICE) -> list[Tensor]:
        inputs = [t.to(device, dtype).requires_grad_() for t in case.inputs]
        total = case.call(impl, *inputs)[output].sum()
        grads = torch.autograd.grad(total, inputs, create_graph=True)
        return [*grads, *torch.autograd.grad(sum((g**2).sum() for g in grads), inputs)]

    assert_by_floor_or_rival(run, impl, numbers)


Run = Callable[..., list[Tensor]]


def assert_by_floor_or_rival(run: Run, impl: str, numbers: Numbers) -> None:
    """Compares ``run(impl, dtype, device)`` with the truth, and if need be with PyTorch's error."""
    truth = run("reference", torch.float64, "cpu")
    dtype = RIVAL_DTYPES.get(numbers.dtype, numbers.dtype)
    rival = functools.cache(lambda: run("reference", dtype, DEVICE))
    for index, (out, true) in enumerate(zip(run(impl, numbers.dtype), truth, strict=True)):
        assert_close(out, true, lambda k=index: rival()[k], numbers, f"[{index}]")


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("wanted", [[0], [3], [5], [0, 4], [1, 2]], ids=str)
@skips_unserved
def test_only_some_gradients(wanted: list[int], impl: str) -> None:
    case = Case(4, 3, 2, 9)

    def run(impl: str, dtype: torch.dtype, device: str = DEVICE) -> list[Tensor]:
        inputs = [t.to(device, dtype).requires_grad_() for t in case.inputs]
        chosen = [inputs[k] for k in wanted]
        cotangents = [t.to(device, dtype) for t in case.cotangents]
        outputs = case.call(impl, *inputs)
        first = torch.autograd.grad(outputs, chosen, cotangents, create_graph=True)
        return [*first, *torch.autograd.grad(sum((g**2).sum() for g in first), chosen)]

    assert_by_floor_or_rival(run, impl, FLOAT32)


@pytest.mark.parametrize("impl", KERNELS)
@skips_unserved
def test_third_order_raises(impl: str) -> None:
    case = Case(3, 2, 2, 9)
    inputs = leaves(case)
    y = case.call(impl, *inputs)[0]
    (grad,) = torch.autograd.grad(y.sum(), inputs[0], create_graph=True)
    (second,) = torch.autograd.grad((grad**2).sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable twice, and a third derivative"):
        ((second**2).sum() + (inputs[0] ** 2).sum()).backward()


@by_case({"both directions, no bias": [FLOAT32], "lengths, both directions": [BFLOAT16]})
@skips_unserved
def test_non_contiguous_inputs(name: str, numbers: Numbers, impl: str) -> None:
    case = case_of(name, numbers)

    def strided(tensor: Tensor) -> Tensor:
        twice = torch.stack([tensor, torch.full_like(tensor, torch.nan)], -1)
        return twice[..., 0]

    def run(change: Callable[[Tensor], Tensor]) -> list[Tensor | None]:
        inputs = [change(t).detach().requires_grad_() for t in leaves(case, numbers.dtype)]
        given = [
            [change(t) for t in on_device(values, numbers.dtype)]
            for values in (case.cotangents, case.directions)
        ]
        return both_orders(case, impl, inputs, given)

    assert not strided(case.inputs[0]).is_contiguous()
    got, expected = run(strided), run(lambda t: t)
    if impl in KERNELS:
        assert_same_bits(got, expected)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


@by_case({"lengths, both directions": [FLOAT32, BFLOAT16]})
@skips_unserved
def test_lengths_from_anywhere(name: str, numbers: Numbers, impl: str) -> None:
    case = case_of(name, numbers)
    expected = everything(case.run(impl, numbers.dtype, DEVICE))
    ends = torch.tensor(case.lengths)
    for lengths in (ends, ends.to(DEVICE), ends.to(DEVICE, torch.int32)):
        this = copy.copy(case)
        this.lengths = lengths
        assert_same_bits(everything(this.run(impl, numbers.dtype, DEVICE)), expected)


@pytest.mark.usefixtures("poison")
@by_case({"lengths, both directions": [FLOAT32, BFLOAT16]})
@skips_unserved
def test_what_comes_after_the_end_is_not_read(name: str, numbers: Numbers, impl: str) -> None:
    case = case_of(name, numbers)
    spoiled = copy.copy(case)
    spoiled.inputs = [case.inputs[0].clone(), *case.inputs[1:]]
    for row, length in enumerate(case.lengths):
        spoiled.inputs[0][length:, row] = torch.nan
    got, expected = (c.run(impl, numbers.dtype, DEVICE) for c in (spoiled, case))
    assert_same_bits(everything(got), everything(expected))
    assert not got.outputs[0][1:, 1].any()
    assert not got.first[0][1:, 1].any()


@by_case({"odd sizes": [FLOAT32], "H 128": [BFLOAT16]})
@skips_unserved
def test_nan_comes_out_and_stays_in_its_row(name: str, numbers: Numbers, impl: str) -> None:
    case = case_of(name, numbers)
    x, *rest = on_device(case.inputs, numbers.dtype)
    x[1, 0, 0] = torch.nan
    y = case.call(impl, x, *rest)[0]
    assert torch.isnan(y[1:, 0]).all()
    assert torch.isfinite(y[0]).all()
    assert torch.isfinite(y[:, 1:]).all()


@pytest.mark.parametrize("impl", IMPLS)
@skips_unserved
def test_empty_batch(impl: str) -> None:
    case = Case(3, 0, 2, 4, D=2)
    got = case.run(impl, torch.float32, DEVICE)
    assert [tuple(t.shape) for t in got.outputs] == [(3, 0, 8), (2, 0, 4), (2, 0, 4)]
    for tensor, grad in zip(case.inputs, got.first, strict=True):
        assert grad is None or (grad.shape == tensor.shape and not grad.any())


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@skips_unserved
def test_autocast(dtype: torch.dtype, impl: str) -> None:
    """Ours returns the dtype of autocast; cuDNN's wrapper returns float16 for bfloat16 too."""
    exact = nn.LSTM(5, 24, num_layers=2, bidirectional=True).double()
    x = torch.randn(7, 6, 5, dtype=torch.float64)
    cotangent = torch.randn(7, 6, 48, dtype=torch.float64)

    def run(layer: nn.LSTM, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        y, states = layer(x)
        grads = torch.autograd.grad(y, tuple(layer.parameters()), cotangent.to(y))
        return [y, *states], list(grads)

    truth, true_grads = run(exact, x)
    rival, fast = (build(5, 24, num_layers=2, bidirectional=True) for build in (nn.LSTM, FastLSTM))
    fast.impl = impl
    results = []
    for layer in (rival, fast):
        layer.load_state_dict(exact.state_dict())
        with torch.autocast(DEVICE, dtype):
            results.append(run(layer.to(DEVICE), x.to(DEVICE, torch.float32)))
    (expected, rival_grads), (got, grads) = results
    assert {t.dtype for t in got} == {dtype}
    assert_close_to_reference(got, truth, expected)
    for grad, true, other in zip(grads, true_grads, rival_grads, strict=True):
        assert grad.dtype == other.dtype == torch.float32
        assert relative_error(grad, true) <= tolerance(dtype, relative_error(other, true))


@pytest.mark.parametrize("impl", IMPLS)
@skips_unserved
def test_retain_graph(impl: str) -> None:
    case = GPU_CASES["odd sizes"]
    inputs, cotangents = leaves(case), on_device(case.cotangents)
    outputs = case.call(impl, *inputs)
    once = torch.autograd.grad(outputs, inputs, cotangents, retain_graph=True)
    first = torch.autograd.grad(outputs, inputs, cotangents, create_graph=True)
    total = sum((g**2).sum() for g in first)
    second = torch.autograd.grad(total, inputs, retain_graph=True)
    again = torch.autograd.grad(total, inputs, retain_graph=True)
    twice = torch.autograd.grad(outputs, inputs, cotangents)
    # cuDNN's unrecorded backward errs more than the kernels' recorded one.
    close = {"rtol": 1e-4, "atol": 1e-5} if impl == "torch" else {}
    for expected, *others in zip(once, first, twice, strict=True):
        for other in others:
            torch.testing.assert_close(other, expected, **close)
    for a, b in zip(second, again, strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(RuntimeError, match="a second time"):
        torch.autograd.grad(outputs, inputs, cotangents)


WAYS = ["packed", "packed, sorted", "lengths", "padded"]


@pytest.mark.parametrize(
    ("impl", "way"),
    [
        *((impl, way) for impl in (None, "cuda", "torch") for way in WAYS),
        *((impl, "packed") for impl in ("cell", "triton")),
    ],
)
@pytest.mark.parametrize("training", [True, False])
@skips_unserved
def test_layer_equals_torch(training: bool, way: str, impl: str | None) -> None:
    """Also in eval mode, in which cuDNN keeps nothing for a backward: we never call it so."""
    options = {"num_layers": 2, "bidirectional": True, "batch_first": True}
    exact = nn.LSTM(5, 24, **options).double()
    ends = torch.tensor(sorted(ENDS, reverse=True) if way == "packed, sorted" else ENDS)
    x = torch.randn(len(ENDS), 7, 5, dtype=torch.float64)
    state = tuple(torch.randn(4, len(ENDS), 24, dtype=torch.float64) for _ in range(2))
    cotangent = torch.randn(len(ENDS), 7, 48, dtype=torch.float64)
    # Fixed numbers, since cuDNN's states would bring a larger error into these cotangents.
    of_states = torch.randn(2, 4, len(ENDS), 24, dtype=torch.float64)

    def run(layer: nn.LSTM, way: str, twice: bool = True) -> list[Tensor]:
        weight = layer.weight_ih_l0
        padded = x.to(weight, copy=True).requires_grad_()
        hx = tuple(s.to(weight, copy=True).requires_grad_() for s in state)
        if way.startswith("packed"):
            packed = pack_padded_sequence(padded, ends, batch_first=True, enforce_sorted=False)
            if way == "packed, sorted":
                packed = pack_padded_sequence(padded, ends, batch_first=True)
            y, states = layer(packed, hx)
            y, _ = pad_packed_sequence(y, batch_first=True)
        elif way == "lengths":
            y, states = layer(padded, hx, lengths=ends)
        else:
            y, states = layer(padded, hx)
        wanted = (padded, *hx, *layer.parameters())
        total = (y * cotangent.to(weight)).sum() + (
            torch.stack(states) * of_states.to(weight)
        ).sum()
        found = [y, *states, *torch.autograd.grad(total, wanted, retain_graph=twice)]
        if twice:
            (grad,) = torch.autograd.grad(total, padded, create_graph=True)
            found += torch.autograd.grad((grad**2).sum(), tuple(layer.parameters()))
        return found

    fast, rival = FastLSTM(5, 24, impl=impl, **options), nn.LSTM(5, 24, **options)
    for layer in (fast, rival):
        layer.load_state_dict(exact.state_dict())
        layer.to(DEVICE)
    theirs = "packed" if way == "lengths" else way
    truth, got = run(exact, theirs), run(fast.train(training), way)
    first = run(rival, theirs, twice=False)
    fast.impl = "reference"
    second = run(fast, way)[len(first) :]
    assert_close_to_reference(got, truth, [*first, *second])


def _penalty_of(layer: FastLSTM, head: Tensor, x: Tensor) -> Tensor:
    # At points between x and x, which is x whatever is drawn.
    return gradient_penalty(lambda s: (layer(s)[0] @ head.to(s)).sum(1), x, x)


@functools.cache
def _true_penalty() -> tuple[FastLSTM, Tensor, Tensor, tuple[Tensor, ...]]:
    """A layer in float64, a head and inputs, and the gradient of their penalty in the weights."""
    generator = torch.Generator().manual_seed(2)
    options = {"num_layers": 2, "bidirectional": True, "batch_first": True}
    exact = FastLSTM(5, 12, impl="reference", **options).double()
    with torch.no_grad():
        for parameter in exact.parameters():
            drawn = torch.rand(parameter.shape, generator=generator) - 0.5
            parameter.copy_(drawn.double())
    head, x = (torch.randn(*s, generator=generator).double() for s in ((24,), (4, 7, 5)))
    grads = torch.autograd.grad(_penalty_of(exact, head, x), tuple(exact.parameters()))
    return exact, head, x, grads


@pytest.mark.xdist_group("penalty of a layer")
@pytest.mark.parametrize(
    ("impl", "recompute", "numbers"),
    [
        *((impl, False, FLOAT32) for impl in (None, *IMPLS)),
        *((impl, True, FLOAT32) for impl in KERNELS),
        *(("cell", False, FLOAT64), ("torch", False, FLOAT64)),
    ],
)
@skips_unserved
def test_gradient_of_a_penalty(impl: str | None, recompute: bool, numbers: Numbers) -> None:
    exact, head, x, truth = _true_penalty()
    options = {"num_layers": 2, "bidirectional": True, "batch_first": True}
    layer = FastLSTM(5, 12, impl=impl, recompute=recompute, **options).to(DEVICE, numbers.dtype)
    layer.load_state_dict(exact.state_dict())
    loss = _penalty_of(layer, head.to(DEVICE), x.to(DEVICE, numbers.dtype))
    grads = torch.autograd.grad(loss, tuple(layer.parameters()))
    for (name, _), got, true in zip(layer.named_parameters(), grads, truth, strict=True):
        # The penalty's slope (norm - 1) loses digits that no implementation can keep.
        assert relative_error(got, true) <= 10 * tolerance(numbers.dtype), name


@pytest.mark.usefixtures("poison")
@by_case(
    {
        "one of everything": [FLOAT32],
        "lengths, both directions": [BFLOAT16],
        "several windows of dz": [TF32, FLOAT64],
    },
    KERNELS,
)
@skips_unserved
def test_recompute_has_the_same_gradients(name: str, numbers: Numbers, impl: str) -> None:
    case = case_of(name, numbers)
    x, h0, c0, *weights = inputs = leaves(case, numbers.dtype)
    count = len(weights) // case.D
    groups = [weights[d * count : (d + 1) * count] for d in range(case.D)]
    cotangents, directions = (
        on_device(values, numbers.dtype) for values in (case.cotangents, case.directions)
    )
    with tf32(numbers.tf32), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # the warning that it saves no memory
        outputs = lstm(x, groups, h0, c0, lengths=case.lengths, recompute=True, impl=impl)
        plain = torch.autograd.grad(outputs, inputs, cotangents, retain_graph=True)
        first = torch.autograd.grad(outputs, inputs, cotangents, create_graph=True)
        second = torch.autograd.grad(first, inputs, directions, allow_unused=True)
    assert_orders(Orders([], list(plain), []), name, numbers, impl)
    assert_orders(Orders(list(outputs), list(first), list(second)), name, numbers, impl)


@pytest.mark.parametrize(
    ("hidden", "numbers"),
    [(24, FLOAT32), (24, TF32), (512, TF32), (128, BFLOAT16), (24, FLOAT16), (24, FLOAT64)],
    ids=str,
)
def test_auto_is_right_whatever_it_takes(hidden: int, numbers: Numbers) -> None:
    case = Case(5, 4, 6, hidden).rounded(numbers.dtype)
    with tf32(numbers.tf32):
        got, truth = case.run("auto", numbers.dtype, DEVICE), case.run("reference")
        inputs = leaves(case, numbers.dtype)
        outputs = case.call("auto", *inputs)
        cotangents = on_device(case.cotangents, numbers.dtype)
        plain = torch.autograd.grad(outputs, inputs, cotangents)
        theirs = of_torchs_lstm(case, inputs, cotangents)
    # A call that is not recorded may run cuDNN.
    for values, true, rival in (
        (got.outputs, truth.outputs, theirs[0]),
        (plain, truth.first, theirs[1]),
    ):
        for index, (out, expected) in enumerate(zip(values, true, strict=True)):
            assert_close(out, expected, lambda r=rival[index]: r, numbers, f"[{index}]")
    for values, true in ((got.first, truth.first), (got.second, truth.second)):
        for index, (out, expected) in enumerate(zip(values, true, strict=True)):
            assert_close(out, expected, lambda: None, numbers, f"recorded [{index}]")

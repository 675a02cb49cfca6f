"""The recurrent steps of the GPU's kernels, compiled for the CPU: the same code for an element of a
step, the same walks and the same Python around them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ganlstm_fast import lstm
from ganlstm_fast.ops.lstm import autograd, fit, gpu
from ganlstm_fast.ops.lstm.operators import BackwardArguments, ForwardArguments
from tests import emulation
from tests.lstm_cases import CASES, RIVAL_DTYPES, Case, Orders, on_cpu_tensors
from tests.numerics import assert_close_to_reference, relative_error

EMULATED = [
    *("one of everything", "one step", "one row", "odd sizes", "no bias"),
    *("both directions, no bias", "lengths, both directions", "vectors and one"),
]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]


@pytest.fixture(scope="module")
def steps_on_cpu() -> Iterator[None]:
    emulation.load("binding_steps")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "why_not_cuda", emulated_why_not)
        yield


def emulated_why_not(device: int, hidden: int, element: int, capability: int = 9) -> str:
    """The emulated GPU, with the limits of an H100."""
    return torch.ops.ganlstm_fast_emulated.lstm_why_not_cuda(capability, hidden, element)


def assert_equals_reference(
    case: Case, impl: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case.rounded(dtype)
    truth, rival = case.run("reference"), case.run("reference", RIVAL_DTYPES[dtype])
    on_cpu_tensors(monkeypatch, impl)
    assert_runs_equal(case.run(impl, dtype), case, truth, rival)


def assert_runs_equal(
    got: Orders, case: Case, truth: Orders | None = None, rival: Orders | None = None
) -> None:
    truth = truth or case.run("reference")
    rival = rival or case.run("reference", torch.float32)
    for order in ("outputs", "first", "second"):
        values = zip(*(getattr(run, order) for run in (got, truth, rival)), strict=True)
        for index, value in enumerate(values):
            assert_close_to_reference(*value, f"{order}[{index}]")


@pytest.mark.usefixtures("steps_on_cpu", "poison")
@pytest.mark.parametrize(
    ("impl", "dtype"),
    [*(("cell", dtype) for dtype in DTYPES), *(("cuda", dtype) for dtype in DTYPES[1:])],
)
@pytest.mark.parametrize("name", CASES)
def test_equals_reference_to_second_order(
    name: str, dtype: torch.dtype, impl: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if impl == "cuda" and name not in EMULATED:
        pytest.skip("no different from others in the emulator, which is slow")
    assert_equals_reference(CASES[name], impl, dtype, monkeypatch)


@pytest.mark.usefixtures("steps_on_cpu", "poison")
@pytest.mark.parametrize(
    "plan",
    [
        *("cluster 1 1", "cluster 2 1", "cluster 4 2", "cluster 8 4", "cluster 16 2"),
        *("grid 2 1 132", "grid 2 1 4", "grid 3 4 3"),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_any_plan(plan: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a team, rows of a tile by 8, and in a grid multiprocessors: with rows and units
    that do not exist, and with more tiles than teams."""
    kind, *numbers = plan.split()
    text = " ".join([str(int(kind == "grid")), *numbers, "132"][:4])
    monkeypatch.setenv("GANLSTM_TEST_PLAN", text)
    case = Case(T=3, B=18, I=4, H=29, D=2, lengths=[1 + b % 3 for b in range(18)])
    assert_equals_reference(case, "cuda", dtype, monkeypatch)


@pytest.mark.usefixtures("steps_on_cpu", "poison")
def test_sums_do_not_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor core cuts off where a float would be rounded, which adds up over H."""
    assert_equals_reference(Case(T=2, B=5, I=3, H=200), "cuda", torch.float32, monkeypatch)


@pytest.mark.usefixtures("steps_on_cpu", "poison")
@pytest.mark.parametrize("held_back", range(4))
@pytest.mark.parametrize("plan", ["0 4 1 132", "1 4 1 132"], ids=["cluster", "grid"])
def test_a_block_may_fall_behind(
    plan: str, held_back: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any block may fall behind, also one without units: the last of four blocks at H = 40."""
    monkeypatch.setenv("GANLSTM_TEST_PLAN", plan)
    monkeypatch.setenv("GANLSTM_TEST_HELD_BACK", str(held_back))
    assert_equals_reference(Case(T=5, B=3, I=3, H=40), "cuda", torch.float32, monkeypatch)


@pytest.mark.usefixtures("steps_on_cpu")
@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float16, 1184), (torch.bfloat16, 1184), (torch.float32, 592)]
)
def test_says_what_fits_on_chip(dtype: torch.dtype, most: int) -> None:
    for hidden in range(1, 1300):
        assert (emulated_why_not(0, hidden, dtype.itemsize) == "") == (hidden <= most), hidden
    message = (
        f"impl='cuda' cannot run lstm: it keeps weight_hh on chip, which on this GPU has room for "
        f"H up to {most} in {8 * dtype.itemsize} bits, got 1300; use impl='cell'"
    )
    with pytest.raises(RuntimeError, match=re.escape(message) + "$"):
        fit.check("cuda", torch.zeros(1, 1, 1, dtype=dtype), 1300)


@pytest.mark.usefixtures("steps_on_cpu")
def test_needs_clusters() -> None:
    why_not = emulated_why_not(0, 24, 4, capability=8)
    assert why_not == (
        "needs thread-block clusters: a GPU of compute capability 9.0 and kernels compiled for it; "
        "use impl='cell'"
    )


def test_an_emulated_library_is_loaded_once() -> None:
    for _ in range(2):
        emulation.load("binding_steps")


@pytest.mark.usefixtures("steps_on_cpu", "poison")
def test_tf32_where_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["vectors and one"]
    truth, exact = case.run("reference"), None
    on_cpu_tensors(monkeypatch, "cuda")
    for allowed, most in ((False, 1e-6), (True, 1e-3)):
        monkeypatch.setattr(gpu, "allows_tf32", lambda _, allowed=allowed: allowed)
        got = case.run("cuda", torch.float32)
        for order in ("outputs", "first", "second"):
            for out, true in zip(getattr(got, order), getattr(truth, order), strict=True):
                assert relative_error(out, true) < most
        assert exact is None or relative_error(got.second[0], exact.second[0].double()) > 1e-5
        exact = got


SLOW = ["one step", "both directions, no bias", "lengths, both directions"]


@pytest.mark.usefixtures("steps_on_cpu", "poison")
@pytest.mark.parametrize("impl", ["cell"])
@pytest.mark.parametrize("name", SLOW)
def test_gradgradcheck(name: str, impl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    on_cpu_tensors(monkeypatch, impl)
    inputs = [t.clone().requires_grad_() for t in case.inputs]

    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        return case.call(impl, *inputs)

    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


@pytest.mark.usefixtures("steps_on_cpu", "poison")
@pytest.mark.parametrize("name", ["lengths", "both directions", "lengths, both directions"])
@pytest.mark.parametrize("window", [0, 1, 3, 100])
def test_parts_of_the_steps(name: str, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """dz is made for some steps at a time; with a window the gates are computed again as well."""
    case = CASES[name]
    x, h0, c0, *weights = inputs = [t.clone().requires_grad_() for t in case.inputs]
    count = len(weights) // case.D
    groups = [weights[d * count : (d + 1) * count] for d in range(case.D)]
    truth = torch.autograd.grad(case.call("reference", *inputs), inputs, case.cotangents)
    on_cpu_tensors(monkeypatch, "cell")
    monkeypatch.setattr(gpu, "PART", 2 * 4 * h0.numel())  # two steps
    monkeypatch.setattr(autograd, "RECOMPUTE_WINDOW", window)
    with torch.no_grad():
        y = lstm(x, groups, h0, c0, lengths=case.lengths)[0]
    outputs = lstm(x, groups, h0, c0, lengths=case.lengths, recompute=window > 0)
    torch.testing.assert_close(y, outputs[0])
    got = torch.autograd.grad(outputs, inputs, case.cotangents, retain_graph=True)
    torch.testing.assert_close(got, truth)
    # Twice, to see that a backward changes nothing that was saved.
    again = torch.autograd.grad(outputs, inputs, case.cotangents, create_graph=True)
    torch.testing.assert_close(again, truth)
    assert again[0].requires_grad


@pytest.mark.usefixtures("steps_on_cpu", "poison")
@torch.no_grad()
def test_lengths_out_of_range_are_clamped() -> None:
    """Lengths on a GPU are not checked: that would take a synchronisation."""
    case = CASES["lengths, both directions"]
    x, h0, c0, *weights = case.inputs
    wrong = torch.tensor([99, 7, -1, 0, 3, 8])
    clamped = wrong.clamp(0, case.T)
    got, want = (
        gpu.lstm_forward(ForwardArguments(x, weights, h0, c0, lengths, save=True, impl="cell"))
        for lengths in (wrong, clamped)
    )
    torch.testing.assert_close(got, want)
    y, h, _, *saved = got
    assert not y[:, 2:4].any()
    torch.testing.assert_close(h[:, 2], h0[:, 2])
    got, want = (
        gpu.lstm_backward(
            BackwardArguments(
                *case.cotangents,
                *(x, weights, h0, c0, lengths, y, *saved),
                wanted=[True] * 6,
                save=True,
                impl="cell",
            )
        )
        for lengths in (wrong, clamped)
    )
    torch.testing.assert_close(got, want)
    assert all(t.isfinite().all() for t in (*got[:3], *got[3], got[4]))


@pytest.mark.usefixtures("steps_on_cpu")
def test_a_step_operator_checks_its_tensors() -> None:
    z, weight = torch.zeros(2, 3, 1, 16), torch.zeros(1, 16, 4)
    h, c, y = torch.zeros(1, 3, 4), torch.zeros(1, 3, 4), torch.zeros(2, 3, 1, 4)
    good = {"z": z, "bias": None, "weight_hh": weight, "lengths": None, "first": 0, "total": 2}
    good |= {"h": h, "c": c, "y": y, "gates": None, "c_all": None, "tf32": False, "impl": "cell"}
    op = torch.ops.ganlstm_fast.lstm_forward_steps
    op(**good)
    for change, message in (
        ({"z": z[..., :12]}, r"z: expected a contiguous tensor"),
        ({"z": z[..., :12].contiguous()}, r"z: expected shape \(T, B, D, 4H\) = \(2, 3, 1, 16\)"),
        ({"first": 1}, r"first: expected 2 steps from it on within 2, got 1"),
        ({"y": y.double()}, r"y: expected torch.float32, got torch.float64"),
        ({"c": torch.zeros(1, 3, 5)}, r"c: expected shape \(D, B, H\)"),
        ({"lengths": torch.ones(3)}, r"lengths: expected torch.int64, got torch.float32"),
        ({"bias": torch.zeros(1, 4)}, r"bias: expected shape \(D, 4H\) = \(1, 16\), got \(1, 4\)"),
        ({"total": 5, "y": torch.zeros(3, 3, 1, 4)}, r"y: expected 5 steps or the 2 of this call"),
        ({"impl": "other"}, r"impl: expected cell or cuda, got other"),
    ):
        with pytest.raises(RuntimeError, match=message):
            op(**(good | change))


@pytest.mark.usefixtures("steps_on_cpu", "poison")
@pytest.mark.parametrize("name", ["lengths, both directions", "no bias"])
def test_torch_at_first_order_and_kernels_at_second(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``auto`` on a measured GPU, where cuDNN runs calls that are not recorded."""
    case = CASES[name]
    on_cpu_tensors(monkeypatch, "torch")
    monkeypatch.setattr(fit, "second_order", lambda *_: "cell")
    assert_runs_equal(case.run("torch", torch.float32), case)
    inputs = [t.float().requires_grad_() for t in case.inputs]
    outputs = case.call("torch", *inputs)
    cotangents = [t.float() for t in case.cotangents]
    first = torch.autograd.grad(outputs, inputs, cotangents, retain_graph=True)
    again = torch.autograd.grad(outputs, inputs, cotangents)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(outputs, inputs, cotangents)

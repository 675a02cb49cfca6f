"""The LSTM's operators against the reference, to second order, and called by themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ganlstm_fast.ops import backends
from ganlstm_fast.ops.lstm import reference
from tests.lstm_cases import CASES, DTYPES, LONG_SUMS, RIVAL_DTYPES, Case, answer
from tests.marks import needs_cpu_kernels
from tests.numerics import assert_close_to_reference, relative_error

IMPLS = [pytest.param("cpu", marks=needs_cpu_kernels), "torch"]
ISAS = ["baseline", "avx2", "avx512", "avx512bf16"]


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_equals_reference_to_second_order(name: str, dtype: torch.dtype, impl: str) -> None:
    truth = answer(name, dtype, "reference")
    rival = answer(name, dtype, "reference" if impl == "torch" else "torch", RIVAL_DTYPES[dtype])
    got = answer(name, dtype, impl, dtype)
    assert_close_to_reference(got.outputs, truth.outputs, rival.outputs, "output")
    for order in ("first", "second"):
        for input_name, out, ref, other in zip(
            [*CASES[name].names, "grad_y", "grad_h", "grad_c"],
            getattr(got, order),
            getattr(truth, order),
            getattr(rival, order),
            strict=False,
        ):
            assert_close_to_reference(out, ref, other, f"{order} gradient of {input_name}")


@needs_cpu_kernels
@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("name", [name for name in CASES if name != "one of everything"])
def test_bfloat16_errs_little_more_than_its_rounding(name: str) -> None:
    """Sums, gates and states are float32; the floor of the rule is too wide to check that.

    (A tensor of one element may lose more to cancellation.)
    """
    truth = answer(name, torch.bfloat16, "reference")
    got = answer(name, torch.bfloat16, "cpu", torch.bfloat16)
    for order in ("outputs", "first", "second"):
        for value, ref in zip(getattr(got, order), getattr(truth, order), strict=True):
            assert relative_error(value, ref) < torch.finfo(torch.bfloat16).eps


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_backward_that_is_not_recorded(name: str, dtype: torch.dtype, impl: str) -> None:
    """Such a backward keeps nothing for a second order and sums in another order."""
    case = CASES[name].rounded(dtype)
    dtypes = torch.float64, RIVAL_DTYPES[dtype]
    truth, rival = (answer(name, dtype, "reference", d).first for d in dtypes)
    inputs = [t.to(dtype, copy=True).requires_grad_() for t in case.inputs]
    cotangents = [t.to(dtype) for t in case.cotangents]
    outputs = case.call(impl, *inputs)
    got = torch.autograd.grad(outputs, inputs, cotangents, retain_graph=True)
    for input_name, *values in zip(case.names, got, truth, rival, strict=True):
        assert_close_to_reference(*values, f"gradient of {input_name}")
    (alone,) = torch.autograd.grad(outputs, inputs[0], cotangents)
    assert_close_to_reference(alone, truth[0], rival[0], "gradient of x alone")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the truth and torch's own answer for every case."""
    path = tmp_path_factory.mktemp("answers") / "answers.pt"
    runs = {
        name: [
            vars(answer(name, torch.float64, *w))
            for w in (("reference",), ("torch", torch.float32))
        ]
        for name in CASES | LONG_SUMS
    }
    torch.save(runs, path)
    return path


@needs_cpu_kernels
@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set(isa: str, answers: Path) -> None:
    """Each in a new process: the set is chosen once, and malloc fills memory with garbage."""
    if isa not in ISAS[: ISAS.index(backends.cpu_isa()) + 1]:
        pytest.skip(f"this processor lacks {isa}")
    code = (
        "from tests.lstm_cases import CASES, LONG_SUMS\n"
        "import sys, torch\n"
        "from ganlstm_fast.ops.backends import cpu_isa\n"
        "from tests.numerics import assert_close_to_reference as close\n"
        f"assert cpu_isa() == {isa!r}\n"
        "answers = torch.load(sys.argv[1])\n"
        "for name, case in (CASES | LONG_SUMS).items():\n"
        "    truth, rival = answers[name]\n"
        "    exact, single = case.run('cpu'), case.run('cpu', torch.float32)\n"
        "    short = case.run('cpu', torch.bfloat16)\n"
        "    for k in ('outputs', 'first', 'second'):\n"
        "        for got in (exact, single):\n"
        "            close(getattr(got, k), truth[k], rival[k], name)\n"
        "        close(getattr(short, k), truth[k], what=name)\n"
    )
    environment = {**os.environ, "GANLSTM_FAST_CPU_ISA": isa, "MALLOC_PERTURB_": "129"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", code, str(answers)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    "case",
    [
        Case(3, 2, 2, 3),
        Case(3, 2, 2, 3, D=2, lengths=[3, 2]),
        Case(2, 3, 3, 2, bias=False, lengths=[1, 2, 2]),
    ],
    ids=["plain", "both directions, lengths", "no bias, lengths"],
)
def test_gradcheck_and_gradgradcheck(case: Case, impl: str) -> None:
    inputs = [t.clone().requires_grad_() for t in case.inputs]
    assert torch.autograd.gradcheck(lambda *a: case.call(impl, *a), inputs)
    # The second order of impl="torch" runs our kernels or the reference, which have full checks.
    fast = impl == "torch"
    assert torch.autograd.gradgradcheck(lambda *a: case.call(impl, *a), inputs, fast_mode=fast)


@pytest.mark.parametrize("lengths", [None, [6, 1, 3, 5]])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_reference_with_projections(bidirectional: bool, lengths: list[int] | None) -> None:
    layer = nn.LSTM(3, 5, proj_size=2, bidirectional=bidirectional, dtype=torch.float64)
    weights = list(layer.parameters())
    groups = [weights[:5], weights[5:]] if bidirectional else [weights]
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    h0 = torch.randn(len(groups), 4, 2, dtype=torch.float64)
    c0 = torch.randn(len(groups), 4, 5, dtype=torch.float64)
    ends = None if lengths is None else torch.tensor(lengths)
    got = reference.lstm(x, groups, h0, c0, ends)
    if lengths is None:
        y, states = layer(x, (h0, c0))
    else:
        packed, states = layer(pack_padded_sequence(x, ends, enforce_sorted=False), (h0, c0))
        y, _ = pad_packed_sequence(packed)
    torch.testing.assert_close(got, (y, *states))
    grads = torch.autograd.grad(got[0].square().sum(), weights)
    expected = torch.autograd.grad(y.square().sum(), weights)
    torch.testing.assert_close(grads, expected)


@needs_cpu_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_threads_do_not_change_the_result(dtype: torch.dtype) -> None:
    """Any number of threads obeys the rule of numerics.py, and a second run has the same bits."""
    case = Case(20, 24, 16, 40, D=2, lengths=[1 + (7 * b) % 20 for b in range(24)])
    case = case.rounded(dtype)
    before = torch.get_num_threads()
    try:
        results = {}
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            results[threads] = case.run("cpu", dtype)
            again = case.run("cpu", dtype)
            for order in ("outputs", "first", "second"):
                for a, b in zip(
                    getattr(results[threads], order), getattr(again, order), strict=True
                ):
                    assert torch.equal(a, b)
    finally:
        torch.set_num_threads(before)
    truth = case.run("reference")
    rival = case.run("torch", dtype)
    for result in results.values():
        for order in ("outputs", "first", "second"):
            assert_close_to_reference(
                getattr(result, order), getattr(truth, order), getattr(rival, order), order
            )


class TestOperators:
    """torch.ops.ganlstm_fast.lstm_*: what torch.compile and direct callers use."""

    pytestmark = needs_cpu_kernels

    def arguments(
        self, lengths: bool, dtype: torch.dtype = torch.float32
    ) -> tuple[list[object], ...]:
        case = Case(4, 3, 2, 5, D=2)
        x, h0, c0, *weights = (t.to(dtype) for t in case.inputs)
        ends = torch.tensor([4, 1, 3]) if lengths else None
        ops = torch.ops.ganlstm_fast
        forward = [x, weights, h0, c0, ends, True]
        y, _, _, gates, cells = ops.lstm_forward(*forward)
        saved = [x, weights, h0, c0, ends, y, gates, cells]
        gy, gh, gc_ = (t.to(dtype) for t in case.cotangents)
        backward = [gy, gh, gc_, *saved, [True] * 6, True]
        gx, gh0, gc0, gw, dz, d = ops.lstm_backward(*backward)
        double = [gx, gh0, gc0, gw, gc_, *saved, dz, d, [True] * 9]
        return forward, backward, double

    @pytest.mark.parametrize(
        ("dtype", "lengths", "needs_grad"),
        [  # each pair of values
            (torch.float32, False, False),
            (torch.float32, True, True),
            (torch.bfloat16, False, True),
            (torch.bfloat16, True, False),
        ],
        ids=str,
    )
    def test_opcheck(self, dtype: torch.dtype, lengths: bool, needs_grad: bool) -> None:
        forward, backward, double = self.arguments(lengths, dtype)
        ops = torch.ops.ganlstm_fast
        if needs_grad:
            forward[0] = forward[0].clone().requires_grad_()
            backward[3] = backward[3].clone().requires_grad_()
        torch.library.opcheck(ops.lstm_forward.default, forward)
        torch.library.opcheck(ops.lstm_backward.default, backward)
        torch.library.opcheck(ops.lstm_double_backward.default, double)

    def test_dtypes_of_bfloat16(self) -> None:
        """What is saved for the next pass is float32, except what only feeds products."""
        forward, backward, double = self.arguments(True, torch.bfloat16)
        ops = torch.ops.ganlstm_fast
        bf16, f32 = torch.bfloat16, torch.float32
        dtypes = [t.dtype for t in ops.lstm_forward(*forward)]
        assert dtypes == [bf16, bf16, bf16, f32, f32]
        *grads, weights, dz, d = ops.lstm_backward(*backward)
        assert [t.dtype for t in (*grads, *weights, dz, d)] == [bf16] * (3 + 8 + 1) + [f32]
        *grads, weights = ops.lstm_double_backward(*double)
        assert {t.dtype for t in (*grads, *weights)} == {bf16}
        for arguments, op, index, name in (
            (backward, ops.lstm_backward, 9, "gates"),
            (backward, ops.lstm_backward, 10, "c"),
            (double, ops.lstm_double_backward, 14, "d"),
        ):
            spoiled = [*arguments]
            spoiled[index] = spoiled[index].to(bf16)
            with pytest.raises(RuntimeError, match=f"{name}: expected torch.float32, .* got torch"):
                op(*spoiled)
        forward[0] = forward[0].float()
        with pytest.raises(RuntimeError, match="float32 as x has, got torch"):
            ops.lstm_forward(*forward)

    def test_a_bare_op_has_its_gradients(self) -> None:
        """Without its autograd kernel a bare torch.ops call would silently give no gradient."""
        forward, _, _ = self.arguments(False)
        x = forward[0].clone().requires_grad_()
        y = torch.ops.ganlstm_fast.lstm_forward(x, *forward[1:])[0]
        (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((grad**2).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="third derivative"):
            torch.autograd.grad(second.sum(), x)

    def test_only_the_wanted_results_have_a_size(self) -> None:
        _, backward, double = self.arguments(False)
        backward[-2] = [True, False, False, False, True, False]
        gx, gh0, _, weights, _, _ = torch.ops.ganlstm_fast.lstm_backward(*backward)
        assert gx.numel() > 0
        assert gh0.shape == (0,)
        assert [w.numel() > 0 for w in weights] == [False, True, False, False] * 2
        double[-1] = [False] * 8 + [True]
        *rest, weights = torch.ops.ganlstm_fast.lstm_double_backward(*double)
        assert all(t.shape == (0,) for t in rest)
        assert [w.numel() > 0 for w in weights] == [False, False, True, True] * 2

    @pytest.mark.parametrize(
        ("index", "value", "message"),
        [
            (0, torch.zeros(4, 3), r"x: expected shape \(T, B, I\), got \(4, 3\)"),
            (0, torch.zeros(4, 3, 2, dtype=torch.int64), "h0: expected torch.int64 as x has"),
            (2, torch.zeros(2, 3, 6), r"weight|c0: expected shape"),
            (3, torch.zeros(2, 3, 5).double(), "c0: expected torch.float32 as x has, got torch.f"),
            (4, torch.tensor([4, 0, 1]), r"lengths: expected values in 1..4, got 0 at index 1"),
            (4, torch.tensor([4.0, 1, 1]), "lengths: expected torch.int64"),
        ],
    )
    def test_messages(self, index: int, value: torch.Tensor, message: str) -> None:
        forward, _, _ = self.arguments(False)
        forward[index] = value
        with pytest.raises(RuntimeError, match=message):
            torch.ops.ganlstm_fast.lstm_forward(*forward)

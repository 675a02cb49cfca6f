"""The LSTM's operators: against the reference, to second order, on every kind of input."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ganlstm_fast import lstm, lstm_cell, use_impl
from ganlstm_fast.ops import backends
from ganlstm_fast.ops.lstm import autograd, reference
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
    """Sums, gates and states are float32; the rule's floor alone would not see it.

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
    """It keeps nothing for a second order, and computes in another order than one that does."""
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
    """In a process of its own, where the set is chosen once and memory is filled with garbage."""
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
    # What differentiates torch's own twice is checked in full under its own name.
    fast = impl == "torch"
    assert torch.autograd.gradgradcheck(lambda *a: case.call(impl, *a), inputs, fast_mode=fast)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("output", [0, 1, 2], ids=["y", "h_T", "c_T"])
def test_one_cotangent_alone(output: int, dtype: torch.dtype, impl: str) -> None:
    """The other two are absent; this one is expanded (stride 0), as sum() makes it."""
    case = Case(6, 8, 5, 16, D=2, lengths=[6, 2, 4, 1, 6, 3, 5, 4]).rounded(dtype)

    def second_order(impl: str, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
        inputs = [t.to(dtype, copy=True).requires_grad_() for t in case.inputs]
        grads = torch.autograd.grad(
            case.call(impl, *inputs)[output].sum(), inputs, create_graph=True
        )
        penalty = sum((g**2).sum() for g in grads)
        return [*grads, *torch.autograd.grad(penalty, inputs)]

    rival = second_order("reference", RIVAL_DTYPES[dtype])
    assert_close_to_reference(second_order(impl, dtype), second_order("reference"), rival)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("wanted", [[0], [1], [2], [3], [4], [5], [0, 4], [1, 2]], ids=str)
def test_only_some_gradients(wanted: list[int], dtype: torch.dtype, impl: str) -> None:
    """Of all inputs' gradients only a few are asked for, at each order, by autograd.grad."""
    case = Case(4, 3, 2, 5).rounded(dtype)

    def run(impl: str, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
        inputs = [t.to(dtype, copy=True).requires_grad_() for t in case.inputs]
        chosen = [inputs[k] for k in wanted]
        outputs = case.call(impl, *inputs)
        cotangents = [t.to(dtype) for t in case.cotangents]
        first = torch.autograd.grad(outputs, chosen, cotangents, create_graph=True)
        total = sum((g**2).sum() for g in first)
        return [*first, *torch.autograd.grad(total, chosen)]

    rival = run("reference", RIVAL_DTYPES[dtype])
    assert_close_to_reference(run(impl, dtype), run("reference"), rival)


@pytest.mark.parametrize("impl", IMPLS)
def test_inputs_that_need_no_gradient(impl: str) -> None:
    case = Case(4, 3, 2, 5)

    def run(impl: str, needs: list[bool], dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
        inputs = [
            t.to(dtype, copy=True).requires_grad_(n)
            for t, n in zip(case.inputs, needs, strict=True)
        ]
        leaves = [t for t in inputs if t.requires_grad]
        first = torch.autograd.grad(case.call(impl, *inputs)[0].sum(), leaves, create_graph=True)
        return [*first, *torch.autograd.grad(sum((g**2).sum() for g in first), leaves)]

    for needs in ([True] + [False] * 6, [False] * 4 + [True] * 3, [False, True] * 3 + [False]):
        rival = run("reference", needs, torch.float32)
        assert_close_to_reference(run(impl, needs), run("reference", needs), rival)


@pytest.mark.parametrize("impl", IMPLS)
def test_penalty_with_known_value(impl: str) -> None:
    """With zero weights h_t = sigmoid(b_o) tanh(c_t) has a gradient with respect to c0 by hand.

    Zero weights and biases make f = 1/2, g = 0, o = 1/2, so c_T = c0 / 2^T and d c_T / d c0 = 2^-T;
    the penalty (||d c_T / d c0|| - 1)^2 over H units is (sqrt(H) 2^-T - 1)^2. Its derivative with
    respect to the forget bias b: f' = 1/4 gives d/db of sqrt(H) f^T = sqrt(H) T f^(T-1) / 4, which
    over the H units (each bias moving one of them) divides by H.
    """
    steps, hidden = 3, 4
    case = Case(steps, 1, 2, hidden)
    inputs = [torch.zeros_like(t).requires_grad_() for t in case.inputs]
    c0, bias = inputs[2], inputs[5]
    (grad,) = torch.autograd.grad(case.call(impl, *inputs)[2].sum(), c0, create_graph=True)
    penalty = (grad.norm() - 1) ** 2
    norm = hidden**0.5 * 0.5**steps
    torch.testing.assert_close(penalty, torch.tensor((norm - 1) ** 2, dtype=torch.float64))
    (by_bias,) = torch.autograd.grad(penalty, bias)
    each = 2 * (norm - 1) * hidden**0.5 * steps * 0.5 ** (steps - 1) * 0.25 / hidden
    expected = torch.zeros(4 * hidden, dtype=torch.float64)
    expected[hidden : 2 * hidden] = each
    torch.testing.assert_close(by_bias, expected)


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


@pytest.mark.parametrize("impl", IMPLS)
def test_retain_graph(impl: str) -> None:
    case = Case(5, 3, 2, 4)
    inputs = [t.clone().requires_grad_() for t in case.inputs]
    outputs = case.call(impl, *inputs)
    once = torch.autograd.grad(outputs, inputs, case.cotangents, retain_graph=True)
    first = torch.autograd.grad(outputs, inputs, case.cotangents, create_graph=True)
    total = sum((g**2).sum() for g in first)
    second = torch.autograd.grad(total, inputs, retain_graph=True)
    again = torch.autograd.grad(total, inputs, retain_graph=True)
    twice = torch.autograd.grad(outputs, inputs, case.cotangents)
    for a, b, c in zip(once, first, twice, strict=True):
        torch.testing.assert_close(a, b)
        assert torch.equal(a, c)
    for a, b in zip(second, again, strict=True):
        assert torch.equal(a, b)


def test_saved_tensor_changed_in_place_raises() -> None:
    case = Case(3, 2, 2, 3)
    inputs = [t.clone().requires_grad_() for t in case.inputs]
    y, _, _ = case.call("auto", *inputs)
    with torch.no_grad():
        inputs[3].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@needs_cpu_kernels
def test_third_order_raises() -> None:
    case = Case(3, 2, 2, 3)
    inputs = [t.clone().requires_grad_() for t in case.inputs]
    y = case.call("cpu", *inputs)[0]
    (grad,) = torch.autograd.grad(y.sum(), inputs[0], create_graph=True)
    (second,) = torch.autograd.grad((grad**2).sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable twice, and a third derivative"):
        torch.autograd.grad(second.sum(), inputs[0], retain_graph=True)
    ordinary = (inputs[0] ** 2).sum()
    with pytest.raises(RuntimeError, match="differentiable twice, and a third derivative"):
        ((second**2).sum() + ordinary).backward()


@needs_cpu_kernels
@pytest.mark.parametrize("output", [0, 1])
def test_third_order_through_a_cotangent_raises(output: int) -> None:
    """A tensor that is met only on the way into the first backward, such as a critic's head."""
    case = Case(3, 2, 2, 3)
    inputs = [t.clone().requires_grad_() for t in case.inputs]
    head = torch.randn(3, dtype=torch.float64, requires_grad=True)
    score = (case.call("cpu", *inputs)[output] @ head).sum()
    (grad,) = torch.autograd.grad(score, inputs[0], create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="third derivative"):
        torch.autograd.grad((second**2).sum() + (head**2).sum(), head)


@pytest.mark.parametrize("impl", IMPLS)
def test_inputs_that_depend_on_each_other(impl: str) -> None:
    """h0 from x, c0 the same tensor as h0, one weight for both directions."""
    case = Case(4, 3, 5, 5, D=2)

    def run(impl: str, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
        x, _, _, *weights = (t.to(dtype, copy=True).requires_grad_() for t in case.inputs)
        h0 = torch.stack([x[0], x[1]]).tanh()
        leaves = [x, *weights[:4]]
        outputs = case.call(impl, x, h0, h0, *weights[:4], *weights[:4])
        cotangents = [t.to(dtype) for t in case.cotangents]
        first = torch.autograd.grad(outputs, leaves, cotangents, create_graph=True)
        return [*first, *torch.autograd.grad(sum((g**2).sum() for g in first), leaves)]

    assert_close_to_reference(run(impl), run("reference"), run("reference", torch.float32))


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


@needs_cpu_kernels
def test_hooks_on_outputs_that_are_not_used() -> None:
    case = Case(3, 2, 2, 3)
    inputs = [t.clone().requires_grad_() for t in case.inputs]
    y, h, c = case.call("cpu", *inputs)
    called = []
    for name, output in (("y", y), ("h", h), ("c", c)):
        output.register_hook(lambda grad, name=name: called.append((name, grad.shape)))
    h.sum().backward()
    assert called == [("h", h.shape)]


def test_impl_torch_lets_go_of_its_graph() -> None:
    case = Case(3, 2, 2, 3)
    inputs = [t.clone().requires_grad_() for t in case.inputs]
    y = case.call("torch", *inputs)[0]
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.sum().backward()


def test_third_order_of_the_reference() -> None:
    case = Case(2, 2, 1, 2)
    inputs = [t.clone().requires_grad_() for t in case.inputs]

    def gradient(*inputs: torch.Tensor) -> torch.Tensor:
        y = case.call("reference", *inputs)[0]
        return torch.autograd.grad((y**3).sum(), inputs[0], create_graph=True)[0]

    assert torch.autograd.gradgradcheck(gradient, inputs)


@needs_cpu_kernels
def test_vmap_raises() -> None:
    case = Case(3, 2, 2, 3)
    x, *rest = case.inputs
    x = x.clone().requires_grad_()
    y = case.call("cpu", x, *rest)[0]
    with pytest.raises(RuntimeError, match=r"Batching rule not .*lstm_backward"):
        torch.autograd.grad(y, x, torch.ones(2, *y.shape, dtype=y.dtype), is_grads_batched=True)
    with pytest.raises(RuntimeError, match=r"Batching rule not .*lstm_forward"):
        torch.func.vmap(lambda one: case.call("cpu", one, *rest)[0])(torch.stack([x, x]))


@pytest.mark.parametrize("needs_grad", [False, True])
@pytest.mark.parametrize("impl", IMPLS)
def test_forward_mode_raises(impl: str, needs_grad: bool) -> None:
    case = Case(3, 2, 2, 3)
    x, *rest = (t.detach() for t in case.inputs)
    x = x.clone().requires_grad_(needs_grad)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        if impl == "torch" and not needs_grad:  # torch's own LSTM, which has forward mode
            tangents = (
                torch.autograd.forward_ad.unpack_dual(case.call(i, dual, *rest)[0]).tangent
                for i in (impl, "reference")
            )
            torch.testing.assert_close(*tangents)
            return
        with pytest.raises((RuntimeError, NotImplementedError), match=r"jvp|forward"):
            case.call(impl, dual, *rest)


@pytest.mark.parametrize("impl", IMPLS)
def test_func_grad_of_grad(impl: str) -> None:
    case = Case(3, 2, 2, 3, D=2, lengths=[3, 2])

    def penalty(impl: str, weight: torch.Tensor) -> torch.Tensor:
        x, h0, c0, _, *rest = case.inputs
        critic = lambda x: case.call(impl, x, h0, c0, weight, *rest)[0].sum()  # noqa: E731
        return (torch.func.grad(critic)(x) ** 2).sum()

    weight = case.inputs[3]
    got = torch.func.grad(lambda w: penalty(impl, w))(weight)
    assert_close_to_reference(got, torch.func.grad(lambda w: penalty("reference", w))(weight))


@needs_cpu_kernels
def test_checkpoint_and_saved_tensor_hooks() -> None:
    case = Case(5, 3, 2, 4)

    def run(wrap: bool) -> tuple[torch.Tensor, ...]:
        inputs = [t.clone().requires_grad_() for t in case.inputs]
        if wrap:
            y = torch.utils.checkpoint.checkpoint(
                lambda *a: case.call("cpu", *a)[0], *inputs, use_reentrant=False
            )
        else:
            with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
                y = case.call("cpu", *inputs)[0]
        return torch.autograd.grad(y.sum(), inputs)

    for a, b in zip(run(True), run(False), strict=True):
        assert torch.equal(a, b)


@needs_cpu_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_threads_do_not_change_the_result(dtype: torch.dtype) -> None:
    """To the rule of numerics.py; a second run is the same bit for bit."""
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


@needs_cpu_kernels
def test_nothing_is_kept_after_the_graph_is_gone() -> None:
    case = Case(3, 2, 2, 3)
    inputs = [t.clone().requires_grad_() for t in case.inputs]
    y = case.call("cpu", *inputs)[0]
    (grad,) = torch.autograd.grad(y.sum(), inputs[0], create_graph=True)
    node = y.grad_fn.next_functions[0][0]
    alive = weakref.ref(node)
    del node
    del y, grad
    gc.collect()
    assert alive() is None


@needs_cpu_kernels
def test_only_dx_is_computed_for_a_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first backward of a gradient penalty asks for dx; the weights' part must be left out."""
    asked: list[list[bool]] = []
    original = autograd.LSTMBackwardFunction.apply
    monkeypatch.setattr(
        autograd.LSTMBackwardFunction,
        "apply",
        lambda *a: (asked.append(a[10]), original(*a))[1],
    )
    case = Case(3, 2, 2, 3)
    inputs = [t.clone().requires_grad_() for t in case.inputs]
    hidden = inputs[0] * 1  # x as a result of something, not only as a leaf
    y = case.call("cpu", hidden, *inputs[1:])[0]
    torch.autograd.grad(y.sum(), inputs[0], create_graph=True)
    assert asked == [[True, False, False, False, False, False]]


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
        """A bare torch.ops call without autograd would silently give none."""
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

"""The LSTM under autograd: some gradients only, two orders, and an error for the third."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from ganlstm_fast.ops.lstm import autograd
from ganlstm_fast.ops.lstm.operators import Wanted
from tests.lstm_cases import RIVAL_DTYPES, Case
from tests.marks import needs_cpu_kernels
from tests.numerics import assert_close_to_reference

IMPLS = [pytest.param("cpu", marks=needs_cpu_kernels), "torch"]


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
    """autograd.grad asks for the gradients of a few inputs only, at each order."""
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
    """For a tensor that acts only through the cotangents, such as a critic's head."""
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
    asked: list[Wanted] = []
    original = autograd.LSTMBackwardFunction.apply
    monkeypatch.setattr(
        autograd.LSTMBackwardFunction,
        "apply",
        lambda *a: (asked.append(autograd.BACKWARD.of(a).wanted), original(*a))[1],
    )
    case = Case(3, 2, 2, 3)
    inputs = [t.clone().requires_grad_() for t in case.inputs]
    hidden = inputs[0] * 1  # x is the result of an operator, not a leaf
    y = case.call("cpu", hidden, *inputs[1:])[0]
    torch.autograd.grad(y.sum(), inputs[0], create_graph=True)
    assert asked == [
        Wanted(x=True, h0=False, c0=False, weight_ih=False, weight_hh=False, bias=False)
    ]

"""The spectral norm's operators and their Functions against the reference, for lists of weights."""

from __future__ import annotations

import itertools
import weakref

import pytest
import torch

from ganlstm_fast import use_impl
from ganlstm_fast.ops.spectral_norm.function import (
    normalize_and_update,
    reference,
    spectral_normalize,
    spectral_normalize_group,
)
from tests.marks import needs_cpu_kernels
from tests.numerics import assert_close_to_reference, relative_error, tolerance
from tests.spectral_norm_cases import inputs, three_orders, torchs

pytestmark = needs_cpu_kernels

ops = torch.ops.ganlstm_fast

# Shapes and the dimension of the outputs.
SHAPES = [
    ((64, 3, 4, 4), 0),
    ((5, 7), 0),
    ((1, 1), 0),
    ((33, 17, 3, 3), 0),
    ((33, 17, 3, 3), 1),
    ((40, 30), 1),
    ((6, 5, 4, 4), 1),
    ((3, 4, 5, 6), 2),
    ((2, 3, 4), 2),
    ((3, 50000), 0),  # wide: more than one block
    ((5000, 13), 0),  # tall
    ((300, 70, 3), 1),
    ((1, 50), 0),
    ((50, 1), 0),
    ((1, 50), 1),
]
IDS = [f"{'x'.join(map(str, shape))}-dim{dim}" for shape, dim in SHAPES]
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("iterations", [1, 5])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "dim"), SHAPES, ids=IDS)
def test_equals_the_reference_to_second_order(shape, dim, dtype, iterations, training, poison):
    weight, u, v = inputs(shape, dim, dtype)
    # From random vectors sigma would be a small sum of large terms.
    u, v = spectral_normalize(weight, u, v, dim=dim, n_power_iterations=3)[1:]
    # Not nearly orthogonal to u v^T: a product with it would be a small sum of large terms.
    grad, cotangent = (torch.randn(shape).to(dtype) + weight for _ in range(2))
    options = {"n_power_iterations": iterations, "training": training}
    wide = [t.double() for t in (weight, u, v, grad, cotangent)]
    lists = [[t] for t in (weight, u, v)]
    out = three_orders(*lists, [dim], [grad], [cotangent], "cpu", **options)
    lists = [[t] for t in wide[:3]]
    truth = three_orders(*lists, [dim], [wide[3]], [wide[4]], "reference", **options)
    rival = torchs(weight, u, v, dim, grad, cotangent, training, iterations)
    if weight.numel() == 1:  # the weight's second derivative is 0, the difference of two terms
        terms = (wide[3] * wide[4] / wide[0].square()).item()
        assert abs(out[2].pop(0).item()) <= tolerance(dtype) * abs(terms)
        del truth[2][0], rival[2][0]
    if dtype == torch.float64:  # here the truth has roundings as large as ours
        for o, t in zip(itertools.chain(*out), itertools.chain(*truth), strict=True):
            assert relative_error(o, t) <= 64 * torch.finfo(dtype).eps
        return
    for o, t, r, what in zip(out, truth, rival, ("outputs", "first", "second"), strict=True):
        assert_close_to_reference(o, t, r, what)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_list_is_as_one_at_a_time(dtype, poison):
    """Equal to the bit, with one thread and with two."""
    args = [inputs(shape, dim, dtype) for shape, dim in SHAPES]
    weights, u, v = map(list, zip(*args, strict=True))
    dims = [dim for _, dim in SHAPES]
    grads, cotangents = ([torch.randn_like(w) for w in weights] for _ in range(2))
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(three_orders(weights, u, v, dims, grads, cotangents, "cpu"))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
    torch.testing.assert_close(results[2], results[0], rtol=0, atol=0)
    n = len(SHAPES)
    for k in range(n):
        given = [[values[k]] for values in (weights, u, v, dims, grads, cotangents)]
        alone = three_orders(*given, "cpu")
        expected = [results[0][0][k::n], results[0][1][k::n], results[0][2][k::n]]
        torch.testing.assert_close(list(alone), expected, rtol=0, atol=0)


def test_a_list_of_several_dtypes():
    dtypes = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float32]
    args = [inputs((4, 5), 0, dtype) for dtype in dtypes]
    normalized, u, v = spectral_normalize_group(*zip(*args, strict=True))
    for k, arg in enumerate(args):
        expected = spectral_normalize(*arg)
        torch.testing.assert_close((normalized[k], u[k], v[k]), expected, rtol=0, atol=0)
    assert spectral_normalize_group([], [], []) == ([], [], [])


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_gradgradcheck_of_a_list_with_frozen_vectors(dim):
    args = [inputs(shape, dim, torch.float64) for shape in ((4, 3, 2), (2, 5, 3), (1, 2, 1))]
    weights, u, v = zip(*args, strict=True)
    weights = [w.requires_grad_() for w in weights]

    def run(*weights):
        return tuple(spectral_normalize_group(weights, u, v, dims=[dim] * 3, training=False)[0])

    assert torch.autograd.gradcheck(run, weights)
    assert torch.autograd.gradgradcheck(run, weights)


@pytest.mark.parametrize("order", [1, 2])
def test_a_part_of_the_list(order):
    """Outputs that the loss does not use, and weights that are not asked for or are constants."""
    args = [inputs((4, 5), 0, torch.float64) for _ in range(4)]
    weights, u, v = zip(*args, strict=True)
    for w in weights[:3]:
        w.requires_grad_()
    results = []
    for impl in ("cpu", "reference"):
        n = spectral_normalize_group(weights, u, v, impl=impl)[0]
        loss = n[0].pow(3).sum() + n[1].pow(3).sum() + n[3].sum()
        wanted = [weights[1], weights[2]]
        grads = torch.autograd.grad(loss, wanted, create_graph=order == 2, allow_unused=True)
        assert grads[1] is None
        results.append(grads[0])
        if order == 2:
            both = torch.autograd.grad(grads[0].pow(2).sum(), weights[:3], allow_unused=True)
            assert both[0] is None
            assert both[2] is None
            results.append(both[1])
    half = len(results) // 2
    torch.testing.assert_close(results[:half], results[half:])


def test_expanded_cotangents_and_weights_that_are_not_contiguous():
    weight, u, v = inputs((6, 5, 3, 3), 0, torch.float64)
    weight = weight.contiguous(memory_format=torch.channels_last).requires_grad_()
    results = []
    for impl in ("cpu", "reference"):
        out, _, _ = spectral_normalize(weight, u[None].expand(2, 6)[0], v, impl=impl)
        (first,) = torch.autograd.grad(out.sum(), weight, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), weight)
        results.append((out, first, second))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", ["zero", "rank one", "tiny", "huge", "below eps", "orthogonal"])
def test_extreme_weights(value, dtype):
    """The vectors and weights of the reference, also where a product leaves float32's range."""
    weight, u, v = inputs((20, 30), 0, dtype)
    weight = {
        "zero": weight * 0,
        "rank one": torch.outer(u, v),
        "tiny": weight * 1e-25,
        "huge": weight * 1e25,
        "below eps": weight * 1e-14,
        "orthogonal": torch.eye(20, 30, dtype=dtype) * 2,
    }[value]
    eps = 1e-12
    if value == "tiny":
        eps = 1e-30
    if value == "orthogonal":  # W v is zero, W^T u is not
        v = torch.eye(30, dtype=dtype)[25]
    given = [t.double() for t in (weight, u, v)]
    out = three_orders([weight], [u], [v], [0], [weight + 1], [weight - 1], "cpu", eps=eps)
    grads = [given[0] + 1], [given[0] - 1]
    grads = [t.detach().to(dtype).double() for (t,) in grads]
    lists = [[t] for t in given]
    truth = three_orders(*lists, [0], [grads[0]], [grads[1]], "reference", eps=eps)
    if value in ("huge", "tiny"):  # the second derivative overflows float32
        out, truth = out[:2], truth[:2]
    for o, t, what in zip(out, truth, ("outputs", "first", "second"), strict=False):
        factor = 1e-2 if dtype == torch.bfloat16 else 1e-5 if dtype == torch.float32 else 1e-12
        for index, (a, b) in enumerate(zip(o, t, strict=True)):
            assert torch.isfinite(a).all(), (what, index)
            error = (a.double() - b).norm() / b.norm().clamp_min(1e-300)
            assert error <= factor or torch.equal(a.double(), b), (what, index, error)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("training", [True, False])
def test_nan_and_infinity_come_out_as_the_reference_has_them(bad, training):
    weight, u, v = inputs((6, 7), 0)
    weight[2, 3] = bad
    results = []
    for impl in ("cpu", "reference"):
        w = weight.clone().requires_grad_()
        out, new_u, new_v = spectral_normalize(w, u, v, training=training, impl=impl)
        results.append((out, new_u, new_v))
    torch.testing.assert_close(*results, equal_nan=True)
    grad = torch.ones(6, 7)
    grad[1, 1] = bad
    weight[2, 3] = 1
    for impl in ("cpu", "reference"):
        w = weight.clone().requires_grad_()
        out, _, _ = spectral_normalize(w, u, v, training=training, impl=impl)
        assert not torch.isfinite(torch.autograd.grad(out, w, grad)[0][1, 1])


@pytest.mark.parametrize("sum_orders", [True, False])
def test_third_order_raises(sum_orders):
    weight, u, v = inputs((4, 5), 0, torch.float64)
    weight.requires_grad_()
    out, _, _ = spectral_normalize(weight, u, v)
    (first,) = torch.autograd.grad(out.pow(3).sum(), weight, create_graph=True)
    (second,) = torch.autograd.grad(first.pow(2).sum(), weight, create_graph=True)
    loss = second.pow(2).sum()
    if sum_orders:
        loss = loss + spectral_normalize(weight, u, v)[0].sum() + weight.sum()
    with pytest.raises(RuntimeError, match="third derivative"):
        loss.backward()


def test_modes_without_a_rule_raise():
    weight, u, v = inputs((4, 5), 0)
    weight.requires_grad_()
    out, _, _ = spectral_normalize(weight, u, v)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(out, weight, torch.ones(3, 4, 5), is_grads_batched=True)
    with pytest.raises(RuntimeError, match="Batching rule"):
        torch.func.vmap(lambda w: spectral_normalize(w, u, v)[0])(torch.randn(3, 4, 5))
    with torch.autograd.forward_ad.dual_level():
        for primal in (weight, weight.detach()):
            dual = torch.autograd.forward_ad.make_dual(primal, torch.ones(4, 5))
            with pytest.raises((RuntimeError, NotImplementedError), match="forward mode"):
                spectral_normalize(dual, u, v)


def test_functional_grad_of_grad():
    weight, u, v = inputs((4, 5), 0, torch.float64)

    def loss(w, impl):
        return spectral_normalize(w, u, v, training=False, impl=impl)[0].pow(3).sum()

    def twice(impl):
        first = torch.func.grad(lambda w: loss(w, impl))
        return torch.func.grad(lambda w: first(w).pow(2).sum())(weight)

    torch.testing.assert_close(twice("cpu"), twice("reference"))


@pytest.mark.parametrize("order", [1, 2])
def test_second_backward_after_the_weights_have_changed(order):
    """A step between two backwards of one graph changes nothing: a backward reads no weight."""
    args = [inputs((4, 5), 0, torch.float64) for _ in range(2)]
    weights, u, v = zip(*args, strict=True)
    weights = [w.requires_grad_() for w in weights]
    loss = sum(n.pow(3).sum() for n in spectral_normalize_group(weights, u, v)[0])

    def derivative():
        create = order == 2
        first = torch.autograd.grad(loss, weights, retain_graph=True, create_graph=create)
        if order == 1:
            return first
        return torch.autograd.grad(sum(g.pow(2).sum() for g in first), weights, retain_graph=True)

    expected = derivative()
    with torch.no_grad():
        torch._foreach_mul_(weights, 3.0)
    torch.testing.assert_close(derivative(), expected, rtol=0, atol=0)


def test_third_order_after_the_weights_have_changed():
    """A step between a double backward and the next one changes nothing either."""
    weight, u, v = inputs((4, 5), 0, torch.float64)
    weight.requires_grad_()
    out, _, _ = spectral_normalize(weight, u, v)
    (first,) = torch.autograd.grad(out.pow(3).sum(), weight, create_graph=True)
    direction = torch.randn_like(weight).requires_grad_()
    (second,) = torch.autograd.grad(first, weight, direction, create_graph=True)

    def hessian_product():
        return torch.autograd.grad(second.sum(), direction, retain_graph=True)

    expected = hessian_product()
    with torch.no_grad():
        weight.mul_(3.0)
    torch.testing.assert_close(hessian_product(), expected, rtol=0, atol=0)


def test_a_graph_does_not_keep_the_vectors():
    weight, u, v = inputs((4, 5), 0)
    given = weakref.ref(u), weakref.ref(v)
    out, _, _ = spectral_normalize(weight.requires_grad_(), u, v)
    del u, v
    assert out.requires_grad
    assert [kept() for kept in given] == [None, None]


def test_a_normalised_weight_that_is_changed_in_place_raises():
    weight, u, v = inputs((4, 5), 0)
    weight.requires_grad_()
    out, _, _ = spectral_normalize(weight, u, v)
    loss = out.sum()
    with torch.no_grad():
        out.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("of_vectors", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors_of_another_dtype_and_stride(dtype, of_vectors):
    weight, u, v = inputs((4, 5), 0, dtype)
    u, v = (torch.stack([t, t], 1).to(of_vectors)[:, 0] for t in (u, v))
    assert not u.is_contiguous()
    out, truth = (spectral_normalize(weight, u, v, impl=impl) for impl in ("cpu", "reference"))
    assert [t.dtype for t in out] == [t.dtype for t in truth]
    for a, b in zip(out, truth, strict=True):
        sums = torch.float32 if dtype == torch.bfloat16 else dtype
        coarser = max(b.dtype, sums, key=lambda d: torch.finfo(d).eps)
        assert relative_error(a, b.double()) <= tolerance(coarser)
    normalize_and_update([weight], [u], [v], [0], 1, 1e-12, True)
    torch.testing.assert_close((u, v), out[1:], rtol=0, atol=0)


def test_what_the_kernel_overwrites_is_a_new_version():
    """Then autograd raises where it has saved the vectors."""
    weight, u, v = inputs((4, 5), 0)
    versions = u._version, v._version
    factor = torch.ones(4, requires_grad=True)
    product = (factor * u).sum()
    normalize_and_update([weight], [u], [v], [0], 1, 1e-12, True)
    assert u._version > versions[0]
    assert v._version > versions[1]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()
    versions = u._version, v._version
    normalize_and_update([weight], [u], [v], [0], 1, 1e-12, False)
    assert (u._version, v._version) == versions


@pytest.mark.parametrize(
    ("dtype", "needs_grad"), [(dtype, True) for dtype in DTYPES] + [(torch.float32, False)]
)
def test_opcheck(dtype, needs_grad):
    args = [inputs(shape, 0, dtype) for shape in ((4, 3, 2), (1, 5))]
    weights, u, v = (list(values) for values in zip(*args, strict=True))
    weights = [w.requires_grad_(needs_grad) for w in weights]
    for training in (True, False):
        given = (weights, u, v, [0, 0], 2, 1e-12, training)
        torch.library.opcheck(ops.spectral_norm_forward.default, given)
    with torch.no_grad():
        # What overwrites its arguments and returns a list cannot be traced: layers then call the
        # other operator.
        torch.library.opcheck(
            ops.spectral_norm_forward_.default,
            given[:-1],
            test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
        )
        normalized, vectors = ops.spectral_norm_forward(*given)
        grads = [torch.randn_like(normalized[0]), None]
        rest = (normalized, vectors)
        torch.library.opcheck(ops.spectral_norm_backward.default, (grads, *rest, [0, 0], 1e-12))
        inner = ops.spectral_norm_backward(grads, *rest, [0, 0], 1e-12)[1]
        for wanted in ([True, True], [False, True]):
            given = (grads, grads, *rest, inner, [0, 0], 1e-12, wanted)
            torch.library.opcheck(ops.spectral_norm_double_backward.default, given)


def test_bare_operators():
    """The forward differentiates, the others raise instead of giving no gradient."""
    weight, u, v = inputs((4, 5), 0, torch.float64)
    weight.requires_grad_()
    (out,), vectors = ops.spectral_norm_forward([weight], [u], [v], [0], 1, 1e-12, True)
    assert not vectors.requires_grad
    (grad,) = torch.autograd.grad(out.pow(3).sum(), weight, create_graph=True)
    expected = spectral_normalize(weight, u, v, impl="reference")[0]
    (truth,) = torch.autograd.grad(expected.pow(3).sum(), weight, create_graph=True)
    torch.testing.assert_close(grad, truth)
    second = [torch.autograd.grad(g.pow(2).sum(), weight)[0] for g in (grad, truth)]
    torch.testing.assert_close(*second)
    with pytest.raises(RuntimeError, match="spectral_norm_forward_ has no gradient"):
        ops.spectral_norm_forward_([weight], [u], [v], [0], 1, 1e-12)
    with pytest.raises(RuntimeError, match="spectral_norm_backward has no gradient"):
        ops.spectral_norm_backward([out], [out], vectors, [0], 1e-12)
    given = ([out], [out], [out], vectors, vectors[:1], [0], 1e-12, [True, True])
    with pytest.raises(RuntimeError, match="spectral_norm_double_backward has no gradient"):
        ops.spectral_norm_double_backward(*given)


def test_operators_check_their_arguments():
    w, u, v = (list(values) for values in zip(inputs((4, 5), 0), strict=True))
    n, vectors = ops.spectral_norm_forward(w, u, v, [0], 1, 1e-12, True)
    for change, message in {
        "none": "weights: expected a tensor or more, got none",
        "dims": r"dims: expected 1 as there are weights, got 2",
        "dim": r"dims: expected values in 0\.\.1, got 2",
        "u": r"u: expected shape one dimension = \(4\), got \(5,\)",
        "count": "v: expected 1 as there are weights, got 2",
        "iterations": "n_power_iterations: expected a positive number, got 0",
        "dtype": "weights: expected torch.float32, torch.float64 or torch.bfloat16, got torch.f",
        "mixed": "weights: expected torch.float32 as weights has, got torch.float64",
        "empty": r"weights: expected an element or more, got shape \(0, 5\)",
        "strided": "weights: expected a contiguous tensor",
        "integers": "u: expected torch.float32, torch.float64 or torch.bfloat16, got torch.int64",
    }.items():
        given = {
            "none": ([], u, v, [0], 1),
            "dims": (w, u, v, [0, 0], 1),
            "dim": (w, u, v, [2], 1),
            "u": (w, v, u, [0], 1),
            "count": (w, u, v * 2, [0], 1),
            "iterations": (w, u, v, [0], 0),
            "dtype": ([w[0].half()], u, v, [0], 1),
            "mixed": ([w[0], w[0].double()], u * 2, v * 2, [0, 0], 1),
            "empty": ([w[0][:0]], u, v, [0], 1),
            "strided": ([w[0].t()], u, v, [0], 1),
            "integers": (w, [u[0].long()], v, [0], 1),
        }[change]
        with pytest.raises(RuntimeError, match=message):
            ops.spectral_norm_forward(*given, 1e-12, True)
    with pytest.raises(RuntimeError, match=r"grads: expected shape \(4, 5\), got \(5, 4\)"):
        ops.spectral_norm_backward([w[0].view(5, 4)], n, vectors, [0], 1e-12)
    with pytest.raises(RuntimeError, match=r"vectors: expected shape one dimension = \(10\)"):
        ops.spectral_norm_backward(w, n, vectors[1:], [0], 1e-12)
    given = (w, w, n, vectors, vectors[:1], [0], 1e-12, [True])
    with pytest.raises(RuntimeError, match="wanted: expected 2 values, got 1"):
        ops.spectral_norm_double_backward(*given)


def test_lists_of_different_lengths():
    w, u, v = inputs((4, 5), 0)
    with pytest.raises(ValueError, match="u: expected 2 as there are weights, got 1"):
        spectral_normalize_group([w, w], [u], [v, v])
    with pytest.raises(ValueError, match="dims: expected 1 as there are weights, got 2"):
        spectral_normalize_group([w], [u], [v], dims=[0, 0])


def test_choice_of_implementation():
    args = inputs((4, 5), 0)
    by_kernel, by_reference = (spectral_normalize(*args, impl=i) for i in ("cpu", "reference"))
    with use_impl("reference", "spectral_norm"):
        torch.testing.assert_close(spectral_normalize(*args), by_reference, rtol=0, atol=0)
    torch.testing.assert_close(spectral_normalize(*args), by_kernel, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="takes float32, float64 and bfloat16, not float16"):
        spectral_normalize(*(t.half() for t in args), impl="cpu")


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled(backend, dynamic):
    def loss(weight, u, v):
        out, new_u, _ = spectral_normalize(weight, u, v, n_power_iterations=2)
        return out.pow(3).sum() + new_u.sum()

    torch.compiler.reset()
    compiled = torch.compile(loss, backend=backend, fullgraph=True, dynamic=dynamic)
    for rows, columns in itertools.product((4, 6), (5, 7)):
        weight, u, v = inputs((rows, columns), 0)
        weight.requires_grad_()
        results = [f(weight, u, v) for f in (compiled, loss)]
        torch.testing.assert_close(*results)
        grads = [torch.autograd.grad(r, weight)[0] for r in results]
        torch.testing.assert_close(*grads)


def test_reference_has_the_kernels_formula():
    """The closed form that the kernels follow, in float64."""
    weight, u, v = inputs((4, 6), 0, torch.float64)
    u, v = reference.power_iteration(weight, u, v, 1, 1e-12)
    sigma, outer = u @ weight @ v, torch.outer(u, v)
    grad, cotangent = torch.randn(2, 4, 6, dtype=torch.float64)
    c, f = (grad * weight).sum() / sigma, (cotangent * outer).sum()
    first = (grad - c * outer) / sigma
    second = -((((cotangent * first).sum() - f * c / sigma) * outer) + f / sigma * grad) / sigma
    given = ([weight], [u], [v], [0], [grad], [cotangent], "cpu")
    out = three_orders(*given, training=False)
    torch.testing.assert_close(out[1][0], first)
    torch.testing.assert_close(out[2][0], second)
    torch.testing.assert_close(out[2][1], (cotangent - f * weight / sigma) / sigma)

"""The spectral norm's Triton kernels, run by the interpreter or on a GPU."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from torch import Tensor, nn

import ganlstm_fast as gf
from ganlstm_fast import spectral_norm_step, use_impl
from ganlstm_fast.ops import backends
from ganlstm_fast.ops.spectral_norm import operators, triton_common
from ganlstm_fast.ops.spectral_norm.function import (
    normalize_and_update,
    spectral_normalize,
    spectral_normalize_group,
)
from tests.numerics import assert_close_to_reference, relative_error, tolerance
from tests.spectral_norm_cases import inputs, three_orders, torchs
from tests.triton_tools import interpreted, on_cpu_tensors

# Shapes and the dimension of the outputs: of several parts in one phase or the other, of one block,
# transposed, and a matrix of one row or column.
WEIGHTS = [
    *(((9, 3, 2, 2), 0), ((5, 9, 2, 2), 1), ((9, 20), 1), ((3, 4, 5), 2), ((10, 600), 0)),
    *(((130, 3), 0), ((1, 50), 0), ((50, 1), 0), ((1, 1), 0)),
]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
ops = torch.ops.ganlstm_fast


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the tensors lie: on a GPU where there is one, else on the CPU for the interpreter."""
    if torch.cuda.is_available():
        yield "cuda"
        return
    on_cpu_tensors(monkeypatch, "spectral_norm")
    with interpreted(operators):
        yield "cpu"


def draw(
    weights: list[tuple[tuple[int, ...], int]], dtype: torch.dtype, device: str
) -> tuple[list[Any], ...]:
    """Weights, u, v, dims, cotangents of the forward and of the backward."""
    given = [inputs(shape, dim, dtype) for shape, dim in weights]
    w, u, v = (list(values) for values in zip(*given, strict=True))
    dims = [dim for _, dim in weights]
    # From random vectors sigma would be a small sum of large terms.
    double = ([t.double() for t in tensors] for tensors in (w, u, v))
    u, v = spectral_normalize_group(*double, dims=dims, n_power_iterations=3, impl="reference")[1:]
    # Not nearly orthogonal to u v^T: a product with it would be a small sum of large terms.
    grads, cotangents = ([torch.randn(t.shape).to(dtype) + t for t in w] for _ in range(2))
    tensors = (w, u, v, grads, cotangents)
    w, u, v, grads, cotangents = ([t.to(device, dtype) for t in values] for values in tensors)
    return w, u, v, dims, grads, cotangents


def in_double(arguments: tuple[list[Any], ...]) -> tuple[list[Any], ...]:
    return tuple([v.double() if isinstance(v, Tensor) else v for v in a] for a in arguments)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize(
    ("dtype", "iterations", "training"),
    [
        *((dtype, 1, True) for dtype in DTYPES),
        *((dtype, 5, True) for dtype in (torch.float32, torch.bfloat16)),
        (torch.float32, 1, False),
    ],
    ids=str,
)
def test_equals_the_reference_to_second_order(
    dtype: torch.dtype, iterations: int, training: bool, device: str
) -> None:
    weights = WEIGHTS if iterations == 1 else WEIGHTS[:3]
    arguments = w, u, v, dims, grads, cotangents = draw(weights, dtype, device)
    options = {"n_power_iterations": iterations, "training": training}
    out = three_orders(*arguments, "triton", **options)
    truth = three_orders(*in_double(arguments), "reference", **options)
    given = zip(w, u, v, dims, grads, cotangents, strict=True)
    rivals = [torchs(*values, training, iterations) for values in given]
    for k, (weight, rival) in enumerate(zip(w, rivals, strict=True)):
        for o, t, r, what in zip(out, truth, rival, ("outputs", "first", "second"), strict=True):
            mine = o[k :: len(w)], t[k :: len(w)], r
            if weight.numel() == 1 and what == "second":
                # The weight's second derivative is 0, the difference of two terms.
                terms = (grads[k] * cotangents[k] / weight.square()).abs().item()
                assert abs(mine[0][0].item()) <= tolerance(dtype) * terms
                mine = [values[1:] for values in mine]
            for o_, t_, r_ in zip(*mine, strict=True):
                if dtype == torch.float64:  # here the truth has roundings as large as ours
                    assert relative_error(o_, t_) <= 64 * torch.finfo(dtype).eps, (what, k)
                else:
                    assert_close_to_reference(o_, t_, r_, f"{what} of {tuple(weight.shape)}")


def test_a_list_is_as_one_at_a_time(device: str) -> None:
    """Equal to the bit: parts and the order of sums do not depend on a call's other weights."""
    arguments = draw(WEIGHTS, torch.float32, device)
    together = three_orders(*arguments, "triton")
    for k in range(0, len(WEIGHTS), 2):
        alone = three_orders(*([values[k]] for values in arguments), "triton")
        for got, expected in zip(alone, together, strict=True):
            torch.testing.assert_close(got, expected[k :: len(WEIGHTS)], rtol=0, atol=0)


@pytest.mark.usefixtures("poison")
def test_parts_of_several_blocks(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large weights have such parts; here a low limit makes them."""
    triton_common._plan.cache_clear()
    monkeypatch.setattr(triton_common, "MOST_PARTS", 2)
    arguments = draw([((45, 30), 0), ((3, 60, 40), 1)], torch.float32, device)
    plan = triton_common.Weights(arguments[0], "weights", arguments[3]).plan([True] * 2)
    assert (plan.row_parts, plan.element_parts) == (4, 3)
    results = three_orders(*arguments, "triton")
    truth = three_orders(*in_double(arguments), "reference")
    triton_common._plan.cache_clear()
    assert_close_to_reference(results, truth)


def test_gradgradcheck_of_a_list_with_frozen_vectors(device: str) -> None:
    shapes = [((3, 2, 2), 0), ((1, 2, 3), 1), ((2, 2, 2), 2)]
    w, u, v, dims, *_ = draw(shapes, torch.float64, device)

    def run(*weights: Tensor) -> tuple[Tensor, ...]:
        options = {"dims": dims, "training": False, "impl": "triton"}
        return tuple(spectral_normalize_group(weights, u, v, **options)[0])

    w = [weight.requires_grad_() for weight in w]
    assert torch.autograd.gradcheck(run, w, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, w, fast_mode=True)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("order", [1, 2])
def test_a_part_of_the_list(order: int, device: str) -> None:
    """Outputs that the loss does not use, and weights that are not asked for or are constants."""
    weights, u, v, dims, *_ = draw([((4, 5), 0)] * 4, torch.float64, device)
    for weight in weights[:3]:
        weight.requires_grad_()
    results = []
    for impl in ("triton", "reference"):
        n = spectral_normalize_group(weights, u, v, dims=dims, impl=impl)[0]
        loss = n[0].pow(3).sum() + n[1].pow(3).sum() + n[3].sum()
        wanted = [weights[1], weights[2]]
        grads = torch.autograd.grad(loss, wanted, create_graph=order == 2, allow_unused=True)
        assert grads[1] is None
        if order == 2:
            grads = torch.autograd.grad(grads[0].pow(2).sum(), weights[:3], allow_unused=True)
            assert grads[0] is None
            assert grads[2] is None
            grads = grads[1:]
        results.append(grads[0])
    torch.testing.assert_close(*results)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's numpy
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "value", ["zero", "rank one", "tiny", "huge", "below eps", "large eps", "orthogonal"]
)
def test_extreme_weights(value: str, dtype: torch.dtype, device: str) -> None:
    """The vectors and weights of the reference, also where a product leaves float32's range."""
    weight, u, v = inputs((20, 30), 0, dtype)
    weight = {
        "zero": weight * 0,
        "rank one": torch.outer(u, v),
        "tiny": weight * 1e-25,
        "huge": weight * 1e25,
        "below eps": weight * 1e-14,
        "large eps": weight,
        "orthogonal": torch.eye(20, 30, dtype=dtype) * 2,
    }[value]
    eps = {"tiny": 1e-30, "large eps": 100.0}.get(value, 1e-12)
    if value == "orthogonal":  # W v is zero, W^T u is not
        v = torch.eye(30, dtype=dtype)[25]
    given = [[t.to(device)] for t in (weight, u, v)]
    grads = [[(weight + number).to(device)] for number in (1, -1)]
    # With so large an eps the iteration would take u and v to zero.
    options = {"eps": eps, "n_power_iterations": 2, "training": value != "large eps"}
    out = three_orders(*given, [0], *grads, "triton", **options)
    truth = three_orders(*in_double((*given, [0], *grads)), "reference", **options)
    if value in ("huge", "tiny"):  # the second derivative overflows float32
        out, truth = out[:2], truth[:2]
    for o, t, what in zip(out, truth, ("outputs", "first", "second"), strict=False):
        factor = 1e-2 if dtype == torch.bfloat16 else 1e-5
        for index, (a, b) in enumerate(zip(o, t, strict=True)):
            assert torch.isfinite(a).all(), (what, index)
            error = (a.double() - b).norm() / b.norm().clamp_min(1e-300)
            assert error <= factor or torch.equal(a.double(), b), (what, index, error)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("training", [True, False])
def test_nan_and_infinity_come_out_as_the_reference_has_them(
    bad: float, training: bool, device: str
) -> None:
    weight, u, v = (t.to(device) for t in inputs((6, 7), 0))
    weight[2, 3] = bad
    results = [
        spectral_normalize(weight, u, v, training=training, impl=impl)
        for impl in ("triton", "reference")
    ]
    torch.testing.assert_close(*results, equal_nan=True)


@pytest.mark.parametrize("of_vectors", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_vectors_of_another_dtype_and_stride(
    dtype: torch.dtype, of_vectors: torch.dtype, device: str
) -> None:
    weight, u, v = (t.to(device) for t in inputs((4, 5), 0, dtype))
    v = v.to(of_vectors)
    u = torch.stack([u, u], 1).to(of_vectors)[:, 0]
    out, truth = (spectral_normalize(weight, u, v, impl=impl) for impl in ("triton", "reference"))
    assert [t.dtype for t in out] == [t.dtype for t in truth]
    for a, b in zip(out, truth, strict=True):
        coarser = max(b.dtype, torch.float32, key=lambda d: torch.finfo(d).eps)
        assert relative_error(a, b.double()) <= tolerance(coarser)
    versions = u._version, v._version
    with use_impl("triton", "spectral_norm"):
        normalize_and_update([weight], [u], [v], [0], 1, 1e-12, True)
    torch.testing.assert_close((u, v), out[1:], rtol=0, atol=0)
    assert u._version > versions[0]
    assert v._version > versions[1]


def test_expanded_cotangents_and_weights_that_are_not_contiguous(device: str) -> None:
    weight, u, v = (t.to(device) for t in inputs((6, 5, 3, 3), 0, torch.float64))
    weight = weight.contiguous(memory_format=torch.channels_last).requires_grad_()
    results = []
    for impl in ("triton", "reference"):
        out, _, _ = spectral_normalize(weight, u, v, impl=impl)
        (first,) = torch.autograd.grad(out.sum(), weight, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), weight)
        results.append((out, first, second))
    torch.testing.assert_close(*results)


def test_addresses_that_are_not_aligned(device: str) -> None:
    """Views into a flat buffer of parameters."""
    arguments = draw([((5, 7), 0), ((40, 60), 0)], torch.float32, device)
    expected = three_orders(*arguments, "triton")

    def moved(tensor: Tensor) -> Tensor:
        buffer = tensor.new_full((tensor.numel() + 2,), torch.nan)
        buffer[1:-1] = tensor.flatten()
        return buffer[1:-1].view(tensor.shape)

    changed = [[moved(t) if isinstance(t, Tensor) else t for t in values] for values in arguments]
    assert changed[0][0].data_ptr() % 16 != 0
    got = three_orders(*changed, "triton")
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("sum_orders", [True, False])
def test_third_order_raises(sum_orders: bool, device: str) -> None:
    weight, u, v = (t.to(device) for t in inputs((4, 5), 0, torch.float64))
    weight.requires_grad_()
    out, _, _ = spectral_normalize(weight, u, v, impl="triton")
    (first,) = torch.autograd.grad(out.pow(3).sum(), weight, create_graph=True)
    (second,) = torch.autograd.grad(first.pow(2).sum(), weight, create_graph=True)
    loss = second.pow(2).sum()
    if sum_orders:
        loss = loss + weight.sum()
    with pytest.raises(RuntimeError, match="third derivative"):
        loss.backward()


def test_the_number_of_launches(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one launch a phase, for any number of weights."""
    launched: list[str] = []
    launch = triton_common.Launcher.__call__

    def counted(self: Any, kernel: Any, *arguments: Any, **constants: Any) -> None:
        launched.append(kernel.fn.__name__.removeprefix("spectral_norm_"))
        launch(self, kernel, *arguments, **constants)

    monkeypatch.setattr(triton_common.Launcher, "__call__", counted)
    for weights in (WEIGHTS[:1], WEIGHTS[:4]):
        launched.clear()
        three_orders(*draw(weights, torch.float32, device), "triton")
        assert launched == [
            *("multiply_kernel", "sum_columns_kernel", "finish_kernel"),
            *("inner_kernel", "backward_kernel"),
            *("tangent_inner_kernel", "double_backward_kernel"),
        ]
    launched.clear()
    w, u, v, dims, *_ = draw(WEIGHTS[:4], torch.float32, device)
    spectral_normalize_group(w, u, v, dims=dims, training=False, impl="triton")
    assert launched == ["multiply_kernel", "finish_kernel"]


def discriminator(device: str) -> nn.Sequential:
    torch.manual_seed(5)
    layers = [
        gf.spectral_norm(nn.Conv1d(2, 4, 3)),
        gf.spectral_norm(nn.ConvTranspose1d(4, 3, 2)),
        gf.spectral_norm(nn.Linear(21, 1), n_power_iterations=2),
    ]
    modules = layers[0], nn.Tanh(), layers[1], nn.Flatten(), nn.Tanh(), layers[2]
    return nn.Sequential(*modules).to(device, torch.float64)


def train(model: nn.Module, device: str, share: bool) -> list[Tensor]:
    """Trains two steps with a gradient penalty; returns parameters and buffers."""
    real, fake = (torch.randn(2, 3, 2, 8, dtype=torch.float64)).to(device).unbind(0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(2):
        generator = torch.Generator(device).manual_seed(step)
        optimizer.zero_grad()
        with spectral_norm_step(model) if share else torch.enable_grad():
            penalty = gf.gradient_penalty(model, real, fake, generator=generator)
            (model(fake).tanh().mean() - model(real).tanh().mean() + penalty).backward()
        optimizer.step()
    model.eval()
    return [
        *model.parameters(),
        *(p.grad for p in model.parameters()),
        *model.buffers(),
        model(real),
    ]


@pytest.mark.parametrize("share", [True, False])
def test_layers_train_as_by_the_reference(share: bool, device: str) -> None:
    model = discriminator(device)
    twin = copy.deepcopy(model)
    before = [t.clone() for t in model.buffers()]
    results = []
    for this, impl in ((model, "triton"), (twin, "reference")):
        torch.manual_seed(0)
        with use_impl(impl, "spectral_norm"):
            results.append(train(this, device, share))
    torch.testing.assert_close(*results)
    for old, new in zip(before, model.buffers(), strict=True):
        assert not torch.equal(old, new) or old.numel() == 1


def test_one_node_of_the_graph(device: str) -> None:
    model = discriminator(device)
    with use_impl("triton", "spectral_norm"), spectral_norm_step(model):
        nodes = [model[k].weight.grad_fn for k in (0, 2)]
    assert nodes[0] is nodes[1]
    assert nodes[0].options["impl"] == "triton"
    for loss in (model[0].weight.sum(), model[0].weight.pow(2).sum()):
        loss.backward()


def test_opcheck(device: str) -> None:
    weights, u, v, dims, grads, _ = draw([((4, 3, 2), 0), ((1, 5), 0)], torch.float32, device)
    weights = [w.requires_grad_() for w in weights]
    given = (weights, u, v, dims, 1, 1e-12, True)
    torch.library.opcheck(ops.spectral_norm_forward.triton, given)
    with torch.no_grad():
        torch.library.opcheck(
            ops.spectral_norm_forward_.triton,
            given[:-1],
            test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
        )
        normalized, vectors = ops.spectral_norm_forward.triton(*given)
        grads = [grads[0], None]
        rest = (normalized, vectors)
        backward = ops.spectral_norm_backward.triton
        torch.library.opcheck(backward, (grads, *rest, dims, 1e-12))
        inner = backward(grads, *rest, dims, 1e-12)[1]
        given = (grads, grads, *rest, inner, dims, 1e-12, [False, True])
        torch.library.opcheck(ops.spectral_norm_double_backward.triton, given)


def test_bare_operators(device: str) -> None:
    """The forward differentiates, the others raise instead of giving no gradient."""
    (weight,), u, v, dims, *_ = draw([((4, 5), 0)], torch.float64, device)
    weight.requires_grad_()
    (out,), vectors = ops.spectral_norm_forward.triton([weight], u, v, dims, 1, 1e-12, True)
    assert not vectors.requires_grad
    results = [out, spectral_normalize(weight, u[0], v[0], impl="reference")[0]]
    firsts = [torch.autograd.grad(o.pow(3).sum(), weight, create_graph=True)[0] for o in results]
    torch.testing.assert_close(*firsts)
    seconds = [torch.autograd.grad(first.pow(2).sum(), weight)[0] for first in firsts]
    torch.testing.assert_close(*seconds)
    with pytest.raises(RuntimeError, match="spectral_norm_forward_ has no gradient"):
        ops.spectral_norm_forward_.triton([weight], u, v, dims, 1, 1e-12)
    with pytest.raises(RuntimeError, match="spectral_norm_backward has no gradient"):
        ops.spectral_norm_backward.triton([out], [out], vectors, dims, 1e-12)
    given = ([out], [out], [out], vectors, vectors[:1], dims, 1e-12, [True, True])
    with pytest.raises(RuntimeError, match="spectral_norm_double_backward has no gradient"):
        ops.spectral_norm_double_backward.triton(*given)


def test_operators_check_their_arguments(device: str) -> None:
    """Checks of the two backwards; those of the forward are in test_kernels.py."""
    w, u, v, dims, *_ = draw([((4, 5), 0)], torch.float32, device)
    n, vectors = ops.spectral_norm_forward.triton(w, u, v, dims, 1, 1e-12, True)
    inner = vectors[:1]
    empty, integers = [n[0][:0]], [n[0].long()]
    for message, grads, normalized, sums in (
        (r"grads: expected shape \(4, 5\), got \(5, 4\)", [w[0].view(5, 4)], n, vectors),
        ("grads: expected 1 as there are normalized, got 2", w * 2, n, vectors),
        ("grads: expected torch.float32, got torch.float64", [w[0].double()], n, vectors),
        ("grads: expected a contiguous tensor", [w[0].new_empty(5, 4).t()], n, vectors),
        (r"vectors: expected shape one dimension = \(10\)", w, n, vectors[1:-1]),
        ("normalized: expected torch.float32 or .*, got torch.int64", w, integers, vectors),
        (r"normalized: expected an element or more, got shape \(0, 5\)", empty, empty, vectors),
    ):
        with pytest.raises(RuntimeError, match=message):
            ops.spectral_norm_backward.triton(grads, normalized, sums, dims, 1e-12)
    double_backward = ops.spectral_norm_double_backward.triton
    with pytest.raises(RuntimeError, match="v_weights: expected 1 as there are normalized, got 0"):
        double_backward([], w, n, vectors, inner, dims, 1e-12, [True, True])
    with pytest.raises(RuntimeError, match=r"inner: expected shape one dimension = \(1\)"):
        double_backward(w, w, n, vectors, vectors, dims, 1e-12, [True, True])
    with pytest.raises(RuntimeError, match="wanted: expected 2 values, got 1"):
        double_backward(w, w, n, vectors, inner, dims, 1e-12, [True])


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled(backend: str, device: str) -> None:
    """One whole graph, with the operator of the chosen implementation in it."""

    def loss(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
        out, new_u, _ = spectral_normalize(weight, u, v, impl="triton")
        return out.pow(3).sum() + new_u.sum()

    torch.compiler.reset()
    graphs: list[str] = []

    def kept(graph: torch.fx.GraphModule, example: Any) -> Any:
        graphs.append(graph.code)
        return torch._dynamo.lookup_backend(backend)(graph, example)

    compiled = torch.compile(loss, backend=kept, fullgraph=True)
    weight, u, v = (t.to(device) for t in inputs((4, 5), 0))
    weight.requires_grad_()
    results = [f(weight, u, v) for f in (compiled, loss)]
    torch.testing.assert_close(*results)
    grads = [torch.autograd.grad(r, weight)[0] for r in results]
    torch.testing.assert_close(*grads)
    assert all("spectral_norm_forward.triton" in code for code in graphs)
    assert graphs


def test_compiled_layer(device: str) -> None:
    torch.compiler.reset()
    layer = gf.SNLinear(5, 4, device=device)
    twin = copy.deepcopy(layer)
    x = torch.randn(3, 5, device=device)
    with use_impl("triton", "spectral_norm"):
        out = torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
        expected = twin(x)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(list(layer.buffers()), list(twin.buffers()))


def test_says_what_it_does_not_take(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    arguments = [t.to("meta") for t in inputs((4, 5), 0)]
    with pytest.raises(RuntimeError, match="impl='triton' cannot run spectral_norm: runs on cuda"):
        spectral_normalize(*arguments, impl="triton")
    with pytest.raises(RuntimeError, match=r"expected fewer than 2\*\*31 rows and columns"):
        triton_common._plan((torch.Size((2**31, 1)),), (0,), (True,), "weights")
    assert backends.resolve("spectral_norm", None, device, torch.float32) != "triton"

"""The gradient penalty's operators: kernels against the reference, layouts, orders."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

import ganlstm_fast as gf
from ganlstm_fast.ops.backends import use_impl
from ganlstm_fast.ops.gradient_penalty import autograd, reference
from ganlstm_fast.ops.gradient_penalty.philox import uniform
from tests.marks import needs_cpu_kernels
from tests.numerics import assert_close_to_reference

F64 = torch.float64
DTYPES = [torch.float32, F64, torch.bfloat16]
ops = torch.ops.ganlstm_fast

# Sizes that no vector divides, samples of one element or of several parts, one sample, many.
SHAPES = [(17,), (5, 1), (4, 24, 28), (2, 3, 7, 5), (2, 150_001), (1, 70_000), (300, 3), (3, 0)]
# Kernels write results of 8 MiB and more past the caches; these start at unaligned addresses.
STREAMED = (3, 700_001)
# (center, one_sided) of the kinds, and one more.
OPTIONS = [(1.0, False), (1.0, True), (0.0, False), (0.5, True)]

pytestmark = needs_cpu_kernels


def _seed(value: int = 1234567890123456789) -> Tensor:
    return torch.tensor([value])


def _samples(shape: Sequence[int], dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=F64).to(dtype)


# ------------------------------------------------------------------------------ random numbers


def test_philox_has_the_words_of_its_authors():
    """Random123's known answers: all zeros, and a key and counter of ones in part."""
    words = uniform(torch.tensor([0]), 1, F64)
    high, low = 0x6627E8D5, 0xE169C58D
    assert words.item() == ((high >> 5) * 2**26 + (low >> 6)) * 2.0**-53
    assert uniform(torch.tensor([0]), 1, torch.float32).item() == (high >> 8) * 2.0**-24


@pytest.mark.parametrize("seed", [0, 1, 2**32 + 5, 2**63 - 1, -1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_have_the_reference_s_numbers(seed, dtype):
    """The random number itself, as the point between real = 1 and fake = 0."""
    batch = 5000
    drawn = F64 if dtype == F64 else torch.float32
    expected = uniform(_seed(seed), batch, drawn)
    ones = torch.ones(batch, 2, dtype=dtype)
    a = ops.interpolate(ones, torch.zeros_like(ones), _seed(seed))
    assert torch.equal(a, expected.to(dtype)[:, None].expand(-1, 2))
    assert expected.min() >= 0
    assert expected.max() < 1
    assert expected.mean().item() == pytest.approx(0.5, abs=0.02)
    assert expected.std().item() == pytest.approx(12**-0.5, abs=0.01)
    neighbours = torch.corrcoef(torch.stack((expected[1:], expected[:-1])))[0, 1]
    assert abs(neighbours) < 0.06


def test_float32_numbers_begin_those_of_float64():
    wide, narrow = (uniform(_seed(), 1000, d) for d in (F64, torch.float32))
    assert torch.equal((wide * 2**24).floor(), narrow.double() * 2**24)


def test_number_belongs_to_the_sample_s_place():
    real, fake = _samples((2, 9, 4), torch.float32)
    whole = ops.interpolate(real, fake, _seed())
    assert torch.equal(whole[:5], ops.interpolate(real[:5], fake[:5], _seed()))


# -------------------------------------------------------------------------------- interpolate


@pytest.mark.parametrize("shape", [*SHAPES, (0, 3), STREAMED])
@pytest.mark.parametrize("dtype", DTYPES)
def test_interpolate_against_the_reference(shape, dtype, poison):
    real, fake = _samples((2, *shape), dtype)
    out = ops.interpolate(real, fake, _seed())
    assert out.dtype == dtype
    assert out.shape == real.shape
    a = uniform(_seed(), shape[0], F64 if dtype == F64 else torch.float32).double()
    a = a.view(-1, *[1] * (len(shape) - 1))
    truth = a * real.double() + (1 - a) * fake.double()
    assert_close_to_reference(out, truth, reference.interpolate(real, fake, _seed()))
    for present, weight in (((real, None), a), ((None, fake), 1 - a)):
        given = real if present[1] is None else fake
        assert_close_to_reference(ops.interpolate(*present, _seed()), weight * given.double())


def test_streamed_results_have_the_same_bits():
    real, fake = _samples((2, *STREAMED), torch.float32)
    whole = ops.interpolate(real, fake, _seed())
    assert torch.equal(whole[:1], ops.interpolate(real[:1], fake[:1], _seed()))


def test_interpolate_is_its_own_derivative():
    real, fake = _samples((2, 4, 3), F64).requires_grad_().unbind()
    run = functools.partial(autograd.interpolate, seed=_seed(), impl="cpu")
    assert torch.autograd.gradcheck(run, (real, fake))
    assert torch.autograd.gradgradcheck(run, (real, fake))
    (third,) = torch.autograd.grad(run(real.pow(3), fake.detach()).sum(), real, create_graph=True)
    for _ in range(2):
        (third,) = torch.autograd.grad(third.sum(), real, create_graph=True)
    torch.testing.assert_close(third, 6 * uniform(_seed(), 4, F64)[:, None].expand(4, 3))


# ------------------------------------------------------------------------------------ penalty


def _usual(grads: Sequence[Tensor], center: float, one_sided: bool) -> Tensor:
    """The usual formula in plain PyTorch, in the dtype of the kernels' sums."""
    wide = [g.to(torch.promote_types(g.dtype, torch.float32)) for g in grads]
    flat = torch.cat([g.reshape(len(g), -1) for g in wide], 1)
    if center == 0:
        return flat.square().sum(1).mean()
    excess = flat.norm(dim=1) - center
    return (excess.clamp_min(0) if one_sided else excess).square().mean()


def _orders(
    run: Callable[[Sequence[Tensor]], Tensor], grads: Sequence[Tensor], v: Sequence[Tensor]
) -> list[Tensor]:
    """The value, its gradients, and the gradients of those with the cotangents ``v``, with respect
    to the gradients and to the value's own cotangent."""
    leaves = [g.detach().requires_grad_() for g in grads]
    value = run(leaves)
    s = torch.tensor(0.7, dtype=value.dtype, requires_grad=True)
    first = torch.autograd.grad(value, leaves, s, create_graph=True)
    second = torch.autograd.grad(first, [*leaves, s], v)
    return [value, *first, *second]


def _compare(shapes: Sequence[Sequence[int]], dtype: torch.dtype, options: tuple[float, bool]):
    grads = [_samples(shape, dtype, seed=k) for k, shape in enumerate(shapes)]
    size = sum(g[0].numel() for g in grads)
    grads = [g * (1.2 / max(1, size) ** 0.5) for g in grads]  # norms on both sides of 1
    v = [_samples(shape, dtype, seed=10 + k) for k, shape in enumerate(shapes)]
    out = _orders(lambda g: gf.penalty(g, center=options[0], one_sided=options[1]), grads, v)
    truth = _orders(
        lambda g: reference.penalty(g, *options),
        [g.double() for g in grads],
        [t.double() for t in v],
    )
    rival = _orders(lambda g: _usual(g, *options), grads, v)
    if not size:  # torch's norm of an empty tensor has a NaN derivative
        rival = None
    assert_close_to_reference(out, truth, rival)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_penalty_to_second_order(shape, dtype, options, poison):
    _compare([shape], dtype, options)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_penalty_of_several_tensors(dtype, options, poison):
    _compare([(4, 3), (4,), (4, 70_000), (4, 0), (4, 2, 5)], dtype, options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_penalty_of_a_large_tensor(dtype, poison):
    _compare([STREAMED], dtype, OPTIONS[0])


@pytest.mark.parametrize("options", OPTIONS)
def test_gradgradcheck(options):
    grads = [_samples(s, F64, seed=k).requires_grad_() for k, s in enumerate([(4, 3), (4, 2, 2)])]
    run = functools.partial(autograd.penalty, center=options[0], one_sided=options[1], impl="cpu")
    assert torch.autograd.gradcheck(lambda *g: run(g), grads)
    assert torch.autograd.gradgradcheck(lambda *g: run(g), grads)


def test_values_of_several_threads_are_those_of_one():
    grads = [_samples((7, 70_000), torch.float32), _samples((7, 5), torch.float32, seed=1)]
    v = [_samples(g.shape, torch.float32, seed=2) for g in grads]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(_orders(gf.penalty, grads, v))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("center", [0.0, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_tiny_and_huge_gradients(dtype, center):
    """The squares of the last two are near the ends of float32."""
    sizes = torch.tensor([0.0, 1.0, 1e-15, 1e15], dtype=dtype)
    grads = sizes[:, None].expand(4, 8).contiguous()
    found = _orders(lambda g: gf.penalty(g, center=center), [grads], [torch.ones_like(grads)])
    for tensor in found:
        assert torch.isfinite(tensor).all()
    assert torch.equal(found[1][0], torch.zeros(8, dtype=dtype))


def test_nan_and_infinity_are_not_hidden():
    for bad in (float("nan"), float("inf")):
        grad = torch.ones(3, 5)
        grad[1, 2] = bad
        for one_sided in (False, True):
            assert not torch.isfinite(gf.penalty(grad, one_sided=one_sided))


# ------------------------------------------------------------------------------------ layouts


def _layouts(x: Tensor) -> dict[str, Tensor]:
    """Tensors of the values of ``x``, (B, C, H, W)."""
    wide = torch.empty(*x.shape[:-1], x.shape[-1] + 3, dtype=x.dtype)
    wide[..., 1:-2] = x
    shifted = torch.empty(x.numel() + 1, dtype=x.dtype)[1:].view(x.shape)
    shifted.copy_(x)
    return {
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "transposed": x.transpose(0, 1).contiguous().transpose(0, 1),
        "part of a larger one": wide[..., 1:-2],
        "misaligned": shifted,
    }


@pytest.mark.parametrize(
    "layout", ["channels_last", "transposed", "part of a larger one", "misaligned"]
)
def test_layouts(layout):
    x, y, v = (_samples((3, 4, 5, 6), torch.float32, seed=k) for k in range(3))
    xl, yl, vl = (_layouts(t)[layout] for t in (x, y, v))
    between = ops.interpolate(x, y, _seed())
    assert torch.equal(autograd.interpolate(xl, y, _seed(), "cpu"), between)
    assert torch.equal(autograd.interpolate(x, yl, _seed(), "cpu"), between)
    both = autograd.interpolate(xl, yl, _seed(), "cpu")
    assert torch.equal(both, between)
    expected = _orders(lambda g: gf.penalty(g), [x], [v])
    for grads, cotangents in ((xl, vl), (xl, v), (x, vl)):
        assert_close_to_reference(
            _orders(lambda g: gf.penalty(g), [grads], [cotangents]),
            [t.double() for t in expected],
        )
    if layout == "channels_last":
        assert both.is_contiguous(memory_format=torch.channels_last)
        value = gf.penalty(xl.requires_grad_())
        (grad,) = torch.autograd.grad(value, xl)
        assert grad.is_contiguous(memory_format=torch.channels_last)


def test_expanded_cotangents():
    grads = _samples((4, 6), F64).requires_grad_()
    (first,) = torch.autograd.grad(gf.penalty(grads), grads, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), grads)  # an expanded cotangent
    expected = _orders(
        lambda g: reference.penalty(g, 1.0, False), [grads], [torch.ones(4, 6).double()]
    )
    torch.testing.assert_close(second, expected[2] / 0.7)


def test_direct_calls_are_checked():
    x = torch.randn(4, 6)
    with pytest.raises(RuntimeError, match="real: expected samples that are dense in memory"):
        ops.interpolate(x.t(), None, _seed())
    with pytest.raises(RuntimeError, match=r"fake: expected shape \(4, 6\) of real, got \(4, 5\)"):
        ops.interpolate(x, x[:, :5].contiguous(), _seed())
    with pytest.raises(RuntimeError, match=r"seed: expected one torch\.int64, got torch\.float32"):
        ops.interpolate(x, x, torch.ones(1))
    with pytest.raises(RuntimeError, match="real: expected a tensor where fake is absent"):
        ops.interpolate(None, None, _seed())
    with pytest.raises(RuntimeError, match=r"grads: expected torch\.float32 as the first of them"):
        ops.penalty_forward([x, x.double()], 1.0, False)
    with pytest.raises(RuntimeError, match=r"grads: expected shape \(4, \.\.\.\), got \(2, 6\)"):
        ops.penalty_forward([x, x[:2]], 1.0, False)
    value, norms = ops.penalty_forward([x], 1.0, False)
    with pytest.raises(RuntimeError, match="norms: expected 4 values, contiguous"):
        ops.penalty_backward(value, [x], norms[:2], 1.0, False)
    with pytest.raises(RuntimeError, match=r"grads: expected torch\.float32, .*got torch\.int64"):
        ops.penalty_forward([x.long()], 1.0, False)


# ------------------------------------------------------------------------------------- orders


def test_third_order_raises():
    grads = _samples((4, 6), F64).requires_grad_()
    (first,) = torch.autograd.grad(gf.penalty(grads), grads, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), grads, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable twice"):
        (second.square().sum() + grads.sum()).backward()
    with use_impl("reference"):
        (first,) = torch.autograd.grad(gf.penalty(grads), grads, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), grads, create_graph=True)
        second.square().sum().backward()


def test_backward_operators_are_not_differentiable():
    grads = torch.randn(4, 6, requires_grad=True)
    value, norms = ops.penalty_forward([grads.detach()], 1.0, False)
    with pytest.raises(RuntimeError, match="penalty_backward has no gradient"):
        ops.penalty_backward(value, [grads], norms, 1.0, False)


@pytest.mark.parametrize("run", [gf.penalty, lambda x: gf.interpolate(x, 2 * x)])
def test_vmap_and_forward_mode_raise(run):
    """Forward mode is refused also where no input requires a gradient: tangents would be lost."""
    x = torch.randn(3, 4, 6)
    with pytest.raises(RuntimeError):
        torch.func.vmap(run)(x)
    with pytest.raises((RuntimeError, NotImplementedError), match=r"jvp|forward"):
        torch.func.jvp(run, (x,), (x,))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)
        with pytest.raises((RuntimeError, NotImplementedError), match=r"jvp|forward"):
            run(dual)


def test_functorch_grad_of_grad():
    x = _samples((4, 6), F64)

    def slope(impl):
        def run(g):
            return torch.func.grad(lambda h: gf.penalty(h, impl=impl))(g).pow(2).sum()

        return torch.func.grad(run)(x)

    torch.testing.assert_close(slope("cpu"), slope("reference"))


@pytest.mark.parametrize("needs_grad", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(dtype, needs_grad):
    x, y = (_samples((3, 4, 2), dtype, seed=k).requires_grad_(needs_grad) for k in range(2))
    seed = _seed()
    torch.library.opcheck(ops.interpolate.default, (x, y, seed))
    torch.library.opcheck(ops.interpolate.default, (x, None, seed))
    torch.library.opcheck(ops.penalty_forward.default, ([x, y], 1.0, True))
    value, norms = ops.penalty_forward([x.detach(), y.detach()], 1.0, True)
    given = value, [x.detach(), y.detach()], norms, 1.0, True
    torch.library.opcheck(ops.penalty_backward.default, given)
    for wanted in ([True, True], [False, True], [True, False]):
        torch.library.opcheck(
            ops.penalty_double_backward.default, ([x.detach(), None], *given, wanted)
        )


def test_compiled():
    """First order through torch.compile, whose backward calls the kernels as well."""
    real, fake, weight = _samples((3, 4, 5), torch.float32).unbind()
    weight.requires_grad_()

    def run(w):
        return (
            gf.penalty(real * w) + autograd.interpolate(real * w, fake, _seed_constant, "cpu").sum()
        )

    expected = torch.autograd.grad(run(weight), weight)
    torch.compiler.reset()
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(weight), weight), expected)


_seed_constant = _seed()

"""The spectral norm's double backward in Triton, all weights at once: a launch for the inner
products <V, P> and <V, G>, one for the second-order gradients."""

from __future__ import annotations

from itertools import chain

import triton
import triton.language as tl
from torch import Tensor

from ganlstm_fast.ops.spectral_norm.operators import DoubleBackwardArguments, Wanted
from ganlstm_fast.ops.spectral_norm.triton_common import (
    ADDRESSES,
    BLOCK_ELEMENTS,
    COLUMNS,
    ELEMENT_BLOCKS,
    ELEMENTS_END,
    INDEX,
    ROWS,
    SIGMA,
    Launcher,
    Weights,
    add_up,
    addresses,
    as_pointer,
    divides,
    field,
    find_part,
    load,
    outer_product,
    parts_of,
    store,
)

# Addresses in the table; 0 where a gradient is not wanted.
V_WEIGHT: tl.constexpr = tl.constexpr(ADDRESSES.value)
GRAD: tl.constexpr = tl.constexpr(ADDRESSES.value + 1)
NORMALIZED: tl.constexpr = tl.constexpr(ADDRESSES.value + 2)
G_GRAD: tl.constexpr = tl.constexpr(ADDRESSES.value + 3)
G_WEIGHT: tl.constexpr = tl.constexpr(ADDRESSES.value + 4)


@triton.jit(do_not_specialize=["count"])
def spectral_norm_tangent_inner_kernel(
    table_ptr,
    count,
    vectors_ptr,
    with_outer_ptr,  # [parts] out: the part of f = <V, P>
    with_grad_ptr,  # [parts] out: the part of <V, G>
    ALIGNED: tl.constexpr,
    ELEMENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    WIDE: tl.constexpr = vectors_ptr.dtype.element_ty
    k, part = find_part(table_ptr, count, ELEMENTS_END)
    elements = field(table_ptr, count, ROWS, k) * field(table_ptr, count, COLUMNS, k)
    blocks = field(table_ptr, count, ELEMENT_BLOCKS, k)
    v_weight_ptr = as_pointer(field(table_ptr, count, V_WEIGHT, k), ELEMENT, ALIGNED)
    grad_ptr = as_pointer(field(table_ptr, count, GRAD, k), ELEMENT, ALIGNED)
    with_outer = tl.zeros([BLOCK], WIDE)
    with_grad = tl.zeros([BLOCK], WIDE)
    for block in range(0, blocks):
        first = (part * blocks + block) * BLOCK
        at = first + tl.arange(0, BLOCK)
        is_whole = first + BLOCK <= elements
        v_weight = load(v_weight_ptr, at, elements, is_whole).to(WIDE)
        with_outer += v_weight * outer_product(
            table_ptr, vectors_ptr, count, k, first, at < elements, BLOCK
        )
        with_grad += v_weight * load(grad_ptr, at, elements, is_whole).to(WIDE)
    tl.store(with_outer_ptr + tl.program_id(0), tl.sum(with_outer, 0))
    tl.store(with_grad_ptr + tl.program_id(0), tl.sum(with_grad, 0))


@triton.jit(do_not_specialize=["count"])
def spectral_norm_double_backward_kernel(
    table_ptr,
    count,
    vectors_ptr,
    inner_ptr,
    with_outer_ptr,
    with_grad_ptr,
    eps: tl.float64,
    WANTS_GRADS: tl.constexpr,
    WANTS_WEIGHTS: tl.constexpr,
    ALIGNED: tl.constexpr,
    ELEMENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    WIDE: tl.constexpr = vectors_ptr.dtype.element_ty
    k, part = find_part(table_ptr, count, ELEMENTS_END)
    elements = field(table_ptr, count, ROWS, k) * field(table_ptr, count, COLUMNS, k)
    blocks = field(table_ptr, count, ELEMENT_BLOCKS, k)
    begin, end = parts_of(table_ptr, count, ELEMENTS_END, k)
    f = add_up(with_outer_ptr, begin, end)
    with_grad = add_up(with_grad_ptr, begin, end)
    c = tl.load(inner_ptr + field(table_ptr, count, INDEX, k))
    sigma = tl.load(vectors_ptr + field(table_ptr, count, SIGMA, k))
    is_scaled = divides(sigma, tl.full([], eps, tl.float64))
    scale = tl.where(is_scaled, 1.0 / sigma, 1.0).to(WIDE)
    # <V, D> - f c / sigma
    of_outer = ((with_grad - c * f) * scale - f * c * scale) * scale
    of_grad = f * scale * scale
    for block in range(0, blocks):
        first = (part * blocks + block) * BLOCK
        at = first + tl.arange(0, BLOCK)
        is_whole = first + BLOCK <= elements
        if WANTS_GRADS:
            v_weight_ptr = as_pointer(field(table_ptr, count, V_WEIGHT, k), ELEMENT, ALIGNED)
            normalized_ptr = as_pointer(field(table_ptr, count, NORMALIZED, k), ELEMENT, ALIGNED)
            g_grad_ptr = as_pointer(field(table_ptr, count, G_GRAD, k), ELEMENT, ALIGNED)
            v_weight = load(v_weight_ptr, at, elements, is_whole).to(WIDE)
            normalized = load(normalized_ptr, at, elements, is_whole).to(WIDE)
            g_grad = tl.where(is_scaled, (v_weight - f * normalized) * scale, v_weight)
            store(g_grad_ptr, at, g_grad.to(ELEMENT), elements, is_whole)
        if WANTS_WEIGHTS:
            grad_ptr = as_pointer(field(table_ptr, count, GRAD, k), ELEMENT, ALIGNED)
            g_weight_ptr = as_pointer(field(table_ptr, count, G_WEIGHT, k), ELEMENT, ALIGNED)
            outer = outer_product(table_ptr, vectors_ptr, count, k, first, at < elements, BLOCK)
            grad = load(grad_ptr, at, elements, is_whole).to(WIDE)
            g_weight = tl.where(is_scaled, -(of_outer * outer + of_grad * grad), 0.0)
            store(g_weight_ptr, at, g_weight.to(ELEMENT), elements, is_whole)


def spectral_norm_double_backward(a: DoubleBackwardArguments) -> tuple[list[Tensor], list[Tensor]]:
    weights = Weights(a.normalized, "normalized", a.dims)
    weights.check_arrays(a.v_weights, "v_weights")
    weights.check_arrays(a.grads, "grads")
    if len(a.wanted) != 2:
        raise RuntimeError(f"wanted: expected 2 values, got {len(a.wanted)}")
    wanted = Wanted(*a.wanted)
    pairs = zip(a.v_weights, a.grads, strict=True)
    used = [v is not None and grad is not None for v, grad in pairs]
    plan = weights.plan(used)
    weights.check_sums(a.vectors, "vectors", plan.vectors + len(a.normalized))
    weights.check_sums(a.inner, "inner", len(a.normalized))
    g_grads, g_weights = (weights.empty_arrays([want and u for u in used]) for want in wanted)
    if not any(used) or not any(wanted):
        return g_grads, g_weights
    with_outer, with_grad = weights.empty(plan.element_parts), weights.empty(plan.element_parts)
    arrays = (a.v_weights, a.grads, a.normalized, g_grads, g_weights)
    places = [addresses(tensors, used) for tensors in arrays]
    launch = Launcher(weights.first, plan, list(chain.from_iterable(places)))
    constants = {"ALIGNED": launch.is_aligned, "BLOCK": BLOCK_ELEMENTS}
    launch(
        spectral_norm_tangent_inner_kernel,
        plan.element_parts,
        a.vectors,
        with_outer,
        with_grad,
        **constants,
    )
    launch(
        spectral_norm_double_backward_kernel,
        plan.element_parts,
        a.vectors,
        a.inner,
        with_outer,
        with_grad,
        a.eps,
        WANTS_GRADS=wanted.grads,
        WANTS_WEIGHTS=wanted.weights,
        **constants,
    )
    return g_grads, g_weights

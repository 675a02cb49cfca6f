"""The spectral norm's backward in Triton, all weights at once: a launch for the inner products
<G, N>, one for the gradients."""

from __future__ import annotations

from itertools import chain

import triton
import triton.language as tl
from torch import Tensor

from ganlstm_fast.ops.spectral_norm.operators import BackwardArguments
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

# Addresses in the table.
GRAD: tl.constexpr = tl.constexpr(ADDRESSES.value)
NORMALIZED: tl.constexpr = tl.constexpr(ADDRESSES.value + 1)
GRAD_WEIGHT: tl.constexpr = tl.constexpr(ADDRESSES.value + 2)


@triton.jit(do_not_specialize=["count"])
def spectral_norm_inner_kernel(
    table_ptr,
    count,
    dots_ptr,  # [parts] out: the part of <G, N>
    ALIGNED: tl.constexpr,
    ELEMENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    WIDE: tl.constexpr = dots_ptr.dtype.element_ty
    k, part = find_part(table_ptr, count, ELEMENTS_END)
    elements = field(table_ptr, count, ROWS, k) * field(table_ptr, count, COLUMNS, k)
    blocks = field(table_ptr, count, ELEMENT_BLOCKS, k)
    grad_ptr = as_pointer(field(table_ptr, count, GRAD, k), ELEMENT, ALIGNED)
    normalized_ptr = as_pointer(field(table_ptr, count, NORMALIZED, k), ELEMENT, ALIGNED)
    sums = tl.zeros([BLOCK], WIDE)
    for block in range(0, blocks):
        first = (part * blocks + block) * BLOCK
        is_whole = first + BLOCK <= elements
        at = first + tl.arange(0, BLOCK)
        grad = load(grad_ptr, at, elements, is_whole).to(WIDE)
        sums += grad * load(normalized_ptr, at, elements, is_whole).to(WIDE)
    tl.store(dots_ptr + tl.program_id(0), tl.sum(sums, 0))


@triton.jit(do_not_specialize=["count"])
def spectral_norm_backward_kernel(
    table_ptr,
    count,
    vectors_ptr,
    dots_ptr,
    inner_ptr,  # [weights] out: c = <G, N>
    eps: tl.float64,
    ALIGNED: tl.constexpr,
    ELEMENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    WIDE: tl.constexpr = vectors_ptr.dtype.element_ty
    k, part = find_part(table_ptr, count, ELEMENTS_END)
    elements = field(table_ptr, count, ROWS, k) * field(table_ptr, count, COLUMNS, k)
    blocks = field(table_ptr, count, ELEMENT_BLOCKS, k)
    grad_ptr = as_pointer(field(table_ptr, count, GRAD, k), ELEMENT, ALIGNED)
    grad_weight_ptr = as_pointer(field(table_ptr, count, GRAD_WEIGHT, k), ELEMENT, ALIGNED)
    begin, end = parts_of(table_ptr, count, ELEMENTS_END, k)
    c = add_up(dots_ptr, begin, end)
    if part == 0:
        tl.store(inner_ptr + field(table_ptr, count, INDEX, k), c)
    sigma = tl.load(vectors_ptr + field(table_ptr, count, SIGMA, k))
    is_scaled = divides(sigma, tl.full([], eps, tl.float64))
    scale = tl.where(is_scaled, 1.0 / sigma, 1.0).to(WIDE)
    of_outer = tl.where(is_scaled, c, 0.0).to(WIDE)
    for block in range(0, blocks):
        first = (part * blocks + block) * BLOCK
        is_whole = first + BLOCK <= elements
        at = first + tl.arange(0, BLOCK)
        outer = outer_product(table_ptr, vectors_ptr, count, k, first, at < elements, BLOCK)
        grad = load(grad_ptr, at, elements, is_whole).to(WIDE)
        grad_weight = (grad - of_outer * outer) * scale
        store(grad_weight_ptr, at, grad_weight.to(ELEMENT), elements, is_whole)


def spectral_norm_backward(a: BackwardArguments) -> tuple[list[Tensor], Tensor]:
    weights = Weights(a.normalized, "normalized", a.dims)
    weights.check_arrays(a.grads, "grads")
    used = [grad is not None for grad in a.grads]
    plan = weights.plan(used)
    weights.check_sums(a.vectors, "vectors", plan.vectors + len(a.normalized))
    grad_weights = weights.empty_arrays(used)
    inner = weights.empty(len(a.normalized))
    if not any(used):
        return grad_weights, inner
    dots = weights.empty(plan.element_parts)
    places = [addresses(tensors, used) for tensors in (a.grads, a.normalized, grad_weights)]
    launch = Launcher(weights.first, plan, list(chain.from_iterable(places)))
    constants = {"ALIGNED": launch.is_aligned, "BLOCK": BLOCK_ELEMENTS}
    launch(spectral_norm_inner_kernel, plan.element_parts, dots, **constants)
    launch(
        spectral_norm_backward_kernel,
        plan.element_parts,
        a.vectors,
        dots,
        inner,
        a.eps,
        **constants,
    )
    return grad_weights, inner

"""The spectral norm's forward in Triton, all weights at once: three launches an iteration.

``spectral_norm_multiply_kernel`` has W v, and W^T (W v) by parts of rows, while those are in the
cache; ``spectral_norm_sum_columns_kernel`` adds the parts up to W^T u; and
``spectral_norm_finish_kernel`` normalises u and v and, after the last iteration, divides W, which
is then read for the second time. Without iterations it is the first and the last.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ganlstm_fast.ops.spectral_norm.operators import ForwardArguments, UpdateArguments
from ganlstm_fast.ops.spectral_norm.triton_common import (
    ADDRESSES,
    BLOCK_COLUMNS,
    BLOCK_ELEMENTS,
    BLOCK_ROWS,
    BLOCK_SHARES,
    BLOCK_SUMMED,
    BLOCK_VECTOR,
    COLUMNS,
    COLUMNS_END,
    ELEMENT_BLOCKS,
    ELEMENTS_END,
    INNER,
    ROW_BLOCKS,
    ROWS,
    ROWS_END,
    SHARES,
    SIGMA,
    VECTORS,
    Launcher,
    Weights,
    add_up,
    addresses,
    as_pointer,
    divide,
    divides,
    field,
    find_part,
    load,
    parts_of,
    store,
)

# Addresses in the table. u and v are of the dtype of W or, IS_WIDE, of the sums.
WEIGHT: tl.constexpr = tl.constexpr(ADDRESSES.value)
NORMALIZED: tl.constexpr = tl.constexpr(ADDRESSES.value + 1)
U: tl.constexpr = tl.constexpr(ADDRESSES.value + 2)
U_IS_WIDE: tl.constexpr = tl.constexpr(ADDRESSES.value + 3)
V: tl.constexpr = tl.constexpr(ADDRESSES.value + 4)
V_IS_WIDE: tl.constexpr = tl.constexpr(ADDRESSES.value + 5)


@triton.jit
def load_given(table_ptr, count, k, which: tl.constexpr, at, mask, element, wide):
    """Of u or v as the caller gave them."""
    address = field(table_ptr, count, which, k)
    if field(table_ptr, count, which + 1, k) != 0:
        values = tl.load(as_pointer(address, wide, False) + at, mask=mask, other=0.0)
    else:
        values = tl.load(as_pointer(address, element, False) + at, mask=mask, other=0.0).to(wide)
    return values


@triton.jit
def store_given(table_ptr, count, k, which: tl.constexpr, at, values, mask, element, wide):
    address = field(table_ptr, count, which, k)
    if field(table_ptr, count, which + 1, k) != 0:
        tl.store(as_pointer(address, wide, False) + at, values, mask=mask)
    else:
        tl.store(as_pointer(address, element, False) + at, values.to(element), mask=mask)


@triton.jit
def offsets_of_columns(j, rows, inner):
    """Where row 0 has column j."""
    outer = j.to(tl.uint32) // inner.to(tl.uint32)
    return j + outer.to(tl.int64) * ((rows - 1) * inner)


@triton.jit(do_not_specialize=["count"])
def spectral_norm_multiply_kernel(
    table_ptr,
    count,
    vectors_ptr,  # u and v before the iteration, unless it is the first
    products_ptr,  # out, ITERATES: p = W v, where `vectors` has u
    shares_ptr,  # out, ITERATES: [part,w] W^T p of the part's rows, over their largest |p|
    largest_ptr,  # [parts] out, ITERATES: this |p|
    sums_ptr,  # [parts] float64 out: the part of |p|^2 or, not ITERATES, of u^T p
    ITERATES: tl.constexpr,
    FIRST: tl.constexpr,
    ELEMENT: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    WIDE: tl.constexpr = vectors_ptr.dtype.element_ty
    k, part = find_part(table_ptr, count, ROWS_END)
    rows = field(table_ptr, count, ROWS, k)
    columns = field(table_ptr, count, COLUMNS, k)
    inner = field(table_ptr, count, INNER, k)
    blocks = field(table_ptr, count, ROW_BLOCKS, k)
    weight_ptr = as_pointer(field(table_ptr, count, WEIGHT, k), ELEMENT, False)
    place = field(table_ptr, count, VECTORS, k)
    begin = part * blocks * BLOCK_R
    largest = tl.zeros([], WIDE)
    total = tl.zeros([], tl.float64)
    for block in range(0, blocks):
        i = begin + block * BLOCK_R + tl.arange(0, BLOCK_R)
        sums = tl.zeros([BLOCK_R, BLOCK_C], WIDE)
        for first in range(0, columns, BLOCK_C):
            j = first + tl.arange(0, BLOCK_C)
            if FIRST:
                v = load_given(table_ptr, count, k, V, j, j < columns, ELEMENT, WIDE)
            else:
                v = tl.load(vectors_ptr + place + rows + j, mask=j < columns, other=0.0)
            at = (i * inner)[:, None] + offsets_of_columns(j, rows, inner)[None, :]
            mask = (i < rows)[:, None] & (j < columns)[None, :]
            sums += tl.load(weight_ptr + at, mask=mask, other=0.0).to(WIDE) * v[None, :]
        p = tl.sum(sums, 1)
        if ITERATES:
            tl.store(products_ptr + place + i, p, mask=i < rows)
            largest = tl.maximum(largest, tl.max(tl.abs(p), 0))
            total += tl.sum(p.to(tl.float64) * p.to(tl.float64), 0)
        else:
            u = load_given(table_ptr, count, k, U, i, i < rows, ELEMENT, WIDE)
            total += tl.sum(p.to(tl.float64) * u.to(tl.float64), 0)
    tl.store(sums_ptr + tl.program_id(0), total)
    if ITERATES:
        tl.store(largest_ptr + tl.program_id(0), largest)
        # Wait for what other threads of the program have stored.
        tl.debug_barrier()
        share_ptr = shares_ptr + field(table_ptr, count, SHARES, k) + part * columns
        for first in range(0, columns, BLOCK_C):
            j = first + tl.arange(0, BLOCK_C)
            sums = tl.zeros([BLOCK_R, BLOCK_C], WIDE)
            for block in range(0, blocks):
                i = begin + block * BLOCK_R + tl.arange(0, BLOCK_R)
                p = tl.load(products_ptr + place + i, mask=i < rows, other=0.0)
                # The range of W^T p is twice that of W: of its exponents, that is.
                p = tl.where(largest > 0, p / largest, 0.0)
                at = (i * inner)[:, None] + offsets_of_columns(j, rows, inner)[None, :]
                mask = (i < rows)[:, None] & (j < columns)[None, :]
                sums += tl.load(weight_ptr + at, mask=mask, other=0.0).to(WIDE) * p[:, None]
            tl.store(share_ptr + j, tl.sum(sums, 0), mask=j < columns)


@triton.jit(do_not_specialize=["count"])
def spectral_norm_sum_columns_kernel(
    table_ptr,
    count,
    vectors_ptr,
    products_ptr,  # p = W v in; q = W^T u out, where `vectors` has v
    shares_ptr,
    largest_ptr,
    sums_ptr,
    squares_ptr,  # [parts] float64 out: the part of |q|^2
    eps: tl.float64,
    FIRST: tl.constexpr,
    ELEMENT: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    WIDE: tl.constexpr = vectors_ptr.dtype.element_ty
    k, part = find_part(table_ptr, count, COLUMNS_END)
    rows = field(table_ptr, count, ROWS, k)
    columns = field(table_ptr, count, COLUMNS, k)
    place = field(table_ptr, count, VECTORS, k)
    j = part * BLOCK_C + tl.arange(0, BLOCK_C)
    first_part, end_part = parts_of(table_ptr, count, ROWS_END, k)
    norm = tl.sqrt(add_up(sums_ptr, first_part, end_part))
    sums = tl.zeros([BLOCK_S, BLOCK_C], WIDE)
    if norm > 0:
        share_ptr = shares_ptr + field(table_ptr, count, SHARES, k)
        inverse = 1.0 / tl.maximum(norm, tl.full([], eps, tl.float64))
        for first in range(0, end_part - first_part, BLOCK_S):
            s = first + tl.arange(0, BLOCK_S)
            exists = s < end_part - first_part
            largest = tl.load(largest_ptr + first_part + s, mask=exists, other=0.0)
            factor = (largest.to(tl.float64) * inverse).to(WIDE)
            mask = exists[:, None] & (j < columns)[None, :]
            at = (s * columns)[:, None] + j[None, :]
            sums += tl.load(share_ptr + at, mask=mask, other=0.0) * factor[:, None]
    else:  # u is kept
        weight_ptr = as_pointer(field(table_ptr, count, WEIGHT, k), ELEMENT, False)
        inner = field(table_ptr, count, INNER, k)
        for first in range(0, rows, BLOCK_S):
            i = first + tl.arange(0, BLOCK_S)
            if FIRST:
                u = load_given(table_ptr, count, k, U, i, i < rows, ELEMENT, WIDE)
            else:
                u = tl.load(vectors_ptr + place + i, mask=i < rows, other=0.0)
            at = (i * inner)[:, None] + offsets_of_columns(j, rows, inner)[None, :]
            mask = (i < rows)[:, None] & (j < columns)[None, :]
            sums += tl.load(weight_ptr + at, mask=mask, other=0.0).to(WIDE) * u[:, None]
    q = tl.sum(sums, 0)
    tl.store(products_ptr + place + rows + j, q, mask=j < columns)
    square = tl.sum(q.to(tl.float64) * q.to(tl.float64), 0)
    tl.store(squares_ptr + tl.program_id(0), square)


@triton.jit
def update(
    table_ptr,
    count,
    k,
    which: tl.constexpr,
    vectors_ptr,
    products_ptr,
    norm,
    inverse,
    ITERATES: tl.constexpr,
    FIRST: tl.constexpr,
    OVERWRITES: tl.constexpr,
    ELEMENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """u or v from p or q: what falls to this one of the weight's programs."""
    WIDE: tl.constexpr = vectors_ptr.dtype.element_ty
    place = field(table_ptr, count, VECTORS, k)
    size = field(table_ptr, count, ROWS, k)
    if which == V:
        place += size
        size = field(table_ptr, count, COLUMNS, k)
    first_part, end_part = parts_of(table_ptr, count, ELEMENTS_END, k)
    begin = (tl.program_id(0) - first_part) * BLOCK
    for first in range(begin, size, (end_part - first_part) * BLOCK):
        at = first + tl.arange(0, BLOCK)
        mask = at < size
        if FIRST:
            values = load_given(table_ptr, count, k, which, at, mask, ELEMENT, WIDE)
        else:
            values = tl.load(vectors_ptr + place + at, mask=mask, other=0.0)
        if ITERATES:
            product = tl.load(products_ptr + place + at, mask=mask, other=0.0).to(tl.float64)
            values = tl.where(norm > 0, (product * inverse).to(WIDE), values)
        tl.store(vectors_ptr + place + at, values, mask=mask)
        if OVERWRITES:
            store_given(table_ptr, count, k, which, at, values, mask, ELEMENT, WIDE)


@triton.jit(do_not_specialize=["count"])
def spectral_norm_finish_kernel(
    table_ptr,
    count,
    vectors_ptr,  # u and v in, unless it is the FIRST, and out; if it is the LAST, sigma out
    products_ptr,  # p and q, if it ITERATES
    sums_ptr,
    squares_ptr,  # if it ITERATES
    eps: tl.float64,
    ITERATES: tl.constexpr,
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
    OVERWRITES: tl.constexpr,  # the caller's u and v as well
    ALIGNED: tl.constexpr,
    ELEMENT: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    WIDE: tl.constexpr = vectors_ptr.dtype.element_ty
    k, part = find_part(table_ptr, count, ELEMENTS_END)
    least = tl.full([], eps, tl.float64)
    begin, end = parts_of(table_ptr, count, ROWS_END, k)
    total = add_up(sums_ptr, begin, end)
    norm_p = total
    norm_q = total
    if ITERATES:
        begin, end = parts_of(table_ptr, count, COLUMNS_END, k)
        norm_p = tl.sqrt(total)
        norm_q = tl.sqrt(add_up(squares_ptr, begin, end))
    over_p = 1.0 / tl.maximum(norm_p, least)
    over_q = 1.0 / tl.maximum(norm_q, least)
    update(
        table_ptr,
        count,
        k,
        U,
        vectors_ptr,
        products_ptr,
        norm_p,
        over_p,
        ITERATES,
        FIRST,
        OVERWRITES,
        ELEMENT,
        BLOCK_V,
    )
    update(
        table_ptr,
        count,
        k,
        V,
        vectors_ptr,
        products_ptr,
        norm_q,
        over_q,
        ITERATES,
        FIRST,
        OVERWRITES,
        ELEMENT,
        BLOCK_V,
    )
    if LAST:
        if ITERATES:
            total = norm_q * (norm_q * over_q)
        sigma = total.to(WIDE)
        if part == 0:
            tl.store(vectors_ptr + field(table_ptr, count, SIGMA, k), sigma)
        divisor = tl.where(divides(sigma, least), sigma, 1.0)
        weight_ptr = as_pointer(field(table_ptr, count, WEIGHT, k), ELEMENT, ALIGNED)
        normalized_ptr = as_pointer(field(table_ptr, count, NORMALIZED, k), ELEMENT, ALIGNED)
        elements = field(table_ptr, count, ROWS, k) * field(table_ptr, count, COLUMNS, k)
        blocks = field(table_ptr, count, ELEMENT_BLOCKS, k)
        for block in range(0, blocks):
            first = (part * blocks + block) * BLOCK
            is_whole = first + BLOCK <= elements
            at = first + tl.arange(0, BLOCK)
            weight = load(weight_ptr, at, elements, is_whole).to(WIDE)
            store(normalized_ptr, at, divide(weight, divisor).to(ELEMENT), elements, is_whole)


def _forward(
    weights: Sequence[Tensor],
    u: Sequence[Tensor],
    v: Sequence[Tensor],
    dims: Sequence[int],
    n_power_iterations: int,
    eps: float,
    iterates: bool,
    overwrites: bool,
) -> tuple[list[Tensor], Tensor]:
    call = Weights(weights, "weights", dims)
    call.check_vectors(u, v)
    if n_power_iterations <= 0:
        raise RuntimeError(
            f"n_power_iterations: expected a positive number, got {n_power_iterations}"
        )
    all_of_them = [True] * len(weights)
    plan = call.plan(all_of_them)
    normalized = call.empty_arrays(all_of_them)
    vectors = call.empty(plan.vectors + plan.count)
    products = call.empty(plan.vectors)
    shares, largest = call.empty(plan.shares), call.empty(plan.row_parts)
    sums = call.empty(plan.row_parts, torch.float64)
    squares = call.empty(plan.column_parts, torch.float64)
    places = [addresses(tensors, all_of_them) for tensors in (weights, normalized, u, v)]
    are_wide = [[int(t.dtype == call.wide) for t in tensors] for tensors in (u, v)]
    others = [*places[2], *are_wide[0], *places[3], *are_wide[1]]
    launch = Launcher(call.first, plan, [*places[0], *places[1]], others)
    iterations = n_power_iterations if iterates else 1
    for iteration in range(iterations):
        is_first, is_last = iteration == 0, iteration == iterations - 1
        launch(
            spectral_norm_multiply_kernel,
            plan.row_parts,
            vectors,
            products,
            shares,
            largest,
            sums,
            ITERATES=iterates,
            FIRST=is_first,
            BLOCK_R=BLOCK_ROWS,
            BLOCK_C=BLOCK_COLUMNS,
        )
        if iterates:
            launch(
                spectral_norm_sum_columns_kernel,
                plan.column_parts,
                vectors,
                products,
                shares,
                largest,
                sums,
                squares,
                eps,
                FIRST=is_first,
                BLOCK_C=BLOCK_SUMMED,
                BLOCK_S=BLOCK_SHARES,
            )
        launch(
            spectral_norm_finish_kernel,
            plan.element_parts,
            vectors,
            products,
            sums,
            squares,
            eps,
            ITERATES=iterates,
            FIRST=is_first,
            LAST=is_last,
            OVERWRITES=overwrites and is_last,
            ALIGNED=launch.is_aligned,
            BLOCK=BLOCK_ELEMENTS,
            BLOCK_V=BLOCK_VECTOR,
        )
    return normalized, vectors


def spectral_norm_forward(a: ForwardArguments) -> tuple[list[Tensor], Tensor]:
    return _forward(a.weights, a.u, a.v, a.dims, a.n_power_iterations, a.eps, a.training, False)


def spectral_norm_forward_(a: UpdateArguments) -> tuple[list[Tensor], Tensor]:
    return _forward(a.weights, a.u, a.v, a.dims, a.n_power_iterations, a.eps, True, True)

"""The passes of the gradient penalty in Triton: functions with the names, arguments and results of
the operators in ``csrc/bindings.cpp``.

A program has ROWS samples and of each tensor in the list one of ``parts`` equal parts of these
samples, so that a launch serves the whole list. Where one part is all, a program itself uses what
it sums over its samples; otherwise the next launch does. The order of sums depends on the shapes
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ganlstm_fast.ops.triton_ops import on_device

MOST_TENSORS = 8  # of a launch, which is compiled for their number
MOST_PARTS = 256
ELEMENTS_OF_PART = 4096
TILE = 1024
OPTIONS = {"num_warps": 4}


@triton.jit
def _samples(B, ROWS: tl.constexpr):
    """The program's samples, and which of them exist."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    return rows, rows < B


@triton.jit
def _places(rows, exist, start, size, step, BLOCK: tl.constexpr):
    """Where a tile of the program's part lies in a tensor (B, size), and what of it exists."""
    begin = tl.program_id(1).to(tl.int64) * step
    within = start + tl.arange(0, BLOCK)
    mask = exist[:, None] & ((within < step) & (within < size - begin))[None, :]
    return (rows * size + begin)[:, None] + within[None, :], mask


@triton.jit
def _load(ptr, at, mask, WIDE: tl.constexpr):
    return tl.load(ptr + at, mask=mask, other=0.0).to(WIDE)


@triton.jit
def _uniform(seed_ptr, rows, WIDE: tl.constexpr):
    """The samples' random numbers, as ``philox.py`` has them."""
    low, high = (rows & 0xFFFFFFFF).to(tl.uint32), (rows >> 32).to(tl.uint32)
    zero = tl.zeros_like(low)
    x, y, _, _ = tl.philox(tl.load(seed_ptr), low, high, zero, zero)
    if tl.float64 == WIDE:
        return (((x >> 5).to(tl.uint64) << 26) + (y >> 6)).to(WIDE) * (1.0 / 2**53)
    return (x >> 8).to(WIDE) * (1.0 / 2**24)


@triton.jit(do_not_specialize=["B"])
def interpolate_kernel(
    real_ptr,  # [B,size] or None
    fake_ptr,  # likewise
    out_ptr,  # [B,size] out
    seed_ptr,
    size,
    step,
    B,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    rows, exist = _samples(B, ROWS)
    a = _uniform(seed_ptr, rows, WIDE)[:, None]
    for start in range(0, step, BLOCK):
        at, mask = _places(rows, exist, start, size, step, BLOCK)
        if fake_ptr is None:
            point = a * _load(real_ptr, at, mask, WIDE)
        elif real_ptr is None:
            point = (1.0 - a) * _load(fake_ptr, at, mask, WIDE)
        else:
            fake = _load(fake_ptr, at, mask, WIDE)
            point = fake + a * (_load(real_ptr, at, mask, WIDE) - fake)
        tl.store(out_ptr + at, point, mask=mask)


@triton.jit
def _dot(
    xs, ys, sizes, steps, rows, exist, ROWS: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr
):
    """<x, y> over the program's part of each of its samples; an x that is None is zero."""
    total = tl.zeros([ROWS], WIDE)
    # Triton 3.6 has no len of a tuple that holds None, as xs may.
    for i in tl.static_range(len(ys)):
        if xs[i] is not None:
            for start in range(0, steps[i], BLOCK):
                at, mask = _places(rows, exist, start, sizes[i], steps[i], BLOCK)
                total += tl.sum(_load(xs[i], at, mask, WIDE) * _load(ys[i], at, mask, WIDE), 1)
    return total


@triton.jit
def _sum_of_parts(sums_ptr, rows, exist, parts, PARTS: tl.constexpr):
    """What the parts of each sample have left in [B,parts]."""
    columns = tl.arange(0, PARTS)
    mask = exist[:, None] & (columns < parts)[None, :]
    at = rows[:, None] * parts + columns[None, :]
    return tl.sum(tl.load(sums_ptr + at, mask=mask, other=0.0), 1)


@triton.jit
def _root(x):
    """Triton's other root is an approximation in float32, which takes a tiny number for 0."""
    return tl.sqrt(x) if x.dtype == tl.float64 else tl.sqrt_rn(x)


# The penalty as a function of the norm: csrc/gradient_penalty/slope.h.
@triton.jit
def _penalty(square, norm, CENTER: tl.constexpr, ONE_SIDED: tl.constexpr):
    if CENTER == 0:
        return square
    excess = norm - CENTER
    if ONE_SIDED:
        excess = tl.where(norm < CENTER, 0.0, excess)
    return excess * excess


@triton.jit
def _is_flat(norm, CENTER: tl.constexpr, ONE_SIDED: tl.constexpr):
    return norm < CENTER if ONE_SIDED else norm == 0


@triton.jit
def _slope(norm, CENTER: tl.constexpr, ONE_SIDED: tl.constexpr):
    if CENTER == 0:
        return tl.zeros_like(norm) + 1.0
    flat = _is_flat(norm, CENTER, ONE_SIDED)
    return tl.where(flat, 0.0, (norm - CENTER) / tl.where(flat, 1.0, norm))


@triton.jit
def _bend(norm, product, CENTER: tl.constexpr, ONE_SIDED: tl.constexpr):
    if CENTER == 0:
        return tl.zeros_like(norm)
    flat = _is_flat(norm, CENTER, ONE_SIDED)
    divisor = tl.where(flat, 1.0, norm)
    return tl.where(flat, 0.0, CENTER / divisor * (product / divisor))


@triton.jit
def _finite(x):
    most = 1.7976931348623157e308 if x.dtype == tl.float64 else 3.4028234663852886e38
    return tl.where(x > most, most, tl.where(x < -most, -most, x))


@triton.jit
def _scaled(share, factor):
    """share * factor, which leaves the range only with the share: where the gradient is tiny, its
    zeros would become NaN."""
    product = share * _finite(factor)
    return tl.where(share - share == 0, _finite(product), product)


@triton.jit(do_not_specialize=["B", "all_parts", "first_part"])
def penalty_forward_kernel(
    grads,
    norms_ptr,  # [B] out, with IS_WHOLE
    sums_ptr,  # [programs] out: of their penalties; else [B,all_parts] out: of squares
    sizes,
    steps,
    B,
    all_parts,
    first_part,
    CENTER: tl.constexpr,
    ONE_SIDED: tl.constexpr,
    IS_WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    rows, exist = _samples(B, ROWS)
    square = _dot(grads, grads, sizes, steps, rows, exist, ROWS, BLOCK, WIDE)
    if IS_WHOLE:
        norm = _root(square)
        tl.store(norms_ptr + rows, norm, mask=exist)
        share = tl.where(exist, _penalty(square, norm, CENTER, ONE_SIDED), 0.0)
        tl.store(sums_ptr + tl.program_id(0), tl.sum(share.to(tl.float64), 0))
    else:
        at = rows * all_parts + first_part + tl.program_id(1)
        tl.store(sums_ptr + at, square, mask=exist)


@triton.jit(do_not_specialize=["count", "parts", "B"])
def penalty_value_kernel(
    sums_ptr,  # [count] shares, or [count,parts] of each sample
    norms_ptr,  # [count] out of the forward, in for the double backward
    value_ptr,  # [] out
    count,
    parts,
    B,
    CENTER: tl.constexpr,
    ONE_SIDED: tl.constexpr,
    OF: tl.constexpr,
    ROWS: tl.constexpr,
    PARTS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One program. OF: what was summed, "shares", or "squares" or "products" of samples."""
    total = tl.zeros([ROWS], tl.float64)
    for start in range(0, count, ROWS):
        rows = (start + tl.arange(0, ROWS)).to(tl.int64)
        exist = rows < count
        if OF == "shares":
            total += tl.load(sums_ptr + rows, mask=exist, other=0.0)
        else:
            sums = _sum_of_parts(sums_ptr, rows, exist, parts, PARTS).to(WIDE)
            if OF == "squares":
                norm = _root(sums)
                tl.store(norms_ptr + rows, norm, mask=exist)
                share = _penalty(sums, norm, CENTER, ONE_SIDED)
            else:
                norm = tl.load(norms_ptr + rows, mask=exist, other=0.0)
                share = 2.0 * _scaled(sums, _slope(norm, CENTER, ONE_SIDED))
            total += tl.where(exist, share, 0.0)
    tl.store(value_ptr, tl.sum(total, 0) / B)


@triton.jit(do_not_specialize=["B"])
def penalty_backward_kernel(
    grads,
    outs,
    grad_value_ptr,
    norms_ptr,
    sizes,
    steps,
    B,
    CENTER: tl.constexpr,
    ONE_SIDED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    rows, exist = _samples(B, ROWS)
    norm = tl.load(norms_ptr + rows, mask=exist, other=0.0)
    share = 2.0 * tl.load(grad_value_ptr) / B
    factor = _scaled(share, _slope(norm, CENTER, ONE_SIDED))[:, None]
    for i in tl.static_range(len(grads)):
        for start in range(0, steps[i], BLOCK):
            at, mask = _places(rows, exist, start, sizes[i], steps[i], BLOCK)
            tl.store(outs[i] + at, factor * _load(grads[i], at, mask, WIDE), mask=mask)


@triton.jit(do_not_specialize=["B", "all_parts", "first_part"])
def penalty_double_backward_kernel(
    v_grads,  # each may be None
    grads,
    outs,
    grad_value_ptr,
    norms_ptr,
    sums_ptr,  # [programs] out: of the value's shares; else [B,all_parts]: of <v, g>; or None
    sizes,
    steps,
    B,
    all_parts,
    first_part,
    CENTER: tl.constexpr,
    ONE_SIDED: tl.constexpr,
    IS_WHOLE: tl.constexpr,
    SUMS: tl.constexpr,  # <v, g> is computed
    WRITES: tl.constexpr,  # outs are
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    WIDE: tl.constexpr,
):
    rows, exist = _samples(B, ROWS)
    norm = tl.load(norms_ptr + rows, mask=exist, other=0.0)
    product = tl.zeros([ROWS], WIDE)
    if SUMS:
        product = _dot(v_grads, grads, sizes, steps, rows, exist, ROWS, BLOCK, WIDE)
        if not IS_WHOLE:
            at = rows * all_parts + first_part + tl.program_id(1)
            tl.store(sums_ptr + at, product, mask=exist)
        elif sums_ptr is not None:
            part = 2.0 * _scaled(product, _slope(norm, CENTER, ONE_SIDED))
            total = tl.sum(tl.where(exist, part, 0.0).to(tl.float64), 0)
            tl.store(sums_ptr + tl.program_id(0), total)
    elif CENTER != 0:
        product = _sum_of_parts(sums_ptr, rows, exist, all_parts, PARTS).to(WIDE)
    if WRITES:
        share = 2.0 * tl.load(grad_value_ptr) / B
        of_v = _scaled(share, _slope(norm, CENTER, ONE_SIDED))[:, None]
        of_unit = _scaled(share, _bend(norm, product, CENTER, ONE_SIDED))[:, None]
        inverse = _finite(1.0 / tl.where(norm > 0, norm, 1.0))[:, None]
        for i in tl.static_range(len(grads)):
            for start in range(0, steps[i], BLOCK):
                at, mask = _places(rows, exist, start, sizes[i], steps[i], BLOCK)
                result = of_unit * (inverse * _load(grads[i], at, mask, WIDE))
                if v_grads[i] is not None:
                    result += of_v * _load(v_grads[i], at, mask, WIDE)
                tl.store(outs[i] + at, result, mask=mask)


class _Plan:
    """How the samples of a list of tensors are cut."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.batch = len(tensors[0])
        self.sizes = [t.numel() // self.batch for t in tensors]
        self.groups = range(0, len(tensors), MOST_TENSORS)
        self.parts = min(max(1, triton.cdiv(sum(self.sizes), ELEMENTS_OF_PART)), MOST_PARTS)
        self.is_whole = self.parts == 1 and len(self.groups) == 1
        self.all_parts = self.parts * len(self.groups)
        steps = [triton.cdiv(size, self.parts) for size in self.sizes]
        # Where samples begin at a multiple of 16 bytes, so do their parts.
        self.steps = steps if self.parts == 1 else [triton.cdiv(step, 16) * 16 for step in steps]
        block = min(triton.next_power_of_2(max(1, *self.steps)), TILE)
        rows = min(TILE // block, triton.next_power_of_2(self.batch))
        self.programs = triton.cdiv(self.batch, rows)
        self.wide = torch.promote_types(tensors[0].dtype, torch.float32)
        self.wide_type = tl.float64 if self.wide == torch.float64 else tl.float32
        self.tile = {"ROWS": rows, "BLOCK": block, "WIDE": self.wide_type}

    def room(self, like: Tensor) -> Tensor:
        """For what the programs sum."""
        shape = (self.programs,) if self.is_whole else (self.batch, self.all_parts)
        return like.new_empty(shape, dtype=torch.float64)

    def launch(
        self, kernel: Any, lists: Sequence[Sequence[Tensor | None]], *rest: Any, **options: Any
    ) -> None:
        """Run ``kernel`` on the tensors of the lists, in as many launches as they need."""
        for begin in self.groups:
            own = slice(begin, begin + MOST_TENSORS)
            if "first_part" in kernel.arg_names:
                options["all_parts"] = self.all_parts
                options["first_part"] = begin // MOST_TENSORS * self.parts
                options["IS_WHOLE"] = self.is_whole
            kernel[self.programs, self.parts](
                *(tuple(tensors[own]) for tensors in lists),
                *rest,
                tuple(self.sizes[own]),
                tuple(self.steps[own]),
                self.batch,
                **options,
                **self.tile,
                **OPTIONS,
            )

    def put_value(self, of: str, sums: Tensor, norms: Tensor, value: Tensor, **curve: Any) -> None:
        parts = 1 if self.is_whole else triton.next_power_of_2(self.all_parts)
        penalty_value_kernel[1,](
            *(sums, norms, value, len(sums), self.all_parts, self.batch),
            **curve,
            OF="shares" if self.is_whole else of,
            ROWS=max(1, TILE // parts),
            PARTS=parts,
            WIDE=self.wide_type,
            **OPTIONS,
        )


def interpolate(real: Tensor | None, fake: Tensor | None, seed: Tensor) -> Tensor:
    points = torch.empty_like(fake if real is None else real)
    if points.numel() > 0:
        plan = _Plan([points])
        with on_device(points):
            interpolate_kernel[plan.programs, plan.parts](
                *(real, fake, points, seed, plan.sizes[0], plan.steps[0], plan.batch),
                **plan.tile,
                **OPTIONS,
            )
    return points


def penalty_forward(
    grads: Sequence[Tensor], center: float, one_sided: bool
) -> tuple[Tensor, Tensor]:
    plan, curve = _Plan(grads), {"CENTER": center, "ONE_SIDED": one_sided}
    value, norms = (grads[0].new_empty(shape, dtype=plan.wide) for shape in ((), plan.batch))
    sums = plan.room(grads[0])
    with on_device(grads[0]):
        plan.launch(penalty_forward_kernel, [grads], norms, sums, **curve)
        plan.put_value("squares", sums, norms, value, **curve)
    return value, norms


def penalty_backward(
    grad_value: Tensor, grads: Sequence[Tensor], norms: Tensor, center: float, one_sided: bool
) -> list[Tensor]:
    results = [torch.empty_like(grad) for grad in grads]
    curve = {"CENTER": center, "ONE_SIDED": one_sided}
    with on_device(grads[0]):
        lists = [grads, results]
        _Plan(grads).launch(penalty_backward_kernel, lists, grad_value, norms, **curve)
    return results


def penalty_double_backward(
    v_grads: Sequence[Tensor | None],
    grad_value: Tensor,
    grads: Sequence[Tensor],
    norms: Tensor,
    center: float,
    one_sided: bool,
    wanted: Sequence[bool],
) -> tuple[Tensor, list[Tensor]]:
    wants_value, wants_grads = wanted
    plan, curve = _Plan(grads), {"CENTER": center, "ONE_SIDED": one_sided}
    g_value = norms.new_empty(()) if wants_value else grads[0].new_empty(0)
    g_grads = [torch.empty_like(g) if wants_grads else g.new_empty(0) for g in grads]
    sums = wants_value or (wants_grads and center != 0)
    # Parts are summed in a launch before that which writes.
    passes = [(sums, wants_grads)] if plan.is_whole else [(sums, False), (False, wants_grads)]
    needs_room = wants_value if plan.is_whole else sums
    room = plan.room(grads[0]) if needs_room else None
    lists = [v_grads, grads, g_grads]
    with on_device(grads[0]):
        for sums, writes in passes:
            if sums or writes:
                plan.launch(
                    penalty_double_backward_kernel,
                    lists,
                    *(grad_value, norms, room),
                    **curve,
                    SUMS=sums,
                    WRITES=writes,
                    PARTS=triton.next_power_of_2(plan.all_parts),
                )
        if wants_value:
            plan.put_value("products", room, norms, g_value, **curve)
    return g_value, g_grads

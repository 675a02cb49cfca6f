"""What the passes of the gradient penalty in Triton share: how samples are cut, and the penalty's
curve with its derivatives.

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

MOST_TENSORS = 8  # of a launch, which is compiled for their number
MOST_PARTS = 256
ELEMENTS_OF_PART = 4096
TILE = 1024
OPTIONS = {"num_warps": 4}


@triton.jit
def samples(B, ROWS: tl.constexpr):
    """The program's samples, and which of them exist."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    return rows, rows < B


@triton.jit
def places(rows, exist, start, size, step, BLOCK: tl.constexpr):
    """Where a tile of the program's part lies in a tensor (B, size), and what of it exists."""
    begin = tl.program_id(1).to(tl.int64) * step
    within = start + tl.arange(0, BLOCK)
    mask = exist[:, None] & ((within < step) & (within < size - begin))[None, :]
    return (rows * size + begin)[:, None] + within[None, :], mask


@triton.jit
def load(ptr, at, mask, WIDE: tl.constexpr):
    return tl.load(ptr + at, mask=mask, other=0.0).to(WIDE)


@triton.jit
def dot(
    xs, ys, sizes, steps, rows, exist, ROWS: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr
):
    """<x, y> over the program's part of each of its samples; an x that is None is zero."""
    total = tl.zeros([ROWS], WIDE)
    # Triton 3.6 has no len of a tuple that holds None, as xs may.
    for i in tl.static_range(len(ys)):
        if xs[i] is not None:
            for start in range(0, steps[i], BLOCK):
                at, mask = places(rows, exist, start, sizes[i], steps[i], BLOCK)
                total += tl.sum(load(xs[i], at, mask, WIDE) * load(ys[i], at, mask, WIDE), 1)
    return total


@triton.jit
def sum_of_parts(sums_ptr, rows, exist, parts, PARTS: tl.constexpr):
    """What the parts of each sample have left in [B,parts]."""
    columns = tl.arange(0, PARTS)
    mask = exist[:, None] & (columns < parts)[None, :]
    at = rows[:, None] * parts + columns[None, :]
    return tl.sum(tl.load(sums_ptr + at, mask=mask, other=0.0), 1)


@triton.jit
def root(x):
    """Triton's other root is an approximation in float32, which takes a tiny number for 0."""
    return tl.sqrt(x) if x.dtype == tl.float64 else tl.sqrt_rn(x)


# The penalty as a function of the norm: csrc/gradient_penalty/slope.h.
@triton.jit
def penalty_of(square, norm, CENTER: tl.constexpr, ONE_SIDED: tl.constexpr):
    if CENTER == 0:
        return square
    excess = norm - CENTER
    if ONE_SIDED:
        excess = tl.where(norm < CENTER, 0.0, excess)
    return excess * excess


@triton.jit
def is_flat(norm, CENTER: tl.constexpr, ONE_SIDED: tl.constexpr):
    return norm < CENTER if ONE_SIDED else norm == 0


@triton.jit
def slope(norm, CENTER: tl.constexpr, ONE_SIDED: tl.constexpr):
    if CENTER == 0:
        return tl.zeros_like(norm) + 1.0
    flat = is_flat(norm, CENTER, ONE_SIDED)
    return tl.where(flat, 0.0, (norm - CENTER) / tl.where(flat, 1.0, norm))


@triton.jit
def bend(norm, product, CENTER: tl.constexpr, ONE_SIDED: tl.constexpr):
    if CENTER == 0:
        return tl.zeros_like(norm)
    flat = is_flat(norm, CENTER, ONE_SIDED)
    divisor = tl.where(flat, 1.0, norm)
    return tl.where(flat, 0.0, CENTER / divisor * (product / divisor))


@triton.jit
def finite(x):
    most = 1.7976931348623157e308 if x.dtype == tl.float64 else 3.4028234663852886e38
    return tl.where(x > most, most, tl.where(x < -most, -most, x))


@triton.jit
def scaled(share, factor):
    """share * factor, which leaves the range only with the share: where the gradient is tiny, its
    zeros would become NaN."""
    product = share * finite(factor)
    return tl.where(share - share == 0, finite(product), product)


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
            sums = sum_of_parts(sums_ptr, rows, exist, parts, PARTS).to(WIDE)
            if OF == "squares":
                norm = root(sums)
                tl.store(norms_ptr + rows, norm, mask=exist)
                share = penalty_of(sums, norm, CENTER, ONE_SIDED)
            else:
                norm = tl.load(norms_ptr + rows, mask=exist, other=0.0)
                share = 2.0 * scaled(sums, slope(norm, CENTER, ONE_SIDED))
            total += tl.where(exist, share, 0.0)
    tl.store(value_ptr, tl.sum(total, 0) / B)


class Plan:
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
            sums,
            norms,
            value,
            len(sums),
            self.all_parts,
            self.batch,
            **curve,
            OF="shares" if self.is_whole else of,
            ROWS=max(1, TILE // parts),
            PARTS=parts,
            WIDE=self.wide_type,
            **OPTIONS,
        )

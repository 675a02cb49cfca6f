"""The points between samples, and the penalty, in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ganlstm_fast.ops.functions import on_device
from ganlstm_fast.ops.gradient_penalty.operators import ForwardArguments, InterpolateArguments
from ganlstm_fast.ops.gradient_penalty.triton_common import (
    OPTIONS,
    Plan,
    dot,
    load,
    penalty_of,
    places,
    root,
    samples,
)


@triton.jit
def uniform(seed_ptr, rows, WIDE: tl.constexpr):
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
    rows, exist = samples(B, ROWS)
    a = uniform(seed_ptr, rows, WIDE)[:, None]
    for start in range(0, step, BLOCK):
        at, mask = places(rows, exist, start, size, step, BLOCK)
        if fake_ptr is None:
            point = a * load(real_ptr, at, mask, WIDE)
        elif real_ptr is None:
            point = (1.0 - a) * load(fake_ptr, at, mask, WIDE)
        else:
            fake = load(fake_ptr, at, mask, WIDE)
            point = fake + a * (load(real_ptr, at, mask, WIDE) - fake)
        tl.store(out_ptr + at, point, mask=mask)


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
    rows, exist = samples(B, ROWS)
    square = dot(grads, grads, sizes, steps, rows, exist, ROWS, BLOCK, WIDE)
    if IS_WHOLE:
        norm = root(square)
        tl.store(norms_ptr + rows, norm, mask=exist)
        share = tl.where(exist, penalty_of(square, norm, CENTER, ONE_SIDED), 0.0)
        tl.store(sums_ptr + tl.program_id(0), tl.sum(share.to(tl.float64), 0))
    else:
        at = rows * all_parts + first_part + tl.program_id(1)
        tl.store(sums_ptr + at, square, mask=exist)


def interpolate(a: InterpolateArguments) -> Tensor:
    points = torch.empty_like(a.fake if a.real is None else a.real)  # type: ignore[arg-type]
    if points.numel() > 0:
        plan = Plan([points])
        with on_device(points):
            interpolate_kernel[plan.programs, plan.parts](
                a.real,
                a.fake,
                points,
                a.seed,
                plan.sizes[0],
                plan.steps[0],
                plan.batch,
                **plan.tile,
                **OPTIONS,
            )
    return points


def penalty_forward(a: ForwardArguments) -> tuple[Tensor, Tensor]:
    plan, curve = Plan(a.grads), {"CENTER": a.center, "ONE_SIDED": a.one_sided}
    first = a.grads[0]
    value, norms = (first.new_empty(shape, dtype=plan.wide) for shape in ((), plan.batch))
    sums = plan.room(first)
    with on_device(first):
        plan.launch(penalty_forward_kernel, [a.grads], norms, sums, **curve)
        plan.put_value("squares", sums, norms, value, **curve)
    return value, norms

"""The double backward of the penalty in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ganlstm_fast.ops.functions import on_device
from ganlstm_fast.ops.gradient_penalty.operators import DoubleBackwardArguments, Wanted
from ganlstm_fast.ops.gradient_penalty.triton_common import (
    Plan,
    bend,
    dot,
    finite,
    load,
    places,
    samples,
    scaled,
    slope,
    sum_of_parts,
)


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
    rows, exist = samples(B, ROWS)
    norm = tl.load(norms_ptr + rows, mask=exist, other=0.0)
    product = tl.zeros([ROWS], WIDE)
    if SUMS:
        product = dot(v_grads, grads, sizes, steps, rows, exist, ROWS, BLOCK, WIDE)
        if not IS_WHOLE:
            at = rows * all_parts + first_part + tl.program_id(1)
            tl.store(sums_ptr + at, product, mask=exist)
        elif sums_ptr is not None:
            part = 2.0 * scaled(product, slope(norm, CENTER, ONE_SIDED))
            total = tl.sum(tl.where(exist, part, 0.0).to(tl.float64), 0)
            tl.store(sums_ptr + tl.program_id(0), total)
    elif CENTER != 0:
        product = sum_of_parts(sums_ptr, rows, exist, all_parts, PARTS).to(WIDE)
    if WRITES:
        share = 2.0 * tl.load(grad_value_ptr) / B
        of_v = scaled(share, slope(norm, CENTER, ONE_SIDED))[:, None]
        of_unit = scaled(share, bend(norm, product, CENTER, ONE_SIDED))[:, None]
        inverse = finite(1.0 / tl.where(norm > 0, norm, 1.0))[:, None]
        for i in tl.static_range(len(grads)):
            for start in range(0, steps[i], BLOCK):
                at, mask = places(rows, exist, start, sizes[i], steps[i], BLOCK)
                result = of_unit * (inverse * load(grads[i], at, mask, WIDE))
                if v_grads[i] is not None:
                    result += of_v * load(v_grads[i], at, mask, WIDE)
                tl.store(outs[i] + at, result, mask=mask)


def penalty_double_backward(a: DoubleBackwardArguments) -> tuple[Tensor, list[Tensor]]:
    wanted, first = Wanted(*a.wanted), a.grads[0]
    plan, curve = Plan(a.grads), {"CENTER": a.center, "ONE_SIDED": a.one_sided}
    g_value = a.norms.new_empty(()) if wanted.grad_value else first.new_empty(0)
    g_grads = [torch.empty_like(g) if wanted.grads else g.new_empty(0) for g in a.grads]
    sums = wanted.grad_value or (wanted.grads and a.center != 0)
    # Parts are summed in a launch before that which writes.
    passes = [(sums, wanted.grads)] if plan.is_whole else [(sums, False), (False, wanted.grads)]
    needs_room = wanted.grad_value if plan.is_whole else sums
    room = plan.room(first) if needs_room else None
    lists = [a.v_grads, a.grads, g_grads]
    with on_device(first):
        for sums, writes in passes:
            if sums or writes:
                plan.launch(
                    penalty_double_backward_kernel,
                    lists,
                    a.grad_value,
                    a.norms,
                    room,
                    **curve,
                    SUMS=sums,
                    WRITES=writes,
                    PARTS=triton.next_power_of_2(plan.all_parts),
                )
        if wanted.grad_value:
            plan.put_value("products", room, a.norms, g_value, **curve)
    return g_value, g_grads

"""The backward of the penalty in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ganlstm_fast.ops.functions import on_device
from ganlstm_fast.ops.gradient_penalty.operators import BackwardArguments
from ganlstm_fast.ops.gradient_penalty.triton_common import (
    Plan,
    load,
    places,
    samples,
    scaled,
    slope,
)


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
    rows, exist = samples(B, ROWS)
    norm = tl.load(norms_ptr + rows, mask=exist, other=0.0)
    share = 2.0 * tl.load(grad_value_ptr) / B
    factor = scaled(share, slope(norm, CENTER, ONE_SIDED))[:, None]
    for i in tl.static_range(len(grads)):
        for start in range(0, steps[i], BLOCK):
            at, mask = places(rows, exist, start, sizes[i], steps[i], BLOCK)
            tl.store(outs[i] + at, factor * load(grads[i], at, mask, WIDE), mask=mask)


def penalty_backward(a: BackwardArguments) -> list[Tensor]:
    results = [torch.empty_like(grad) for grad in a.grads]
    curve = {"CENTER": a.center, "ONE_SIDED": a.one_sided}
    with on_device(a.grads[0]):
        lists = [a.grads, results]
        Plan(a.grads).launch(penalty_backward_kernel, lists, a.grad_value, a.norms, **curve)
    return results

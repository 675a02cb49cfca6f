"""The tolerance rule of the project, once.

Truth is the reference in float64. An implementation may err at most twice what PyTorch's own
operator errs in the same dtype on the same inputs, where the error is ``||out - ref|| / ||ref||``,
and at most 8 eps of the dtype where that is more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

RIVAL_FACTOR = 2.0
FLOOR_IN_EPS = 8.0

Values = Tensor | None | Sequence["Values"]


def relative_error(out: Tensor | None, truth: Tensor | None) -> float:
    """``||out - truth|| / ||truth||`` in float64; ``||out||`` where ``truth`` is zero.

    None stands for a gradient that autograd left out, which is a zero. NaN or infinity in ``out``
    makes the error infinite.
    """
    if out is None and truth is None:
        return 0.0
    a = torch.zeros_like(truth, dtype=torch.float64) if out is None else out.detach()
    b = torch.zeros_like(a, dtype=torch.float64) if truth is None else truth.detach()
    a, b = a.to("cpu", torch.float64), b.to("cpu", torch.float64)
    if not torch.isfinite(a).all():
        return math.inf
    scale = float(torch.linalg.vector_norm(b))
    error = float(torch.linalg.vector_norm(a - b))
    return error / scale if scale > 0 else error


def tolerance(dtype: torch.dtype, rival_error: float | None = None) -> float:
    """The error that the rule allows in ``dtype``; a rival that failed (inf) earns no allowance."""
    floor = FLOOR_IN_EPS * torch.finfo(dtype).eps
    if rival_error is None or not math.isfinite(rival_error):
        return floor
    return max(RIVAL_FACTOR * rival_error, floor)


def assert_close_to_reference(
    out: Values, truth: Values, rival: Values = None, what: str = "output"
) -> None:
    """Fail unless ``out`` is as close to ``truth`` as the rule of this module asks.

    Args:
        out: what the implementation gave, in the dtype under test. A tensor, None (a gradient that
            autograd left out, compared as zero) or a nested sequence of these.
        truth: the reference's answer in float64, of the same structure and shapes.
        rival: PyTorch's own answer in the dtype under test, of the same structure, or None where it
            has no such operator; then the floor alone is allowed. For a float64 ``out``, pass
            PyTorch's answer in float32: an error in another dtype counts in proportion to the
            dtypes' eps, and since the truth then has roundings like any other float64 result, the
            same error once more is allowed for it.
        what: names the value in the message; elements of a sequence add their index.

    Where ``truth`` is zero the error is the absolute ``||out||``. NaN or infinity in ``out`` fails;
    in ``truth`` it is a mistake of the test and fails as well. A ``rival`` that is not finite earns
    no allowance.
    """
    if isinstance(out, Sequence) or isinstance(truth, Sequence):
        both = isinstance(out, Sequence), isinstance(truth, Sequence)
        assert all(both), f"{what}: {type(out).__name__}, expected {type(truth).__name__}"
        assert len(out) == len(truth), f"{what}: {len(out)} values, expected {len(truth)}"
        rivals = [None] * len(out) if rival is None else rival
        assert len(rivals) == len(out), f"{what}: {len(rivals)} rival values, expected {len(out)}"
        for index, (o, t, r) in enumerate(zip(out, truth, rivals, strict=True)):
            assert_close_to_reference(o, t, r, f"{what}[{index}]")
        return
    if truth is not None:
        assert truth.dtype == torch.float64, f"{what}: the truth is {truth.dtype}, not float64"
        assert torch.isfinite(truth).all(), f"{what}: the truth itself is not finite"
    if out is not None and truth is not None:
        assert out.shape == truth.shape, (
            f"{what}: shape {tuple(out.shape)}, expected {tuple(truth.shape)}"
        )
    if out is not None:
        bad = int((~torch.isfinite(out)).sum())
        assert bad == 0, f"{what}: {bad} of {out.numel()} values are NaN or infinite"
    dtype = torch.float64 if out is None else out.dtype
    missing = "; the gradient is missing (None)" if out is None else ""
    rival_error = None if rival is None else relative_error(rival, truth)
    if rival is not None and rival.dtype != dtype:
        rival_error *= torch.finfo(dtype).eps / torch.finfo(rival.dtype).eps
    error, allowed = relative_error(out, truth), tolerance(dtype, rival_error)
    if dtype == torch.float64 and rival is not None:
        allowed += rival_error
    assert error <= allowed, (
        f"{what} ({dtype}): relative error {error:.3e}, allowed {allowed:.3e} (torch's own "
        f"{'unknown' if rival_error is None else f'{rival_error:.3e}'}, "
        f"floor {FLOOR_IN_EPS:g} eps){missing}"
    )

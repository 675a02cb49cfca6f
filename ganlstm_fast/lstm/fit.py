"""Which of a GPU's kernels take a layer: it depends on H besides device and dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from ganlstm_fast import backends


def why_not(impl: str, x: Tensor, hidden: int) -> str | None:
    """The reason why the implementation cannot run a layer of ``hidden`` units, or None.

    That it serves x's device and dtype has been seen to (``backends.resolve``).
    """
    if impl == "triton":
        from ganlstm_fast.lstm.triton_common import MOST_HIDDEN  # here: it needs triton

        most = MOST_HIDDEN[x.dtype.itemsize]
        return None if hidden <= most else f"it takes H up to {most} in {x.dtype}, got {hidden}"
    if impl == "cuda":
        device = x.device.index or 0
        reason = torch.ops.ganlstm_fast.lstm_why_not_cuda(device, hidden, x.dtype.itemsize)
        return f"it {reason}" if reason else None
    return None


def check(impl: str, x: Tensor, hidden: int) -> None:
    reason = why_not(impl, x, hidden)
    if reason is not None:
        raise RuntimeError(f"impl={impl!r} cannot run lstm: {reason}")


def proven_kernels(x: Tensor, hidden: int) -> str | None:
    """The GPU's kernels to use where torch's own LSTM has no second order, or None."""
    if not x.is_cuda:
        return None
    for impl in backends.serving("lstm", x.device.type, x.dtype, proven_only=True):
        if impl not in ("torch", "reference") and why_not(impl, x, hidden) is None:
            return impl
    return None

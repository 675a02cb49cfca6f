"""Which implementation runs a layer: on a GPU it depends on H besides device and dtype.

``auto`` goes by what was measured (:mod:`ganlstm_fast.ops.lstm.measured`). At first order it takes
torch's LSTM (cuDNN) unless one of ours was faster at that H, or at the next H below and above.
Where a backward is itself recorded, or cuDNN is off, it takes ours, in the order of their speed at
the nearest H. On a GPU that nobody has measured that is torch's LSTM, then ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ganlstm_fast.ops import backends
from ganlstm_fast.ops.lstm.measured import FASTEST, Measured
from ganlstm_fast.ops.lstm.projections import tf32_is_allowed

KERNELS = ("cuda", "cell", "triton")
# What a call does: a forward alone, a forward with a backward, or also a recorded backward.
WORKS = FORWARD, TRAINING, SECOND_ORDER = "forward", "forward+backward", "second order"


def why_not(impl: str, x: Tensor, hidden: int) -> str | None:
    """The reason why the implementation cannot run a layer of ``hidden`` units, or None.

    ``backends.resolve`` has checked x's device and dtype already.
    """
    if impl == "triton":
        most = _most_by_triton(x.dtype)
        if hidden <= most:
            return None
        return f"it takes H up to {most} in {8 * x.dtype.itemsize} bits, got {hidden}; " + (
            "use impl='cuda' or 'cell'"
        )
    if impl == "cuda":
        reason = why_not_cuda(x.device.index or 0, hidden, x.dtype.itemsize)
        return f"it {reason}" if reason else None
    return None


def why_not_cuda(device: int, hidden: int, element: int) -> str:
    """Why the walk in one launch does not fit a GPU; empty where it does."""
    key = device, hidden, element
    if key not in _WHY_NOT_CUDA:
        _WHY_NOT_CUDA[key] = torch.ops.ganlstm_fast.lstm_why_not_cuda(*key)
    return _WHY_NOT_CUDA[key]


_WHY_NOT_CUDA: dict[tuple[int, int, int], str] = {}


def most(impl: str, device: torch.device, dtype: torch.dtype) -> int | None:
    """The largest H that one of ``KERNELS`` takes on a GPU; None: any. 0: it does not run there."""
    if impl == "triton":
        return _most_by_triton(dtype)
    if impl == "cell":
        return None
    fitting, too_many = 0, 1 << 14
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        if why_not_cuda(device.index or 0, middle, dtype.itemsize):
            too_many = middle
        else:
            fitting = middle
    return fitting


def _most_by_triton(dtype: torch.dtype) -> int:
    from ganlstm_fast.ops.lstm.triton_common import MOST_HIDDEN  # here: it needs triton

    return MOST_HIDDEN[dtype.itemsize]


def check(impl: str, x: Tensor, hidden: int, who: str | None = None) -> None:
    """Raise RuntimeError, which names ``who`` asked for it, if the implementation cannot run."""
    reason = why_not(impl, x, hidden)
    if reason is not None:
        raise RuntimeError(f"{who or f'impl={impl!r}'} cannot run lstm: {reason}")


def choose(impl: str | None, x: Tensor, hidden: int, work: str) -> str:
    """The name of the implementation that runs a layer of ``hidden`` units.

    Args:
        impl: the caller's ``impl=`` argument; None means the default in force.
        work: ``FORWARD``, ``TRAINING`` or ``SECOND_ORDER``.

    Raises:
        ValueError, RuntimeError: as ``backends.resolve``; a named implementation does not fit.
    """
    # While a graph is traced neither settings nor caches can be read.
    by_size = x.is_cuda and not torch.compiler.is_compiling()
    if by_size and backends.is_auto("lstm", impl, x.device):
        if work == TRAINING and backends.is_second_order_ahead():
            work = SECOND_ORDER
        found = _fastest(x, hidden, work)
        if found is not None:
            return found
    name = backends.resolve("lstm", impl, x.device, x.dtype)
    check(name, x, hidden, backends.described("lstm", impl))
    return name


def second_order(x: Tensor, hidden: int) -> str | None:
    """The GPU's kernels to use where torch's own LSTM has no second order, or None."""
    name = _fastest(x, hidden, SECOND_ORDER) if x.is_cuda else None
    return None if name == "torch" else name


# Where products in float32 may take TF32, and where they may not.
_FASTEST: dict[tuple[object, ...], tuple[str | None, ...]] = {}


def _fastest(x: Tensor, hidden: int, work: str) -> str | None:
    """One of ``KERNELS``, or "torch"; None if no kernel of ours runs where one is needed."""
    if not torch.backends.cudnn.enabled:
        work = SECOND_ORDER  # without cuDNN torch's LSTM is small kernels at first order as well
    device, dtype = x.device, x.dtype
    key = device.index, dtype, hidden, work
    found = _FASTEST.get(key)
    if found is None:
        if backends.why_not_gpu(device.index) is not None:
            return None
        found = _FASTEST[key] = tuple(
            _look_up(x, hidden, work, tf32) for tf32 in (dtype == torch.float32, False)
        )
    tf32, full = found
    # Read the setting only where it decides: reading it takes as long as the rest.
    return tf32 if tf32 == full or tf32_is_allowed(device, dtype) else full


def _look_up(x: Tensor, hidden: int, work: str, tf32: bool) -> str | None:
    served = backends.serving("lstm", x.device, x.dtype, proven_only=True)
    fitting = [k for k in KERNELS if k in served and why_not(k, x, hidden) is None]
    capability = torch.cuda.get_device_capability(x.device)
    names = order(capability, numbers(x.dtype, tf32), work, hidden)
    return next((name for name in names if name in fitting or name == "torch"), None)


def numbers(dtype: torch.dtype, tf32: bool) -> str:
    """The table's name for a dtype: "tf32" is float32 with products that may be rounded."""
    return "tf32" if tf32 else str(dtype).removeprefix("torch.")


def order(capability: tuple[int, int], numbers: str, work: str, hidden: int) -> tuple[str, ...]:
    """The implementations to try for a layer, the best first."""
    measured = FASTEST.get(capability, {}).get((numbers, work), [])
    if work != SECOND_ORDER:
        return (_first_order(measured, hidden),)
    if not measured:
        return KERNELS
    _, names = min(measured, key=lambda row: abs(math.log(row[0] / max(hidden, 1))))
    return (*names, *(k for k in KERNELS if k not in names))


def _first_order(measured: Measured, hidden: int) -> str:
    """A kernel of ours if it was the fastest at this H, or at the nearest H below and above."""
    below = [names[0] for h, names in measured if h <= hidden][-1:]
    above = [names[0] for h, names in measured if h >= hidden][:1]
    return below[0] if below and below == above else "torch"

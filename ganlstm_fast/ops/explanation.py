"""What runs on a device and why, in words: :func:`explain`."""

from __future__ import annotations

from itertools import groupby

import torch

from ganlstm_fast.ops import backends
from ganlstm_fast.ops.lstm import fit
from ganlstm_fast.ops.lstm.measured import FASTEST, SOURCES
from ganlstm_fast.ops.lstm.projections import tf32_is_allowed


def explain(
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    proj_size: int = 0,
) -> str:
    """What would run for tensors of this device and dtype, and why the others would not.

    Args:
        device: as for ``torch.device``.
        dtype: dtype of the operator's input.
        proj_size: as for ``torch.nn.LSTM``.

    Returns:
        For each family a line, and below it, indented, a line for each other implementation. Of a
        GPU's LSTM, which is chosen by size, also what was measured and where.
    """
    device = torch.device(device)
    lines = []
    for family in backends.FAMILIES:
        if family == "lstm" and proj_size > 0:
            lines.append("lstm: torch.nn.LSTM itself; proj_size has no kernel here")
        else:
            lines += _of_family(family, device, dtype)
    return "\n".join(lines)


def _of_family(family: str, device: torch.device, dtype: torch.dtype) -> list[str]:
    is_auto = backends.is_auto(family, None, device)
    try:
        if is_auto:
            name = backends.chosen_by_auto(family, device, dtype)
        else:
            name = backends.resolve(family, None, device, dtype)
    except RuntimeError as error:
        return [f"{family}: raises ({error})"]
    kernels = backends.serving(family, device, dtype, proven_only=True)
    kernels = [kernel for kernel in fit.KERNELS if kernel in kernels]
    chosen = {name}
    if family == "lstm" and device.type == "cuda" and is_auto and kernels:
        most = _most_units(device, dtype, kernels)
        chosen |= set(most)
        lines = _by_size(device, dtype, most)
    else:
        what = backends.what(family, name)
        what += f" for {backends.cpu_isa()}" if name == "cpu" else ""
        what += "" if backends.is_timed(family, name) else "; its speed has not been measured"
        lines = [f"{family}: {name}{'' if is_auto else ' (chosen by you)'}, {what}"]
    for other in backends.names(family, device):
        if other not in chosen:
            reason = backends.why_not_chosen(family, other, device, dtype)
            if family == "lstm" and other in kernels:
                reason = fit.why_not_cuda(device.index or 0, 1, dtype.itemsize) or reason
            lines.append(f"  {other}: {reason}")
    return lines


def _most_units(
    device: torch.device, dtype: torch.dtype, kernels: list[str]
) -> dict[str, int | None]:
    """Those that are tried where a backward is recorded, and the largest H that each takes."""
    found: dict[str, int | None] = {}
    for kernel in kernels:
        most = fit.most(kernel, device, dtype)
        if most != 0:
            found[kernel] = most
        if most is None:
            break  # takes what the others would be tried for
    return found


def _by_size(device: torch.device, dtype: torch.dtype, most: dict[str, int | None]) -> list[str]:
    """Of the LSTM on a GPU that our kernels run on."""
    capability = torch.cuda.get_device_capability(device)
    numbers = fit.numbers(dtype, tf32_is_allowed(device, dtype))
    table = {work: FASTEST.get(capability, {}).get((numbers, work)) for work in fit.WORKS}
    second = ", else ".join(k if h is None else f"{k} up to H {h}" for k, h in most.items())
    if not any(table.values()):
        return [
            f"lstm: torch (cuDNN), and where a backward is recorded {second}; "
            f"nobody has measured {numbers} on sm_{capability[0]}{capability[1]}"
        ]
    lines = ["lstm: by H, as measured in " + "; ".join(map(_source, SOURCES[capability]))]
    for work in (fit.FORWARD, fit.TRAINING):
        lines.append(f"  {work}: {_ranges(table[work] or [])}")
    return [*lines, f"  {fit.SECOND_ORDER}: {second}"]


def _source(source: tuple[str, str, tuple[str, ...]]) -> str:
    device, folder, files = source
    return f"{folder} ({device}; {', '.join(files)})"


def _ranges(measured: list[tuple[int, tuple[str, ...]]]) -> str:
    """The stretches of H in which one of ours is taken; torch's LSTM elsewhere."""
    parts = []
    for name, rows in groupby(measured, key=lambda row: row[1][0]):
        sizes = [hidden for hidden, _ in rows]
        if name != "torch":
            to = f" to {sizes[-1]}" if len(sizes) > 1 else ""
            parts.append(f"{name} at H {sizes[0]}{to}")
    return ", ".join([*parts, "else torch (cuDNN)"]) if parts else "torch (cuDNN)"
